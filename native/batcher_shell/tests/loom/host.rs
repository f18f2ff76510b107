//! Processes for the models: committers with one mailbox, callers that count their replies.
//!
//! Invariant: what only records (replies, batches in flight) is none of loom's, so that it adds no
//! orders to try.

use batcher_core::{Config, Group, LaneRef, Refused};
use batcher_shell::{Contents, Departure, Event, Failure, Held, Host, Seat};
use loom::sync::{Condvar, Mutex};
use loom::thread::JoinHandle;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

pub const AT_ONCE: Duration = Duration::ZERO;
/// Ends within the model.
pub const SOON: Duration = Duration::from_millis(1);
/// Outlasts the model.
pub const LATE: Duration = Duration::from_secs(3600);

pub enum Model {}
pub type Shard = batcher_shell::Shard<Model>;

/// Who waits for a reply.
#[derive(Default)]
pub struct Caller {
    replies: AtomicUsize,
    /// How often it was told that it has waited too long.
    late: AtomicUsize,
    /// Answered by a process, as an alias is.
    by_courier: bool,
}

impl Caller {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn by_courier() -> Arc<Self> {
        Arc::new(Caller { by_courier: true, ..Caller::default() })
    }

    pub fn replies(&self) -> usize {
        self.replies.load(Relaxed)
    }

    pub fn late(&self) -> usize {
        self.late.load(Relaxed)
    }

    pub fn reply(&self) {
        self.replies.fetch_add(1, Relaxed);
    }

    /// Writes to the put lane.
    pub fn offer(self: &Arc<Self>, shard: &Shard, window: Duration) -> Result<(), Refused> {
        self.offer_to(LaneRef::Put, shard, window)
    }

    /// The same, and waits no longer than this.
    pub fn wait(self: &Arc<Self>, shard: &Shard, window: Duration, wait: Duration) {
        self.make(LaneRef::Put, shard, window, Some(wait)).unwrap();
    }

    pub fn offer_to(
        self: &Arc<Self>,
        lane: LaneRef<'_>,
        shard: &Shard,
        window: Duration,
    ) -> Result<(), Refused> {
        self.make(lane, shard, window, None)
    }

    fn make(
        self: &Arc<Self>,
        lane: LaneRef<'_>,
        shard: &Shard,
        window: Duration,
        wait: Option<Duration>,
    ) -> Result<(), Refused> {
        let group = Group { weight: 1, bytes: 8, ..Group::default() };
        shard.offer((), lane, group, window, wait, |held, until| {
            held.writes.push(Arc::clone(self));
            held.answers.add(Arc::clone(self), until);
        })
    }
}

type Callers = batcher_shell::Callers<Arc<Caller>>;

/// Replies to all who are left; returns those that only a process reaches.
fn answer(callers: &mut Callers) -> Vec<Arc<Caller>> {
    let mut couriered = Vec::new();
    while let Some((caller, waits)) = callers.pass() {
        match caller.by_courier {
            _ if !waits => {}
            true => couriered.push(Arc::clone(caller)),
            false => caller.reply(),
        }
    }
    couriered
}

/// A write to the put lane that fails before it is in its slot.
pub fn fail_to_fill(shard: &Shard) {
    let group = Group { weight: 1, bytes: 8, ..Group::default() };
    let fail = |_: &mut Held<Model>, _| resume_unwind(Box::new("provoked"));
    let offer = || shard.offer((), LaneRef::Put, group, LATE, None, fail);
    assert!(catch_unwind(AssertUnwindSafe(offer)).is_err());
}

/// What a committer is sent.
enum Message {
    Batch(Vec<Arc<Caller>>),
    Answer,
    Deliver(Vec<Arc<Caller>>),
    Exit,
}

pub struct Committer {
    seat: Seat<Model>,
    crew: Arc<Crew>,
    gone: AtomicBool,
}

impl Committer {
    /// Of the batch that it has.
    fn contents(&self) -> Contents<Model> {
        self.seat.contents().expect("a batch comes with its callers")
    }

    /// Sends replies that came as messages, unless it exited before it could.
    fn send_for(&self, callers: &[Arc<Caller>]) {
        if !self.gone.load(Relaxed) {
            callers.iter().for_each(|caller| caller.reply());
        }
    }
}

/// Committers with one mailbox. All commit for one lane.
pub struct Crew {
    mailbox: Mutex<VecDeque<(Arc<Committer>, Message)>>,
    arrived: Condvar,
    in_flight: AtomicUsize,
}

impl Crew {
    /// Committers of these pids join the shard.
    pub fn join(shard: &Shard, pids: &[u32]) -> Arc<Self> {
        let (mailbox, arrived) = Default::default();
        let crew = Arc::new(Crew { mailbox, arrived, in_flight: AtomicUsize::new(0) });
        for &pid in pids {
            crew.join_one(shard, pid);
        }
        crew
    }

    pub fn join_one(self: &Arc<Self>, shard: &Shard, pid: u32) -> Arc<Committer> {
        let (seat, crew) = (Seat::new(pid), Arc::clone(self));
        let committer = Arc::new(Committer { seat, crew, gone: AtomicBool::new(false) });
        shard.join((), Arc::clone(&committer));
        committer
    }

    fn send(&self, to: &Arc<Committer>, message: Message) {
        self.mailbox.lock().unwrap().push_back((Arc::clone(to), message));
        self.arrived.notify_one();
    }

