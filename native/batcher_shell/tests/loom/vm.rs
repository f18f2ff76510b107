//! The VM of the models: callers that count their replies, processes that may die, shards.
//!
//! Invariant: what only records is none of loom's, so that it adds no orders to try.

use crate::crew::Committer;
use batcher_core::{CommitScope, Config, Group, LaneRef, Pacing, Refused};
use batcher_shell::{
    Alone, Callers as AllCallers, Contents, Event, Expired, Failure, Notice, Vm, WorkerId,
};
use loom::sync::Mutex;
use loom::thread::JoinHandle;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(crate) const AT_ONCE: Duration = Duration::ZERO;
/// Ends within the model.
pub(crate) const SOON: Duration = Duration::from_millis(1);
/// Outlasts the model.
pub(crate) const LATE: Duration = Duration::from_secs(3600);

#[derive(Clone, Default)]
pub(crate) struct Model;
pub(crate) type Shard = batcher_shell::Shard<Model>;
type Timer = batcher_shell::Timer<Model>;

/// Who waits for a reply.
#[derive(Default)]
pub(crate) struct Caller {
    replies: AtomicUsize,
    /// How often it was told that it has waited too long.
    late: AtomicUsize,
    /// Answered by a process, as an alias is.
    by_process: bool,
}

impl Caller {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn by_process() -> Arc<Self> {
        Arc::new(Caller { by_process: true, ..Caller::default() })
    }

    pub(crate) fn replies(&self) -> usize {
        self.replies.load(Relaxed)
    }

    pub(crate) fn late(&self) -> usize {
        self.late.load(Relaxed)
    }

    pub(crate) fn reply(&self) {
        self.replies.fetch_add(1, Relaxed);
    }

    /// Writes to the put lane.
    pub(crate) fn offer(
        self: &Arc<Self>,
        shard: &'static Shard,
        window: Duration,
    ) -> Result<(), Refused> {
        self.offer_to(LaneRef::Put, shard, window)
    }

    /// The same, and waits no longer than this.
    pub(crate) fn wait(self: &Arc<Self>, shard: &'static Shard, window: Duration, wait: Duration) {
        assert!(self.make(LaneRef::Put, shard, window, Some(wait)).unwrap().is_none());
    }

    /// Writes to the put lane and would wait itself: if the write is alone, it is this caller's to commit.
    pub(crate) fn offer_waiting(
        self: &Arc<Self>,
        shard: &'static Shard,
        window: Duration,
    ) -> Option<Alone> {
        self.make(LaneRef::Put, shard, window, Some(LATE)).unwrap()
    }

    pub(crate) fn offer_to(
        self: &Arc<Self>,
        lane: LaneRef<'_>,
        shard: &'static Shard,
        window: Duration,
    ) -> Result<(), Refused> {
        self.make(lane, shard, window, None).map(|alone| assert!(alone.is_none()))
    }

    fn make(
        self: &Arc<Self>,
        lane: LaneRef<'_>,
        shard: &'static Shard,
        window: Duration,
        wait: Option<Duration>,
    ) -> Result<Option<Alone>, Refused> {
        let waits = wait.is_some();
        let group = Group { cost: 1, bytes: 8, waits, ..Group::default() };
        shard.offer((), lane, group, window, wait, |contents, until| {
            contents.writes.push(Arc::clone(self));
            contents.answers.add(Arc::clone(self), until);
        })
    }
}

/// A process that commits its own write and may die meanwhile.
#[derive(Default)]
pub(crate) struct Process {
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    is_dead: bool,
    watched_for: Vec<Alone>,
}

impl Process {
    /// Writes to the put lane, where nobody else is.
    pub(crate) fn offer(self: &Arc<Self>, shard: &'static Shard) {
        CALLING.set(Some(Arc::clone(self)));
        assert!(Caller::new().offer_waiting(shard, AT_ONCE).is_some());
    }

    /// It dies, and whoever watches it is told.
    pub(crate) fn die(&self, shard: &'static Shard) {
        let mut life = self.life.lock().unwrap();
        life.is_dead = true;
        let watched_for = std::mem::take(&mut life.watched_for);
        drop(life);
        watched_for.into_iter().for_each(|alone| shard.notify(Event::AloneDown(alone)));
    }
}

pub(crate) type Callers = AllCallers<Arc<Caller>>;

/// Replies to all who are left; returns those that only a process reaches.
pub(crate) fn answer(callers: &mut Callers) -> Vec<Arc<Caller>> {
    let mut proxied = Vec::new();
    while let Some((caller, waits)) = callers.pass() {
        match caller.by_process {
            _ if !waits => {}
            true => proxied.push(Arc::clone(caller)),
            false => caller.reply(),
        }
    }
    proxied
}

