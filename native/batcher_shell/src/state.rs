//! What the lock of a shard guards: the engine, and the processes that work for it.
//!
//! Invariant: a committer is in `idle` or serves a lane that is in flight; the dead are in neither. A
//! lane in flight has one that serves it, or whose death left it an orphan: it is free only when its
//! callers have been answered.

use crate::committer::{Departure, Info, Orphan, Serving};
use crate::contents::Contents;
use crate::failure::Failure;
use crate::host::Host;
#[cfg(feature = "lock-times")]
use crate::lock_times::LockTimes;
use crate::outbox::Outbox;
use batcher_core::{BarrierId, Engine, LaneId, LaneView, Phase, Reason, Refused};
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// The state of a shard. What each write changes comes first, beside the lock.
#[repr(C)]
pub struct State<H: Host> {
    pub(crate) engine: Engine<Contents<H>>,
    pub(crate) owner: Option<Owner<H>>,
    /// How many owners there were.
    pub(crate) owners: u64,
    pub(crate) committers: Vec<H::Committer>,
    pub(crate) idle: Vec<H::Committer>,
    /// Committers that the owner was asked for and that have not joined yet.
    pub(crate) asked_for: usize,
    /// Committers that have died, until the owner says why.
    pub(crate) dead: Vec<H::Pid>,
    pub(crate) orphans: VecDeque<Orphan<H>>,
    pub(crate) waiters: HashMap<BarrierId, H::Waiter>,
    /// Replies that need a process to send them, until a committer is free.
    pub(crate) undelivered: Vec<H::Mail>,
    /// What those are told whose writes are abandoned.
    pub(crate) abandon_with: Failure,
    /// No caller has waited too long before this time; `None`: none ever will.
    pub(crate) expiry: Option<Instant>,
    /// Until when the thread sleeps; `None` while it is awake and will look by itself.
    pub(crate) asleep_until: Option<Instant>,
    pub(crate) thread_lives: bool,
    #[cfg(feature = "lock-times")]
    pub(crate) lock_times: LockTimes,
}

pub(crate) struct Owner<H: Host> {
    pub(crate) pid: H::Pid,
    pub(crate) number: u64,
    /// Tells of the owner's death as long as it is kept.
    pub(crate) _watch: H::Watch,
}

impl<H: Host> Default for State<H> {
    fn default() -> Self {
        State {
            engine: Engine::default(),
            owner: None,
            owners: 0,
            committers: Vec::new(),
            idle: Vec::new(),
            asked_for: 0,
            dead: Vec::new(),
            orphans: VecDeque::new(),
            waiters: HashMap::new(),
            undelivered: Vec::new(),
            abandon_with: Failure::ShuttingDown,
            expiry: None,
            asleep_until: None,
            thread_lives: false,
            #[cfg(feature = "lock-times")]
            lock_times: LockTimes::default(),
        }
    }
}

impl<H: Host> State<H> {
    /// Whether no batcher runs.
    pub fn is_closed(&self) -> bool {
        self.engine.phase() == Phase::Closed
    }

    /// Why nothing can be offered now.
    pub fn refuses(&self) -> Option<Refused> {
        self.engine.phase().refuses()
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneView<'_, Contents<H>>> {
        self.engine.lanes()
    }

    /// Who commits the batch of this lane, or did until it died.
    pub fn committer_of(&self, lane: LaneId) -> Option<&H::Committer> {
        self.seated().find(|committer| H::seat(committer).serves(lane))
    }

    /// Who may have a batch: the committers, and the dead whose batch nobody has gone on with.
    pub(crate) fn seated(&self) -> impl Iterator<Item = &H::Committer> {
        let dead = self.orphans.iter().map(|orphan| &orphan.committer);
        self.committers.iter().chain(dead)
    }

    /// A caller waits until this time.
    pub(crate) fn expire_at(&mut self, until: Option<Instant>) {
        // Not written again where it stays the same: most writes change nothing here.
        if until.is_some_and(|until| self.expiry.is_none_or(|expiry| until < expiry)) {
            self.expiry = until;
        }
    }

    /// The callers of all slots, if it may be that one of them has waited too long.
    pub(crate) fn poll_expiry(&mut self, now: Instant) -> Vec<Contents<H>> {
        if self.expiry.is_none_or(|expiry| now < expiry) {
            return Vec::new();
        }
        self.expiry = None;
        let slots = self.lanes().flat_map(|lane| lane.in_flight().into_iter().chain(lane.queue()));
        slots.map(|slot| slot.contents.clone()).collect()
    }

