//! A shard of the library: the engine behind a lock, and who is to be told what.
//!
//! Invariant: the engine is touched only under the lock, and whatever it decides is collected
//! there in an [`Outbox`] and sent after the lock is free.

use crate::answers::Caller;
use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::committer::{Committer, Departure, Info, Serving};
use crate::contents::Contents;
use crate::thread::{self, Event};
use batcher_core::{BarrierId, Config, Phase, Shard as Engine};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, Resource, ResourceArc};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// Batches of more groups are put together on the shard's thread, not on a scheduler.
const LONG_BATCH: u64 = 2_000;

/// No window of its own: no `:hot_batch_window_ms` is as small as this.
const NO_WINDOW: i64 = i64::MIN;

/// Aligned so that two shards share no cache line.
#[repr(align(128))]
pub(crate) struct Shard {
    pub(crate) index: u64,
    /// `:hot_batch_window_ms` of this shard's options (1.3), or [`NO_WINDOW`].
    hot_window_ms: AtomicI64,
    state: Mutex<State>,
    pub(crate) events: (Sender<Event>, Receiver<Event>),
}

pub(crate) struct State {
    pub(crate) engine: Engine<Contents>,
    pub(crate) committers: Vec<ResourceArc<Committer>>,
    pub(crate) idle: Vec<ResourceArc<Committer>>,
    /// Committers that the owner was asked for and that have not reported yet.
    asked_for: usize,
    owner: Option<Owner>,
    owners: u64,
    waiters: HashMap<BarrierId, Waiter>,
    /// Until when the thread sleeps; `None` while it is awake and will look by itself.
    pub(crate) asleep_until: Option<Instant>,
    pub(crate) thread_lives: bool,
    /// What those are told whose writes are abandoned.
    pub(crate) abandon_with: Atom,
    /// Replies that need a process to send them, kept until a committer is free.
    pub(crate) undelivered: Vec<(Arena, Kept)>,
}

struct Owner {
    pid: LocalPid,
    number: u64,
    /// Tells of the owner's death as long as it is kept.
    _watch: ResourceArc<OwnerWatch>,
}

/// Watches an owner.
pub(crate) struct OwnerWatch {
    number: u64,
    events: Sender<Event>,
}

#[rustler::resource_impl(name = "batcher_owner_watch")]
impl Resource for OwnerWatch {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        // The receiver lives as long as the VM.
        let _ = self.events.send(Event::OwnerDown(self.number));
    }
}

/// Who asked for a barrier: a process of this node and its tag.
pub(crate) struct Waiter {
    pid: LocalPid,
    arena: Arena,
    tag: Kept,
}

impl Waiter {
    /// `None` for a caller that only a courier reaches.
    pub(crate) fn new(caller: Caller<'_>) -> Option<Self> {
        let Caller::Direct(pid, tag) = caller else { return None };
        let mut arena = Arena::default();
        let tag = arena.keep(tag);
        Some(Waiter { pid, arena, tag })
    }
}

/// What is to be sent once the lock is free.
#[derive(Default)]
pub(crate) struct Outbox {
    departures: Vec<Departure>,
    passed: Vec<Waiter>,
    committers_wanted: Option<(LocalPid, usize)>,
    wake: bool,
}

impl Shard {
    pub(crate) fn new(index: u64) -> Self {
        let state = State {
            engine: Engine::default(),
            committers: Vec::new(),
            idle: Vec::new(),
            asked_for: 0,
            owner: None,
            owners: 0,
            waiters: HashMap::new(),
            asleep_until: None,
            thread_lives: false,
            abandon_with: atoms::shutting_down(),
            undelivered: Vec::new(),
        };
        Shard {
            index,
            hot_window_ms: AtomicI64::new(NO_WINDOW),
            state: Mutex::new(state),
            events: crossbeam_channel::unbounded(),
        }
    }

    /// The window of the put and delete lanes, if this shard has one of its own.
    pub(crate) fn hot_window_ms(&self) -> Option<i64> {
        let window = self.hot_window_ms.load(Ordering::Relaxed);
        (window != NO_WINDOW).then_some(window)
    }

    /// Changes the state, then sends what follows from it. `sender` is the environment of the
    /// calling process, `None` on the shard's own thread.
    pub(crate) fn with<R>(
        &self,
        sender: Option<Env<'_>>,
        change: impl FnOnce(&mut State) -> R,
    ) -> R {
        let (result, outbox) = {
            let mut state = self.state.lock();
            let result = change(&mut state);
            (result, state.settle(&self.events.0))
        };
        outbox.send(sender, &self.events.0, None);
        result
    }

    /// Works on the state when nothing follows from it.
    pub(crate) fn locked<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock())
    }

    /// A process takes the shard over as its owner; answers who commits for it already.
    pub(crate) fn open(
        &'static self,
        env: Env<'_>,
        config: Config,
        hot_window_ms: Option<i64>,
    ) -> Result<Vec<LocalPid>, std::io::Error> {
        let pid = env.pid();
        let mut state = self.state.lock();
        if !state.thread_lives {
            thread::spawn(self)?;
            state.thread_lives = true;
            state.asleep_until = None;
        }
        state.owners += 1;
        let number = state.owners;
        let watch = ResourceArc::new(OwnerWatch { number, events: self.events.0.clone() });
        watch.monitor(Some(env), &pid);
        state.owner = Some(Owner { pid, number, _watch: watch });
        state.abandon_with = atoms::batcher_down();
        self.hot_window_ms.store(hot_window_ms.unwrap_or(NO_WINDOW), Ordering::Relaxed);
        state.asked_for = 0;
        state.engine.open(Instant::now(), config);
        let committers = state.committers.iter().map(|committer| committer.pid).collect();
        drop(state);
        self.with(Some(env), |_| ());
        Ok(committers)
    }

    /// The owner ends: what is queued is abandoned, by the shard's thread.
    pub(crate) fn close(&self, env: Env<'_>) {
        self.with(Some(env), |state| {
            state.engine.close();
            state.owner = None;
            state.abandon_with = atoms::shutting_down();
            self.hot_window_ms.store(NO_WINDOW, Ordering::Relaxed);
        });
        // The receiver lives as long as the VM; so everywhere below.
        let _ = self.events.0.send(Event::Wake);
    }

    /// An owner has died. Only the present one matters.
    pub(crate) fn owner_down(&self, number: u64) {
        self.with(None, |state| {
            if state.owner.as_ref().is_some_and(|owner| owner.number == number) {
                state.owner = None;
                state.engine.handle_owner_down(Instant::now());
            }
        });
    }
}

