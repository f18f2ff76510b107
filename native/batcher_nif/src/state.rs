//! What the lock of a shard guards: the engine, and the processes that work for it.
//!
//! Invariant: a committer is in `idle` or serves a lane that is in flight; the dead are in neither.

use crate::arena::{Arena, Kept};
use crate::committer::{Committer, Departure, Info, Serving};
use crate::contents::Contents;
use crate::failure::Failure;
use crate::outbox::{Outbox, Waiter};
use crate::thread::Event;
use batcher_core::{BarrierId, Phase, Shard as Engine};
use crossbeam_channel::Sender;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};
use std::collections::HashMap;
use std::time::Instant;

/// Batches of more groups are put together on the shard's thread, not on a scheduler.
const LONG_BATCH: u64 = 2_000;

pub(crate) struct State {
    pub(crate) engine: Engine<Contents>,
    pub(crate) owner: Option<Owner>,
    /// How many owners there were.
    pub(crate) owners: u64,
    pub(crate) committers: Vec<ResourceArc<Committer>>,
    pub(crate) idle: Vec<ResourceArc<Committer>>,
    /// Committers that the owner was asked for and that have not joined yet.
    pub(crate) asked_for: usize,
    /// Committers that have died, until the owner says why.
    pub(crate) dead: Vec<LocalPid>,
    pub(crate) waiters: HashMap<BarrierId, Waiter>,
    /// Replies that need a process to send them, until a committer is free.
    pub(crate) undelivered: Vec<(Arena, Kept)>,
    /// What those are told whose writes are abandoned.
    pub(crate) abandon_with: Failure,
    /// Until when the thread sleeps; `None` while it is awake and will look by itself.
    pub(crate) asleep_until: Option<Instant>,
    pub(crate) thread_lives: bool,
}

pub(crate) struct Owner {
    pub(crate) pid: LocalPid,
    pub(crate) number: u64,
    /// Tells of the owner's death as long as it is kept.
    pub(crate) _watch: ResourceArc<OwnerWatch>,
}

/// Watches an owner.
pub(crate) struct OwnerWatch {
    pub(crate) number: u64,
    pub(crate) events: Sender<Event>,
}

#[rustler::resource_impl(name = "batcher_owner_watch")]
impl Resource for OwnerWatch {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        // The receiver lives as long as the VM.
        let _ = self.events.send(Event::OwnerDown(self.number));
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            engine: Engine::default(),
            owner: None,
            owners: 0,
            committers: Vec::new(),
            idle: Vec::new(),
            asked_for: 0,
            dead: Vec::new(),
            waiters: HashMap::new(),
            undelivered: Vec::new(),
            abandon_with: Failure::ShuttingDown,
            asleep_until: None,
            thread_lives: false,
        }
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
        self.dead.retain(|&dead| dead != pid);
        let index = self.committers.iter().position(|committer| committer.pid == pid)?;
        Some(self.committers.swap_remove(index))
    }

    /// The owner says that a committing process was killed, perhaps before it could join.
    pub(crate) fn bury(&mut self, pid: LocalPid) -> Option<ResourceArc<Committer>> {
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