    /// When the thread has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.engine.next_deadline().into_iter().chain(self.expiry).min()
    }

    /// A committing process has started and rests.
    pub(crate) fn join(&mut self, sender: H::Env<'_>, committer: H::Committer) {
        self.asked_for = self.asked_for.saturating_sub(1);
        self.committers.push(committer.clone());
        self.rest(sender, committer);
    }

    /// A committing process has nothing to do but to send what only a process can. It is given
    /// that under the lock, so that it gets it before it is told to exit.
    pub(crate) fn rest(&mut self, sender: H::Env<'_>, committer: H::Committer) {
        for mail in self.undelivered.drain(..) {
            H::deliver(&committer, Some(sender), mail);
        }
        self.idle.push(committer);
    }

    /// A committing process ends.
    pub(crate) fn leave(&mut self, pid: &H::Pid) -> Option<H::Committer> {
        let is = |committer: &H::Committer| H::seat(committer).pid == *pid;
        self.idle.retain(|committer| !is(committer));
        self.dead.retain(|dead| dead != pid);
        let index = self.committers.iter().position(is)?;
        Some(self.committers.swap_remove(index))
    }

    /// A committing process was killed, perhaps before it could join. Another one answers its batch.
    pub(crate) fn bury(&mut self, pid: &H::Pid, reply: H::Reply) {
        match self.leave(pid) {
            Some(committer) if H::seat(&committer).contents().is_some() => {
                self.orphans.push_back(Orphan { committer, reply });
            }
            Some(_rested) => {}
            None => self.asked_for = self.asked_for.saturating_sub(1),
        }
    }

    /// The shard is closed: those who rest need not wait for more.
    pub(crate) fn dismiss_idle(&mut self) -> Vec<H::Committer> {
        let idle = std::mem::take(&mut self.idle);
        idle.iter().for_each(|committer| drop(self.leave(&H::seat(committer).pid)));
        idle
    }

    /// Collects what follows from the change just made; `None` if nothing does, as after most writes.
    pub(crate) fn settle(&mut self, now: Instant) -> Option<Outbox<H>> {
        let wake = self.wakes_thread();
        if !wake && self.wanted() == 0 && self.waiters.is_empty() {
            return None;
        }
        let mut outbox = Outbox { wake, ..Outbox::default() };
        while self.wanted() > 0 {
            let Some(committer) = self.idle.pop() else {
                self.ask_for_committers(&mut outbox);
                break;
            };
            if !H::is_current(&committer) {
                continue;
            }
            if let Some(Orphan { committer: dead, reply }) = self.orphans.pop_front() {
                *H::seat(&committer).serving.lock() = H::seat(&dead).serving.lock().take();
                outbox.takeovers.push((committer, reply));
                continue;
            }
            match self.next_departure(now, committer) {
                Some(departure) => outbox.departures.push(departure),
                None => break,
            }
        }
        while let Some(barrier) = self.engine.poll_barrier() {
            outbox.passed.extend(self.waiters.remove(&barrier));
        }
        (!outbox.is_empty()).then_some(outbox)
    }

    /// Whether the thread would sleep too long.
    fn wakes_thread(&mut self) -> bool {
        let (Some(asleep_until), Some(deadline)) = (self.asleep_until, self.next_deadline()) else {
            return false;
        };
        let wakes = deadline < asleep_until;
        if wakes {
            self.asleep_until = None;
        }
        wakes
    }

    fn next_departure(&mut self, now: Instant, committer: H::Committer) -> Option<Departure<H>> {
        let Some(commit) = self.engine.poll_commit() else {
            self.idle.push(committer);
            return None;
        };
        let slot = commit.slot;
        let contents = slot.contents.clone();
        let paced_one = slot.groups == 1 && commit.reason == Reason::Commit;
        *H::seat(&committer).serving.lock() =
            Some(Serving { lane: commit.lane, contents: contents.clone(), paced_one });
        let info = Info {
            weight: slot.weight,
            groups: slot.groups,
            window_ms: slot.window.as_millis() as u64,
            waited: now.saturating_duration_since(slot.opened),
            reason: commit.reason,
        };
        Some(Departure { committer, lane: commit.key.clone(), info, contents })
    }

    /// How many committers there is work for.
    fn wanted(&self) -> usize {
        self.engine.wanted() + self.orphans.len()
    }

    fn ask_for_committers(&mut self, outbox: &mut Outbox<H>) {
        let missing = self.wanted().saturating_sub(self.asked_for);
        if let (Some(owner), true) = (&self.owner, missing > 0) {
            self.asked_for += missing;
            outbox.committers_wanted = Some((owner.pid.clone(), missing));
        }
    }
}