impl State {
    pub(crate) fn is_closed(&self) -> bool {
        self.engine.phase() == Phase::Closed
    }

    /// A committing process has started and rests.
    pub(crate) fn join(&mut self, committer: ResourceArc<Committer>) {
        self.asked_for = self.asked_for.saturating_sub(1);
        self.committers.push(committer.clone());
        self.idle.push(committer);
    }

    /// A committing process ends.
    pub(crate) fn leave(&mut self, pid: LocalPid) -> Option<ResourceArc<Committer>> {
        self.idle.retain(|committer| committer.pid != pid);
        let index = self.committers.iter().position(|committer| committer.pid == pid)?;
        Some(self.committers.swap_remove(index))
    }

    /// A committing process was killed, perhaps before it could join.
    pub(crate) fn die(&mut self, pid: LocalPid) -> Option<ResourceArc<Committer>> {
        let known = self.leave(pid);
        if known.is_none() {
            self.asked_for = self.asked_for.saturating_sub(1);
        }
        known
    }

    /// The shard is closed: those who rest need not wait for more.
    pub(crate) fn dismiss_idle(&mut self) -> Vec<ResourceArc<Committer>> {
        let idle = std::mem::take(&mut self.idle);
        idle.iter().for_each(|committer| drop(self.leave(committer.pid)));
        idle
    }

    pub(crate) fn wait_for(&mut self, barrier: BarrierId, waiter: Waiter) {
        self.waiters.insert(barrier, waiter);
    }

    /// The one who asked for this barrier gives up. False if it is being told now.
    pub(crate) fn forget(&mut self, barrier: BarrierId) -> bool {
        self.waiters.remove(&barrier).is_some()
    }

    /// Collects what follows from the change just made.
    pub(crate) fn settle(&mut self, events: &Sender<Event>) -> Outbox {
        let mut outbox = Outbox::default();
        while self.engine.wanted() > 0 {
            let Some(committer) = self.idle.pop() else {
                self.ask_for_committers(&mut outbox);
                break;
            };
            match self.next_departure(committer) {
                // In order with everything else that the thread does, and while it lives.
                Some(long) if long.info.groups > LONG_BATCH => {
                    let _ = events.send(Event::Depart(long));
                }
                Some(departure) => outbox.departures.push(departure),
                None => break,
            }
        }
        while let Some(barrier) = self.engine.poll_barrier() {
            outbox.passed.extend(self.waiters.remove(&barrier));
        }
        if let (Some(asleep_until), Some(deadline)) =
            (self.asleep_until, self.engine.next_deadline())
            && deadline < asleep_until
        {
            self.asleep_until = None;
            outbox.wake = true;
        }
        outbox
    }

    fn next_departure(&mut self, committer: ResourceArc<Committer>) -> Option<Departure> {
        let Some(commit) = self.engine.poll_commit() else {
            self.idle.push(committer);
            return None;
        };
        let slot = commit.slot;
        let (parts, answers) = slot.contents.depart();
        *committer.serving.lock() = Some(Serving { lane: commit.lane, answers });
        let info = Info {
            replies: slot.contents.replies,
            weight: slot.weight,
            groups: slot.groups,
            window_ms: slot.window.as_millis() as u64,
            wait_us: slot.opened.elapsed().as_micros() as u64,
            bytes: slot.contents.bytes,
            reason: commit.reason,
        };
        let shape = slot.contents.shape;
        Some(Departure { committer, lane: commit.key.clone(), parts, shape, info })
    }

    fn ask_for_committers(&mut self, outbox: &mut Outbox) {
        let missing = self.engine.wanted().saturating_sub(self.asked_for);
        if let (Some(owner), true) = (&self.owner, missing > 0) {
            self.asked_for += missing;
            outbox.committers_wanted = Some((owner.pid, missing));
        }
    }
}

impl Outbox {
    /// `failed`: what those hear who waited for a barrier that passed for a bad reason.
    pub(crate) fn send(
        self,
        sender: Option<Env<'_>>,
        events: &Sender<Event>,
        failed: Option<Atom>,
    ) {
        if self.wake {
            let _ = events.send(Event::Wake);
        }
        for departure in self.departures {
            departure.send(sender);
        }
        for mut waiter in self.passed {
            let Waiter { pid, tag, .. } = waiter;
            Arena::default().enter(|inside| {
                let env = inside.env();
                let result = match failed {
                    None => atoms::ok().encode(env),
                    Some(error) => (atoms::error(), error).encode(env),
                };
                waiter.arena.reply(sender, pid, tag, result)
            });
        }
        if let Some((owner, count)) = self.committers_wanted {
            Arena::default().send(sender, owner, |inside| {
                (atoms::spawn_committers(), count).encode(inside.env())
            });
        }
    }
}
