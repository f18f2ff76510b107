//! A VM for tests of the shell: callers count their replies, and what is told can be made to fail.
#![allow(dead_code, reason = "each test uses some of it")]

use batcher_core::{CommitScope, Config, Group, LaneRef, Pacing};
use batcher_shell::{
    Alone, Callers, Ended, Event, Expired, Failure, Flight, Notice, Shard, Taken, Timer, Vm,
    WorkerId,
};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(crate) const AT_ONCE: Duration = Duration::ZERO;
pub(crate) const LATE: Duration = Duration::from_secs(3600);

/// Counts the replies that a process has had.
pub(crate) type Caller = Arc<AtomicUsize>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Failing;

/// How many writes. May fail when their memory is freed.
#[derive(Default)]
pub(crate) struct Writes(pub(crate) usize);

impl Drop for Writes {
    fn drop(&mut self) {
        fail_if("drop");
    }
}

thread_local! {
    /// What fails next, once.
    pub(crate) static FAILS: Cell<Option<&'static str>> = const { Cell::new(None) };
    /// Whether it takes a process to tell callers of a failure.
    pub(crate) static PROXIES: Cell<bool> = const { Cell::new(false) };
    /// The numbers of the committers that were woken.
    pub(crate) static WOKEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn fail_if(what: &str) {
    if FAILS.get() == Some(what) {
        FAILS.set(None);
        panic!("provoked");
    }
}

impl Vm for Failing {
    type Env<'a> = ();
    type Owner = ();
    type Committer = u64;
    type Waker = u64;
    type Responder = ();
    type Writes = Writes;
    type Answers = Callers<Caller>;
    type Waiter = Caller;
    type Process = ();
    type Watch = ();
    type Terms = ();

    fn process(_sender: ()) {}

    fn watch(_sender: Option<()>, _process: (), _index: u64, _alone: Alone) -> Option<()> {
        Some(())
    }

    fn may_be_exiting(_sender: ()) -> bool {
        false
    }

    fn waker(&committer: &u64) -> u64 {
        committer
    }

    fn wake(committer: u64, _sender: Option<()>) {
        fail_if("wake");
        WOKEN.with_borrow_mut(|woken| woken.push(committer));
    }

    fn tell(waiter: Caller, _sender: Option<()>, _failure: Option<&Failure>) {
        waiter.fetch_add(1, Relaxed);
    }

    fn notify(_owner: &(), _sender: Option<()>, _notice: Notice<'_>) {
        fail_if("notify");
    }

    fn fail(answers: &mut Callers<Caller>, _failure: &Failure, proxied: &mut Option<()>) {
        while let Some((caller, true)) = answers.pass() {
            caller.fetch_add(1, Relaxed);
        }
        *proxied = PROXIES.get().then_some(());
    }

    fn expire(answers: &mut Callers<Caller>, now: Instant, from: usize) -> Expired {
        answers.expire(now, from, |caller| _ = caller.fetch_add(1, Relaxed))
    }
}

/// A shard that is open, and its timer, whose thread is the test.
pub(crate) fn new() -> (&'static Timer<Failing>, &'static Shard<Failing>) {
    new_with(config())
}

pub(crate) fn new_with(config: Config) -> (&'static Timer<Failing>, &'static Shard<Failing>) {
    let timer: &'static Timer<Failing> = Box::leak(Box::default());
    let shard = Box::leak(Box::new(Shard::new(0, timer.events())));
    open_with(timer, shard, config);
    (timer, shard)
}

pub(crate) fn open(timer: &'static Timer<Failing>, shard: &'static Shard<Failing>) {
    open_with(timer, shard, config());
}

pub(crate) fn open_with(
    timer: &'static Timer<Failing>,
    shard: &'static Shard<Failing>,
    config: Config,
) {
    let start = || timer.start(shard, || Ok(()));
    shard.open((), config, start, |_number| ()).unwrap();
}

/// Nobody takes the shard over.
pub(crate) fn config() -> Config {
    Config { adoption_timeout: Duration::ZERO, ..Config::default() }
}

/// Writes that are alone are committed by their callers.
pub(crate) fn learning() -> Config {
    Config { pacing: Pacing::Auto, ..config() }
}

/// One commit takes what is due of all lanes.
pub(crate) fn together() -> Config {
    Config { commit_scope: CommitScope::Shard, max_in_flight: 1, ..config() }
}

pub(crate) fn join(shard: &'static Shard<Failing>, number: u64) -> WorkerId {
    shard.join((), WorkerId(number), number);
    WorkerId(number)
}

/// A write to the put lane.
pub(crate) fn offer(shard: &'static Shard<Failing>, window: Duration) -> Caller {
    offer_to(LaneRef::Put, shard, window)
}

pub(crate) fn offer_to(
    lane: LaneRef<'_>,
    shard: &'static Shard<Failing>,
    window: Duration,
) -> Caller {
    let caller = Caller::default();
    let group = Group { cost: 1, bytes: 8, ..Group::default() };
    let offer = || {
        shard.offer((), lane, group, window, None, |contents, until| {
            contents.answers.add(Arc::clone(&caller), until);
        })
    };
    // Whatever fails behind it: the write was accepted.
    let _ = catch_unwind(AssertUnwindSafe(|| assert!(offer().unwrap().is_none())));
    caller
}

/// A write to the put lane whose caller waits, and has to commit it if it is alone.
pub(crate) fn offer_waiting(shard: &'static Shard<Failing>) -> Option<Alone> {
    let group = Group { cost: 1, bytes: 8, waits: true, ..Group::default() };
    shard.offer((), LaneRef::Put, group, AT_ONCE, None, |_, _| ()).unwrap()
}

/// What this committer is to commit.
pub(crate) fn commit(shard: &'static Shard<Failing>, id: WorkerId) -> Vec<Flight<Failing>> {
    let Taken::Commit(flights) = shard.take((), id, Ended::default()) else { panic!("it is due") };
    flights.iter().for_each(|flight| drop(flight.batch.take_writes()));
    flights
}

/// Replies to all who are left.
pub(crate) fn answer(flights: Vec<Flight<Failing>>) {
    for flight in flights {
        let answers = &mut flight.batch.lock().answers;
        while let Some((caller, true)) = answers.pass() {
            caller.fetch_add(1, Relaxed);
        }
        answers.clear();
    }
}

pub(crate) fn told<const N: usize>(callers: [&Caller; N]) -> [usize; N] {
    callers.map(|caller| caller.load(Relaxed))
}

/// Lets the thread look, once for each of so many events, and once more.
pub(crate) fn rounds(
    timer: &'static Timer<Failing>,
    shard: &'static Shard<Failing>,
    events: usize,
) {
    for _ in 0..=events {
        shard.notify(Event::Wake);
        assert!(timer.round());
    }
}
