//! A library that fails in the midst of its work: whoever waits is told, once, and the shard works for its next owner
//! (10.5).
#![cfg(not(loom))]

use batcher_core::{Config, Group, LaneRef};
use batcher_shell::{
    Callers, Contents, Event, Expired, Failure, Flight, Notice, Shard, Taken, Timer, Vm, WorkerId,
};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::ZERO;
const LATE: Duration = Duration::from_secs(3600);

/// Counts the replies that a process has had.
type Caller = Arc<AtomicUsize>;

#[derive(Clone, Debug, Default)]
struct Failing;

/// May fail when their memory is freed.
#[derive(Default)]
struct Writes;

impl Drop for Writes {
    fn drop(&mut self) {
        fail_if("drop");
    }
}

thread_local! {
    /// What fails next, once.
    static FAILS: Cell<Option<&'static str>> = const { Cell::new(None) };
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
    type Committer = ();
    type Responder = ();
    type Writes = Writes;
    type Answers = Callers<Caller>;
    type Waiter = Caller;
    type Terms = ();

    fn may_be_exiting(_sender: ()) -> bool {
        false
    }

    fn wake(_committer: &(), _sender: Option<()>) {
        fail_if("wake");
    }

    fn tell(waiter: Caller, _sender: Option<()>, _failure: Option<&Failure>) {
        waiter.fetch_add(1, Relaxed);
    }

    fn notify(_owner: &(), _sender: Option<()>, _notice: Notice<'_>) {
        fail_if("notify");
    }

    fn fail(answers: &mut Callers<Caller>, _failure: &Failure, _proxied: &mut Option<()>) {
        while let Some((caller, true)) = answers.pass() {
            caller.fetch_add(1, Relaxed);
        }
    }

    fn expire(answers: &mut Callers<Caller>, now: Instant, from: usize) -> Expired {
        answers.expire(now, from, |caller| _ = caller.fetch_add(1, Relaxed))
    }
}

/// A shard that is open, and its timer, whose thread is the test.
fn new() -> (&'static Timer<Failing>, &'static Shard<Failing>) {
    let timer: &'static Timer<Failing> = Box::leak(Box::default());
    let shard = Box::leak(Box::new(Shard::new(0, timer.events())));
    open(timer, shard);
    (timer, shard)
}

fn open(timer: &'static Timer<Failing>, shard: &'static Shard<Failing>) {
    let config = Config { adoption_timeout: Duration::ZERO, ..Config::default() };
    let start = || timer.start(shard, || Ok(()));
    shard.open((), config, None, start, |_number| ()).unwrap();
}

fn join(shard: &'static Shard<Failing>, number: u64) -> WorkerId {
    shard.join((), WorkerId(number), ());
    WorkerId(number)
}

fn offer(shard: &'static Shard<Failing>, window: Duration) -> Caller {
    let caller = Caller::default();
    let group = Group { weight: 1, bytes: 8, ..Group::default() };
    let offer = || {
        shard.offer((), LaneRef::Put, group, window, None, |contents, until| {
            contents.answers.add(Arc::clone(&caller), until);
        })
    };
    // Whatever fails behind it: the write was accepted.
    let _ = catch_unwind(AssertUnwindSafe(|| offer().unwrap()));
    caller
}

/// Replies to all who are left.
fn answer(flight: Flight<Failing>) {
    let answers = &mut flight.slot.contents.lock().answers;
    while let Some((caller, true)) = answers.pass() {
        caller.fetch_add(1, Relaxed);
    }
    answers.clear();
}

fn told<const N: usize>(callers: [&Caller; N]) -> [usize; N] {
    callers.map(|caller| caller.load(Relaxed))
}

#[test]
fn whoever_waits_is_told_although_the_thread_fails() {
    let (timer, shard) = new();
    let first = join(shard, 1);
    let in_flight = offer(shard, AT_ONCE);
    assert!(matches!(shard.take((), first), Taken::Commit(..)));
    let abandoned = offer(shard, LATE);
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    // The thread finds a dead committer's batch, one to wake for it, and that the owner has no successor.
    join(shard, 2);
    shard.notify(Event::OwnerDown(1));
    shard.notify(Event::WorkerDown(first));
    FAILS.set(Some("wake"));
    timer.run();
    assert_eq!(told([&in_flight, &abandoned, &flush]), [1, 1, 1]);
}

