//! What the lock of a shard guards, the engine and the processes that work for it, and what follows from a change of
//! that: collected under the lock, run when it is free.
//!
//! Invariant: whatever is due has a worker that is awake for it, or the owner has been asked for one, or the bound on
//! workers is reached; so it is taken by the next one that asks. A batch goes from the engine to that worker under one
//! lock, so that it has never left, or is known to be that worker's.

use crate::alone::AloneWrites;
use crate::batch::Batch;
use crate::counts::Counts;
use crate::distributions::{Distributions, Times};
use crate::effects::Effects;
use crate::flight::{Ended, Flight, Taken};
use crate::total::Share;
use crate::vm::{Failure, Vm};
use crate::workers::{LaneIds, Worker, WorkerId, Workers};
use batcher_core::{BarrierId, Bound, Engine, LaneId, Pacing, Phase, Reason, Refused, Tally};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Looks at all callers for those that have waited too long are at least so far apart.
const LOOKS_APART: Duration = Duration::from_millis(10);

/// The state of a shard. What each write changes comes first, beside the lock.
#[repr(C)]
pub(crate) struct State<V: Vm> {
    pub(crate) engine: Engine<Batch<V>>,
    pub(crate) counts: Counts,
    pub(crate) share: Share,
    pub(crate) owner: Option<V::Owner>,
    /// The number of its last owner: the next one has the next number.
    pub(crate) owner_number: u64,
    pub(crate) workers: Workers<V>,
    pub(crate) alone: AloneWrites<V>,
    pub(crate) waiters: HashMap<BarrierId, V::Waiter>,
    pub(crate) distributions: Distributions,
    /// What the callers of abandoned writes are told.
    pub(crate) abandon_with: Failure,
    /// No caller has waited too long before this time; `None`: none ever will.
    pub(crate) expiry: Option<Instant>,
    /// There is no look before that.
    pub(crate) next_look: Option<Instant>,
    /// When the timer looks here next; `None` while it does, and will ask by itself.
    pub(crate) looks_at: Option<Instant>,
    /// The number of the last owner whose queue has been abandoned and answered.
    pub(crate) swept: u64,
    /// The shard is closed, and everything that was queued has been answered: committers may end.
    pub(crate) dismisses: bool,
}

impl<V: Vm> Default for State<V> {
    fn default() -> Self {
        State {
            engine: Engine::default(),
            counts: Counts::default(),
            share: Share::default(),
            owner: None,
            owner_number: 0,
            workers: Workers::default(),
            alone: AloneWrites::default(),
            waiters: HashMap::new(),
            distributions: Distributions::default(),
            abandon_with: Failure::ShuttingDown,
            expiry: None,
            next_look: None,
            looks_at: None,
            swept: 0,
            dismisses: false,
        }
    }
}

impl<V: Vm> State<V> {
    /// Whether no batcher runs.
    pub(crate) fn is_closed(&self) -> bool {
        self.engine.phase() == Phase::Closed
    }

    /// So many bytes are about to be offered: whether all shards together may hold them too.
    pub(crate) fn admit_to_total(&mut self, bytes: u64) -> Result<(), Refused> {
        // Where no batcher runs, or one is being stopped, there is another reason to refuse them.
        if self.engine.phase().refuses().is_some() || self.share.admit(bytes) {
            return Ok(());
        }
        Err(Refused::Overloaded(Bound::TotalBytes))
    }

    /// What the shard holds may have changed, or what was to come was refused.
    pub(crate) fn settle_total(&mut self) {
        self.share.settle(self.engine.held().bytes);
    }

    /// What is in flight of this lane.
    pub(crate) fn in_flight(&self, lane: LaneId) -> Option<Batch<V>> {
        Some(self.engine.lane(lane)?.in_flight()?.contents.clone())
    }

