//! How batches leave, alone or as parts of one commit, and how commits end.
//!
//! Invariant: a lane has one batch in flight at most; a commit counts from when its first part leaves until that comes
//! back, which it does last.

use crate::auto::Backlog;
use crate::config::{CommitScope, Pacing};
use crate::engine::Engine;
use crate::lane::State;
use crate::name::LaneId;
use crate::pace::{CommitEnd, Leave, Queued};
use crate::phase::Phase;
use crate::slot::{Commit, Reason};
use std::time::{Duration, Instant};

impl<B: Default> Engine<B> {
    /// The next batch to commit; its lane is busy from here on. Nothing while no owner is there.
    ///
    /// # Panics
    ///
    /// As [`offer`](Self::offer).
    pub fn poll_commit(&mut self, now: Instant) -> Option<Commit<'_, B>> {
        if self.wanted() == 0 {
            return None;
        }
        let (id, reason) = self.schedule.pop()?;
        let reason = match (self.phase, self.config.commit_scope) {
            (Phase::Stopping, _) => Some(Reason::Stop),
            (_, CommitScope::Shard) => self.schedule.gate.open,
            (_, CommitScope::Lane) => reason,
        };
        Some(self.depart(now, id, reason.expect("it is wanted for a reason"), id))
    }

    /// The next batch that leaves in the commit that [`poll_commit`](Self::poll_commit) has begun last. To be asked for
    /// right behind that, until there is no more.
    ///
    /// # Panics
    ///
    /// As [`offer`](Self::offer).
    pub fn poll_part(&mut self, now: Instant) -> Option<Commit<'_, B>> {
        if self.config.commit_scope != CommitScope::Shard {
            return None;
        }
        let id = self.schedule.first()?;
        let slot = self.lanes.lane(id)?.queue.front().expect("a due lane holds a slot");
        let (max, budgets) = (self.config.hot_max, self.config.budgets);
        // What does not fit leaves first in the next commit, so that nothing passes it.
        let (head, reason) = self.schedule.gate.admit(slot, max, budgets)?;
        self.schedule.pop();
        Some(self.depart(now, id, reason, head))
    }

    /// How many commits [`poll_commit`](Self::poll_commit) would yield now; one, if there may be more, where each takes
    /// what is due of all lanes.
    pub fn wanted(&self) -> usize {
        let due = match self.config.commit_scope {
            CommitScope::Lane => self.schedule.due.len(),
            // It shuts when nothing waits any more.
            CommitScope::Shard => usize::from(self.schedule.gate.open.is_some()),
        };
        match self.phase {
            Phase::Running | Phase::Stopping => {
                due.min(self.config.max_in_flight.saturating_sub(self.flights.of_life))
            }
            Phase::Closed | Phase::Orphaned(_) => 0,
        }
    }

    /// Whether something is due that can't leave because so many commits are in flight as may be.
    pub fn is_held_up(&self) -> bool {
        self.is_at_limit() && self.schedule.due.len() > 0
    }

    /// How many calls wait to leave together when the commit of this lane is done; `None` if no more can join them, or
    /// if nobody need wait for more: with [`Pacing::Auto`] the engine does.
    pub fn gathered(&self, id: LaneId) -> Option<u64> {
        match (self.config.pacing, self.config.commit_scope) {
            (Pacing::Auto, _) => None,
            (_, CommitScope::Shard) => Some(self.queued),
            (_, CommitScope::Lane) => self.lane(id)?.gathered(),
        }
    }

    /// The commit of this lane has ended, and these processes are about to be answered. May be
    /// called several times for one commit, with some of them each time, before they can know.
    ///
    /// Whatever comes from any other process from here on has nothing to do with this commit (5.4). The clock is asked only
    /// where pacing is learned. False: nobody need say more of this commit, nor of its other parts.
    pub fn handle_answering(
        &mut self,
        now: impl FnOnce() -> Instant,
        id: LaneId,
        writers: impl Iterator<Item = u64>,
    ) -> bool {
        let life_from = self.epochs.life_from;
        let Some(lane) = self.lanes.lane(id) else { return true };
        let Some(slot) = &lane.in_flight else { return true };
        let of_life = slot.epoch >= life_from;
        let (pace, commit) = match self.config.commit_scope {
            CommitScope::Shard if of_life => (&mut self.pace, lane.head),
            CommitScope::Shard | CommitScope::Lane => (&mut lane.pace, id),
        };
        match self.config.pacing {
            Pacing::Auto => pace.learn_of_answers(now(), &mut self.learned),
            Pacing::Commit => pace.answering(commit, self.next_ticket, writers),
            Pacing::Window => pace.answering(commit, self.next_ticket, std::iter::empty()),
        }
        self.config.pacing != Pacing::Auto
    }

    /// The commit of this lane has ended and its callers have been answered.
    ///
    /// Returns what the driver kept in the batch; `None` if nothing was in flight there.
    pub fn handle_commit_done(&mut self, now: Instant, id: LaneId) -> Option<B> {
        let lane = self.lanes.lane(id)?;
        let slot = lane.in_flight.take()?;
        let flight = lane.place_in_flight;
        let of_life = slot.epoch >= self.epochs.life_from;
        let leads = lane.head == id;
        lane.state = State::Idle;
        lane.freed = Some(now);
        if leads {
            self.flights.freed = Some(now);
        }
        if let Some(queue) = lane.take_stale(self.epochs) {
            self.abandoned.push_back(queue);
        }
        self.land(flight);
        self.flights.of_life -= usize::from(leads && of_life);
        self.flights.items -= slot.items;
        self.flights.bytes -= slot.bytes;
        self.items -= slot.items;
        self.bytes -= slot.bytes;
        self.barriers.answered(slot.epoch);
        let together = self.config.commit_scope == CommitScope::Shard;
        let left = slot.left.filter(|_| of_life);
        let commit = CommitEnd { head: id, epoch: slot.epoch, paced: slot.paced, left };
        let leave = if together && of_life {
            self.part_ended(now, id, commit)
        } else {
            // One of a closed life keeps only its lane waiting: others are not held any shorter for it.
            self.lane_commit_ended(now, id, commit).or(together.then_some(Leave::Window))
        };
        if let Some(leave) = leave {
            let ready = (leave == Leave::Now).then_some(Reason::Commit);
            self.place(id, self.cause(now, ready, leave));
        }
        self.lanes.rest(id);
        Some(slot.contents)
    }

    /// What becomes of what waits in the same lane, if something does.
    fn lane_commit_ended(&mut self, now: Instant, id: LaneId, commit: CommitEnd) -> Option<Leave> {
        let lane = self.lanes.lane(id).expect("it had a commit in flight");
        let first = lane.queue.front();
        let (groups, window) =
            first.map_or_else(Default::default, |slot| (slot.groups, slot.window));
        let queue = Queued {
            waiting: Backlog { groups, window },
            first_ticket: first.map(|slot| slot.first_ticket),
            follows: first.is_some_and(|slot| slot.follows),
        };
        self.pace.forget(id);
        let leave = lane.pace.end(&self.config, now, commit, queue, &mut self.learned);
        first.map(|_| leave)
    }

    /// What becomes of what waits in all lanes that are not in flight, if the commit has ended: its first part has.
    fn part_ended(&mut self, now: Instant, id: LaneId, commit: CommitEnd) -> Option<Leave> {
        let lane = self.lanes.lane(id).expect("it had a commit in flight");
        lane.pace.forget(id);
        self.schedule.join(id, lane, self.epochs.now);
        if lane.head != id {
            return None;
        }
        let queue = Queued {
            waiting: Backlog {
                groups: self.queued,
                window: self.schedule.gate.window(Duration::MAX),
            },
            first_ticket: self.schedule.waiting.first().map(|&(ticket, _)| ticket),
            follows: self.schedule.gate.follows,
        };
        Some(self.pace.end(&self.config, now, commit, queue, &mut self.learned))
    }

    /// One less is in flight.
    fn land(&mut self, flight: usize) {
        self.flights.lanes.swap_remove(flight);
        if let Some(&moved) = self.flights.lanes.get(flight)
            && let Some(lane) = self.lanes.lane(moved)
        {
            lane.place_in_flight = flight;
        }
    }
}