    /// Whether nothing was sent.
    pub fn rests(&self) -> bool {
        self.mailbox.lock().unwrap().is_empty()
    }

    /// Waits for a message, does what it says, and returns whose writes were committed.
    pub fn work(&self, shard: &Shard) -> Vec<Arc<Caller>> {
        let mut mailbox = self.mailbox.lock().unwrap();
        while mailbox.is_empty() {
            mailbox = self.arrived.wait(mailbox).unwrap();
        }
        let (committer, message) = mailbox.pop_front().unwrap();
        drop(mailbox);
        match message {
            Message::Batch(batch) => {
                assert_eq!(committer.contents().lock().answers.all().len(), batch.len());
                self.answer(shard, &committer);
                batch
            }
            Message::Answer => {
                self.answer(shard, &committer);
                Vec::new()
            }
            Message::Deliver(callers) => {
                committer.send_for(&callers);
                Vec::new()
            }
            Message::Exit => {
                committer.gone.store(true, Relaxed);
                Vec::new()
            }
        }
    }

    fn answer(&self, shard: &Shard, committer: &Arc<Committer>) {
        let couriered = answer(&mut committer.contents().lock().answers);
        couriered.iter().for_each(|caller| caller.reply());
        self.in_flight.fetch_sub(1, Relaxed);
        shard.next((), committer);
    }

    /// The committer of the batch in flight dies.
    pub fn kill(&self) -> u32 {
        let (committer, message) = self.mailbox.lock().unwrap().pop_front().unwrap();
        assert!(matches!(message, Message::Batch(_)));
        committer.gone.store(true, Relaxed);
        committer.seat.pid
    }

    /// A committer that has rested for long leaves, if it may.
    pub fn retire(&self, shard: &Shard, committer: &Arc<Committer>) {
        if shard.retire(committer, 0) {
            self.finish(shard);
            committer.gone.store(true, Relaxed);
        }
    }

    /// Works until nothing is left to do.
    pub fn finish(&self, shard: &Shard) {
        while !self.rests() {
            self.work(shard);
        }
    }
}

impl Host for Model {
    type Env<'a> = ();
    type Pid = u32;
    type Watch = ();
    type Committer = Arc<Committer>;
    type Herald = ();
    type Writes = Vec<Arc<Caller>>;
    type Caller = Arc<Caller>;
    type Answers = Callers;
    type Waiter = ();
    type Mail = Vec<Arc<Caller>>;
    type Reply = ();

    fn may_be_exiting(_sender: Self::Env<'_>) -> bool {
        false
    }

    fn seat(committer: &Arc<Committer>) -> &Seat<Self> {
        &committer.seat
    }

    fn depart(
        departure: &Departure<Self>,
        writes: Vec<Arc<Caller>>,
        _sender: Option<()>,
    ) -> Vec<Arc<Caller>> {
        let crew = &departure.committer.crew;
        assert_eq!(crew.in_flight.fetch_add(1, Relaxed), 0, "one in flight per lane");
        crew.send(&departure.committer, Message::Batch(writes));
        Vec::new()
    }

    fn clear(answers: &mut Callers) {
        answers.clear();
    }

    fn tell(_waiter: (), _sender: Option<()>, _failure: Option<&Failure>) {}

    fn ask_for_committers(_owner: u32, _sender: Option<()>, _count: usize) {}

    fn ask_for_heralds(_owner: u32, _sender: ()) {}

    fn fail(
        batches: impl Iterator<Item = Contents<Self>>,
        _failure: &Failure,
    ) -> Option<Vec<Arc<Caller>>> {
        let couriered: Vec<_> =
            batches.flat_map(|contents| answer(&mut contents.lock().answers)).collect();
        (!couriered.is_empty()).then_some(couriered)
    }

    fn tell_late(_answers: &mut Callers, caller: Arc<Caller>) {
        caller.late.fetch_add(1, Relaxed);
    }

    fn take_over(committer: &Arc<Committer>, _sender: Option<()>, _reply: ()) {
        committer.crew.send(committer, Message::Answer);
    }

    fn reply(_failure: &Failure) {}

    fn deliver(committer: &Arc<Committer>, _sender: Option<()>, mail: Vec<Arc<Caller>>) {
        committer.crew.send(committer, Message::Deliver(mail));
    }

    fn dismiss(committer: &Arc<Committer>) {
        committer.crew.send(committer, Message::Exit);
    }

    fn tell_of_crash(_owner: u32, _text: &str) {}
}

/// Opens the shard for its next owner. The thread, if one was needed.
pub fn open(shard: &Arc<Shard>, adoption_timeout: Duration) -> Option<JoinHandle<()>> {
    let mut thread = None;
    let spawn = || {
        let shard = Arc::clone(shard);
        thread = Some(loom::thread::spawn(move || shard.serve()));
        Ok(())
    };
    let config = Config { adoption_timeout, ..Config::default() };
    shard.open((), 0, config, None, spawn, |_number, _events| ()).unwrap();
    thread
}

/// The first owner has died.
pub fn owner_dies(shard: &Shard) {
    shard.notify(Event::OwnerDown(1));
}

/// Opens the shard without a thread, for a model that has one of its own.
pub fn open_without_thread(shard: &Shard) {
    let config = Config::default();
    shard.open((), 0, config, None, || Ok(()), |_number, _events| ()).unwrap();
}