#[test]
fn a_lane_goes_on_after_a_wake_that_failed() {
    let (timer, shard) = new();
    join(shard, 1);
    FAILS.set(Some("wake"));
    let first = offer(shard, AT_ONCE);
    while timer.round() {
        // The thread ends with its owner.
    }
    assert_eq!(told([&first]), [1]);
    open(timer, shard);
    let id = join(shard, 2);
    let second = offer(shard, AT_ONCE);
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    let Taken::Commit(flight) = shard.take((), id) else { panic!("it is due") };
    flight.slot.contents.take_writes();
    answer(flight);
    assert!(matches!(shard.take((), id), Taken::Rest));
    assert_eq!(told([&first, &second, &flush]), [1, 1, 1]);
}

#[test]
fn a_lane_goes_on_after_a_committer_that_failed() {
    goes_on_after(|shard, _id, flight| {
        // The failure is the committer's end: before it has answered anybody.
        drop((shard, flight));
    });
}

#[test]
fn a_lane_goes_on_after_a_take_that_failed() {
    goes_on_after(|shard, id, flight| {
        answer(flight);
        // It has the next batch by then, and nobody else knows of that.
        FAILS.set(Some("drop"));
        assert!(catch_unwind(AssertUnwindSafe(|| shard.take((), id))).is_err());
    });
}

fn goes_on_after(end: impl FnOnce(&'static Shard<Failing>, WorkerId, Flight<Failing>)) {
    let (timer, shard) = new();
    let id = join(shard, 1);
    let first = offer(shard, AT_ONCE);
    let Taken::Commit(flight) = shard.take((), id) else { panic!("it is due") };
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    let behind = offer(shard, AT_ONCE);
    end(shard, id, flight);
    shard.notify(Event::Crash(1, "as the library tells it".into()));
    shard.notify(Event::WorkerDown(id));
    while timer.round() {
        // The thread ends when nothing is in flight any more.
    }
    assert_eq!(told([&first, &behind, &flush]), [1, 1, 1]);
    open(timer, shard);
    join(shard, 2);
    offer(shard, AT_ONCE);
    assert!(matches!(shard.take((), WorkerId(2)), Taken::Commit(..)));
}

#[test]
fn a_crash_that_is_heard_of_late_leaves_the_next_owner_alone() {
    let (timer, shard) = new();
    shard.notify(Event::Crash(1, "late".into()));
    shard.close(());
    open(timer, shard);
    let waiting = offer(shard, LATE);
    assert!(timer.round());
    assert!(timer.round());
    assert_eq!(told([&waiting]), [0]);
    assert!(shard.refuses().is_none());
}

#[test]
fn a_committer_that_its_owner_does_not_speak_of_is_buried() {
    let (timer, shard) = new();
    let first = join(shard, 1);
    let waiting = offer(shard, AT_ONCE);
    assert!(matches!(shard.take((), first), Taken::Commit(..)));
    shard.notify(Event::WorkerDown(first));
    let second = join(shard, 2);
    // The thread waits for the owner's word, and then no longer.
    let taken = loop {
        shard.notify(Event::Wake);
        timer.round();
        if let Taken::Answer(flight, None) = shard.take((), second) {
            break flight;
        }
    };
    assert_eq!(taken.slot.contents.lock().answers.left().len(), 1);
    assert_eq!(told([&waiting]), [0]);
}

#[test]
fn a_caller_in_one_of_many_lanes_is_told_that_it_is_late_after_the_end() {
    let (timer, shard) = new();
    let id = join(shard, 1);
    let group = Group { weight: 1, bytes: 8, ..Group::default() };
    for lane in 0..600_u32 {
        let name = lane.to_string();
        shard.offer((), LaneRef::Prefix(name.as_bytes()), group, LATE, None, |_, _| ()).unwrap();
    }
    let caller = Caller::default();
    let wait = Some(Duration::from_millis(1));
    let put = |contents: &mut Contents<Failing>, until| {
        contents.answers.add(Arc::clone(&caller), until);
    };
    shard.offer((), LaneRef::Put, group, AT_ONCE, wait, put).unwrap();
    assert!(matches!(shard.take((), id), Taken::Commit(..)));
    shard.close(());
    // Its commit hangs, so that the timer does not end.
    while told([&caller]) == [0] {
        shard.notify(Event::Wake);
        assert!(timer.round());
    }
    assert_eq!(told([&caller]), [1]);
}