/// A write to the put lane that fails before it is in its slot.
pub(crate) fn fail_to_fill(shard: &'static Shard) {
    let group = Group { cost: 1, bytes: 8, ..Group::default() };
    let fail = |_: &mut Contents<Model>, _| resume_unwind(Box::new("provoked"));
    let offer = || shard.offer((), LaneRef::Put, group, LATE, None, fail).map(|_| ());
    assert!(catch_unwind(AssertUnwindSafe(offer)).is_err());
}

impl Vm for Model {
    type Env<'a> = ();
    type Owner = ();
    type Committer = Arc<Committer>;
    type Waker = Arc<Committer>;
    type Responder = ();
    type Writes = Vec<Arc<Caller>>;
    type Answers = Callers;
    type Waiter = Arc<Caller>;
    type Process = Option<Arc<Process>>;
    type Watch = ();
    type Terms = Vec<Arc<Caller>>;

    fn process(_sender: ()) -> Option<Arc<Process>> {
        CALLING.take()
    }

    fn watch(
        _sender: Option<()>,
        process: Option<Arc<Process>>,
        _index: u64,
        alone: Alone,
    ) -> Option<()> {
        // One that can't die needs no watch.
        let Some(process) = process else { return Some(()) };
        let mut life = process.life.lock().unwrap();
        life.watched_for.push(alone);
        (!life.is_dead).then_some(())
    }

    fn may_be_exiting(_sender: ()) -> bool {
        false
    }

    fn waker(committer: &Arc<Committer>) -> Arc<Committer> {
        Arc::clone(committer)
    }

    fn wake(committer: Arc<Committer>, _sender: Option<()>) {
        committer.wake();
    }

    fn tell(waiter: Arc<Caller>, _sender: Option<()>, _failure: Option<&Failure>) {
        waiter.reply();
    }

    fn notify(_owner: &(), _sender: Option<()>, _notice: Notice<'_>) {}

    fn fail(answers: &mut Callers, _failure: &Failure, proxied: &mut Option<Vec<Arc<Caller>>>) {
        let more = answer(answers);
        if !more.is_empty() {
            proxied.get_or_insert_default().extend(more);
        }
    }

    fn expire(answers: &mut Callers, now: Instant, from: usize) -> Expired {
        answers.expire(now, from, |caller| _ = caller.late.fetch_add(1, Relaxed))
    }
}

std::thread_local! {
    /// The process whose write is about to be alone; `None`: one that does not die.
    static CALLING: Cell<Option<Arc<Process>>> = const { Cell::new(None) };
    /// Of the shard of this model.
    static TIMER: Cell<Option<&'static Timer>> = const { Cell::new(None) };
}

/// A shard with a timer of its own.
pub(crate) fn new_shard() -> &'static Shard {
    let timer: &'static Timer = Box::leak(Box::default());
    TIMER.set(Some(timer));
    Box::leak(Box::new(Shard::new(0, timer.events())))
}

/// Opens the shard for its next owner. The thread of its timer, if one was needed.
pub(crate) fn open(shard: &'static Shard, adoption_timeout: Duration) -> Option<JoinHandle<()>> {
    open_with(shard, Config { adoption_timeout, ..Config::default() })
}

pub(crate) fn open_with(shard: &'static Shard, config: Config) -> Option<JoinHandle<()>> {
    let mut thread = None;
    let timer = TIMER.get().expect("it is in the thread of the model");
    let spawn = || {
        thread = Some(loom::thread::spawn(|| timer.run()));
        Ok(())
    };
    shard.open((), config, || timer.start(shard, spawn), |_number| ()).unwrap();
    thread
}

/// Writes that are alone are committed by their callers.
pub(crate) fn learning() -> Config {
    Config { pacing: Pacing::Auto, adoption_timeout: LATE, ..Config::default() }
}

/// One commit takes what is due of all lanes.
pub(crate) fn together() -> Config {
    Config {
        commit_scope: CommitScope::Shard,
        max_in_flight: 1,
        adoption_timeout: LATE,
        ..Config::default()
    }
}

/// The owner says that this committer has died.
pub(crate) fn explain(shard: &'static Shard, dead: WorkerId) {
    shard.explain_death((), |committer| committer.is(dead), Vec::new());
}

/// The first owner has died.
pub(crate) fn owner_dies(shard: &'static Shard) {
    shard.notify(Event::OwnerDown(1));
}

/// Opens the shard without a thread, for a model that has one of its own.
pub(crate) fn open_without_thread(shard: &'static Shard) {
    open_without_thread_with(shard, Config::default());
}

pub(crate) fn open_without_thread_with(shard: &'static Shard, config: Config) {
    shard.open((), config, || Ok(()), |_number| ()).unwrap();
}