    /// A worker asks, and has answered the callers of what it had, if it had anything, which has `ended` so. Returns what
    /// held that; `None` if it is dead, or not known.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        id: WorkerId,
        ended: Ended,
    ) -> Option<Vec<Batch<V>>> {
        Some(match self.workers.ask(id)? {
            Worker::Committing(lanes, reason) => self.commit_done(now, &lanes, reason, ended),
            _ => Vec::new(),
        })
    }

    /// What a worker that is awake does next.
    pub(crate) fn take(&mut self, now: Instant, id: WorkerId) -> Taken<V> {
        if let Some(proxied) = self.workers.send(id) {
            return Taken::Send(proxied);
        }
        while let Some((lanes, reason, reply)) = self.workers.poll_dead() {
            // Its callers may have been told of a failure of the library (10.5).
            if let Some(flights) = self.begin(id, lanes, reason) {
                return Taken::Answer(flights, reply);
            }
        }
        if self.is_over() {
            self.workers.leave(id);
            return Taken::Leave;
        }
        let next = self.engine.poll_commit(now).map(|commit| (commit.lane, commit.reason));
        let flights = next.and_then(|(lane, reason)| {
            let parts = std::iter::from_fn(|| Some(self.engine.poll_part(now)?.lane));
            let lanes = std::iter::once(lane).chain(parts).collect();
            let flights = self.begin(id, lanes, reason)?;
            for Flight { key, tally, .. } in &flights {
                self.counts.leave(key.borrow().kind(), *tally);
            }
            Some(flights)
        });
        flights.map_or_else(
            || {
                self.workers.rest(id);
                Taken::Rest
            },
            Taken::Commit,
        )
    }

    /// A worker that is awake rests, if the others that are awake are enough for what there is to do.
    pub(crate) fn rest(&mut self, id: WorkerId) -> bool {
        let rests = self.work() < self.workers.awake() && !self.is_over();
        if rests {
            self.workers.rest(id);
        }
        rests
    }

    /// A worker that is awake gets what is in flight of these lanes.
    fn begin(&mut self, id: WorkerId, lanes: LaneIds, reason: Reason) -> Option<Vec<Flight<V>>> {
        // Mostly one, which is not to take the room of several.
        let mut flights = Vec::with_capacity(lanes.len());
        flights.extend(lanes.iter().filter_map(|&lane| {
            let view = self.engine.lane(lane)?;
            Some(Flight::of(lane, view.key(), view.in_flight()?, reason))
        }));
        if flights.is_empty() {
            return None;
        }
        self.workers.begin(id, lanes, reason);
        Some(flights)
    }

    /// A commit of these lanes has ended. Returns what held their batches, unless the engine keeps it for others.
    pub(crate) fn commit_done(
        &mut self,
        now: Instant,
        lanes: &[LaneId],
        reason: Reason,
        ended: Ended,
    ) -> Vec<Batch<V>> {
        let mut not_kept = Vec::new();
        self.count(now, lanes, reason, ended);
        // With the first one the commit has ended.
        for &lane in lanes.iter().rev() {
            let batch = self.engine.handle_commit_done(now, lane);
            not_kept.extend(batch.and_then(|mut batch| {
                if !batch.reset() {
                    return Some(batch);
                }
                let most = batch.most();
                self.engine.recycle(batch, most)
            }));
        }
        not_kept
    }

    /// A commit of these lanes has ended, and is counted, unless the library has failed meanwhile and forgotten it.
    fn count(&mut self, now: Instant, lanes: &[LaneId], reason: Reason, ended: Ended) {
        self.counts.late_replies += ended.late_replies;
        let learned = self.engine.config().pacing == Pacing::Auto;
        let (mut sum, mut of_commit) = (Tally::default(), None);
        for &id in lanes {
            let lane = self.engine.lane(id);
            let flight =
                lane.and_then(|lane| Some((lane.key().borrow().kind(), lane.in_flight()?)));
            let Some((kind, slot)) = flight else { continue };
            let (left, returned) = (slot.left.unwrap_or(now), ended.returned.unwrap_or(now));
            if reason == Reason::Alone {
                self.counts.commit(reason, ended.verdict);
                self.distributions.add_alone(kind, left, returned);
                return;
            }
            let times = Times { left, returned, answered: ended.answered };
            self.distributions.add_lane(kind, slot, times);
            if of_commit.is_none() {
                self.distributions.add_hold(slot, left, learned);
            }
            sum = sum.and(slot);
            of_commit = Some(times);
        }
        if let Some(times) = of_commit {
            self.counts.commit(reason, ended.verdict);
            self.distributions.add_commit(sum.writes, sum.bytes, times);
        }
    }

    /// A caller waits until this time.
    pub(crate) fn expire_at(&mut self, until: Option<Instant>) {
        // Not written again where it stays the same: most writes change nothing here.
        if until.is_some_and(|until| self.expiry.is_none_or(|expiry| until < expiry)) {
            self.expiry = until;
        }
    }

    /// Whether some caller may have waited too long. The next look is for callers that are not seen in this one.
    pub(crate) fn poll_expiry(&mut self, now: Instant) -> bool {
        let is_due = self.expiry_at().is_some_and(|look| look <= now);
        if is_due {
            self.expiry = None;
        }
        is_due
    }

    /// All callers have been looked at.
    pub(crate) fn looked(&mut self, now: Instant) {
        self.next_look = Some(now + LOOKS_APART);
    }

    fn expiry_at(&self) -> Option<Instant> {
        self.expiry.map(|expiry| self.next_look.map_or(expiry, |look| look.max(expiry)))
    }

    /// When the timer has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadlines =
            [self.engine.next_deadline(), self.expiry_at(), self.workers.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Collects what follows from the change just made; `None` if nothing does, as after most writes.
    pub(crate) fn collect(&mut self) -> Option<Effects<V>> {
        let wakes_timer = self.wakes_timer();
        if self.engine.is_held_up() {
            self.alone.mark_waited_for(|_lane| true);
        }
        let quiet = self.wanted() == 0 && self.waiters.is_empty() && !self.alone.has_to_watch();
        if !wakes_timer && quiet {
            return None;
        }
        let (wakers, waiters) = (SmallVec::new(), Vec::new());
        let to_watch = self.alone.take_to_watch();
        let mut effects = Effects { wakes_timer, wakers, waiters, wanted: None, to_watch };
        while self.wanted() > 0 {
            let Some(waker) = self.workers.wake() else {
                let more = self.workers.ask_for(self.wanted());
                effects.wanted = self.owner.clone().filter(|_| more > 0).map(|owner| (owner, more));
                break;
            };
            effects.wakers.push(waker);
        }
        while let Some(barrier) = self.engine.poll_barrier() {
            effects.waiters.extend(self.waiters.remove(&barrier));
        }
        Some(effects)
    }

    /// Whether the timer would look too late.
    fn wakes_timer(&mut self) -> bool {
        let (Some(looks_at), Some(deadline)) = (self.looks_at, self.next_deadline()) else {
            return false;
        };
        let wakes = deadline < looks_at;
        if wakes {
            self.looks_at = None;
        }
        wakes
    }

    /// How many more workers are to be awake: as many as there is something to do for, or all that rest, when they are to
    /// find that there is no more to come.
    fn wanted(&self) -> usize {
        let missing = self.work().saturating_sub(self.workers.awake());
        if self.is_over() { missing.max(self.workers.idle()) } else { missing }
    }

    /// How many workers there is something to do for.
    fn work(&self) -> usize {
        self.engine.wanted() + self.workers.wanted()
    }

    /// Whether no work is to come. The one that sends replies may die, and leave them to others.
    fn is_over(&self) -> bool {
        self.dismisses && !self.workers.have_replies()
    }
}
