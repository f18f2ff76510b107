//! How the lives of a shard begin and end, and what a flush ends.
//!
//! Invariant: nothing here takes longer for more lanes. What concerns all of them is noted once, in the
//! number of an epoch, and found by each lane when it is next looked at.

use crate::auto::Learned;
use crate::barrier::BarrierId;
use crate::config::{CommitScope, Config};
use crate::engine::Engine;
use crate::pace::{Leave, Pace};
use crate::phase::Phase;
use crate::slot::Reason;
use std::time::Instant;

impl<B: Default> Engine<B> {
    /// An owner takes the shard over, with whatever is queued or still in flight (10.4).
    ///
    /// Windows that have ended meanwhile are for the next [`handle_timeout`](Self::handle_timeout).
    /// If it wants commits of another scope (4.4), what is queued leaves as if it had been flushed.
    pub fn open(&mut self, now: Instant, config: Config) {
        if self.phase == Phase::Closed {
            self.barriers.start_life();
            self.epochs.now = self.barriers.epoch();
            // Another life may have another backend and other writers.
            self.learned = Learned::default();
        }
        self.phase = Phase::Running;
        self.configure(now, config);
    }

    /// Other limits and habits from now on (18.4). A slot keeps the window and the maximum that it was filled under; if
    /// commits have another scope, what is queued leaves as if it had been flushed. What is in flight ends as it began.
    /// Nothing happens while no batcher runs.
    pub fn configure(&mut self, now: Instant, config: Config) {
        if self.phase == Phase::Closed {
            return;
        }
        let other_scope = config.commit_scope != self.config.commit_scope;
        self.config = config;
        if other_scope {
            self.barriers.end_epoch();
            self.epochs.now = self.barriers.epoch();
        }
        let is_at_limit = self.is_at_limit();
        if other_scope {
            self.schedule.change_scope(self.config.commit_scope, is_at_limit);
        } else if self.config.commit_scope == CommitScope::Shard {
            // More may be in flight than before.
            self.schedule.look(self.cause(now, None, Leave::Window), is_at_limit);
        }
    }

    /// Everything accepted so far is to be committed, windows aside. The barrier is done when all
    /// of it has been answered; later writes neither delay it nor are hurried by it (11.1).
    pub fn handle_flush(&mut self, _now: Instant) -> BarrierId {
        let barrier = self.barriers.open();
        self.epochs.now = self.barriers.epoch();
        let stopping = self.phase == Phase::Stopping;
        let reason = if stopping { Reason::Stop } else { Reason::Flush };
        self.schedule.due.push_all(std::mem::take(&mut self.schedule.timers), reason);
        if self.config.commit_scope == CommitScope::Shard {
            let is_at_limit = self.is_at_limit();
            self.schedule.flush_together(reason, is_at_limit);
        }
        barrier
    }

    /// The owner wants to end: nothing new is taken, everything leaves. The barrier tells when the
    /// shard is drained (11.3).
    pub fn handle_stop(&mut self, now: Instant) -> BarrierId {
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping;
        }
        self.handle_flush(now)
    }

    /// The owner is gone without a word. What is queued waits for a successor (10.4).
    pub fn handle_owner_down(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Running | Phase::Stopping) {
            self.phase = Phase::Orphaned(now + self.config.adoption_timeout);
        }
    }

    /// No batcher runs any more: what is still queued is abandoned, what is in flight may end.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
        self.barriers.end_epoch();
        self.epochs.now = self.barriers.epoch();
        self.epochs.life_from = self.epochs.now;
        self.flights.of_life = 0;
        self.items = self.flights.items;
        self.bytes = self.flights.bytes;
        self.queued = 0;
        self.pace = Pace::default();
        // Lanes with something queued are here, or have a commit in flight.
        let mut queued = self.schedule.take_all();
        let in_flight = self.flights.lanes.iter().rev();
        in_flight.for_each(|&id| queued.push(id, Reason::Stop));
        if queued.len() > 0 {
            self.closed.push_back(queued);
        }
    }

    /// The next batch that nobody will commit. Its barriers pass.
    pub fn poll_abandoned(&mut self) -> Option<B> {
        loop {
            if let Some(queue) = self.abandoned.front_mut() {
                if let Some(slot) = queue.pop_front() {
                    self.barriers.answered(slot.epoch);
                    return Some(slot.contents);
                }
                self.abandoned.pop_front();
            } else {
                let lanes = self.closed.front_mut()?;
                let Some(id) = lanes.pop_last() else {
                    self.closed.pop_front();
                    continue;
                };
                if let Some(lane) = self.lanes.lane(id) {
                    // Nothing, if the lane was written to since.
                    self.abandoned.extend(lane.take_stale(self.epochs));
                    self.lanes.rest(id);
                }
            }
        }
    }
}

impl<B> Engine<B> {
    /// What the driver kept in all batches that are queued, in flight or abandoned. For a driver that has to
    /// answer all callers after the engine itself has failed: it relies on nothing but where slots are. What is left is
    /// closed, and gives nothing a number that the driver may still know of another lane, ticket or barrier.
    pub fn take_contents(&mut self) -> impl Iterator<Item = B> + use<B> {
        let next = Engine {
            next_ticket: self.next_ticket,
            lanes: self.lanes.successor(),
            barriers: self.barriers.successor(),
            ..Engine::default()
        };
        let Engine { abandoned, lanes, .. } = std::mem::replace(self, next);
        abandoned.into_iter().flatten().chain(lanes.into_slots()).map(|slot| slot.contents)
    }
}
