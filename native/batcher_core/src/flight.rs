//! How batches leave, alone or as parts of one commit, and how commits end.
//!
//! Invariant: a lane has one batch in flight at most; a commit counts from when its first part leaves until that comes
//! back, which it does last.

use crate::config::CommitScope;
use crate::engine::Engine;
use crate::lane::State;
use crate::name::LaneId;
use crate::pace::{Leave, Queued};
use crate::phase::Phase;
use crate::slot::{Commit, Reason};
use std::time::Instant;

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
        let (id, reason) = self.schedule.due.pop()?;
        let opened =
            self.schedule.gate.open.filter(|_| self.config.commit_scope == CommitScope::Shard);
        let reason = match self.phase {
            Phase::Stopping => Reason::Stop,
            _ => opened.unwrap_or(reason),
        };
        Some(self.depart(now, id, reason, true))
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
        let id = self.schedule.due.first()?;
        let slot = self.lanes.lane(id)?.queue.front().expect("a due lane holds a slot");
        let (max, budgets) = (self.config.hot_max, self.config.budgets);
        let reason = self.schedule.gate.admit(slot, max, budgets)?;
        self.schedule.due.pop();
        Some(self.depart(now, id, reason, false))
    }

    /// The first slot of a lane leaves: to lead a commit, or to be a part of the one that was led before.
    pub(crate) fn depart(
        &mut self,
        now: Instant,
        id: LaneId,
        reason: Reason,
        leads: bool,
    ) -> Commit<'_, B> {
        let lane = self.lanes.lane(id).expect("a due lane holds a slot");
        (lane.state, lane.leads, lane.flight) = (State::Busy, leads, self.flights.lanes.len());
        let slot = lane.queue.pop_front().expect("a due lane holds a slot");
        let together = self.config.commit_scope == CommitScope::Shard;
        let pace = if together { &mut self.pace } else { &mut lane.pace };
        if leads {
            pace.begin(self.config.pacing, now, reason == Reason::Commit, slot.callers);
        } else {
            pace.join(slot.callers);
        }
        if together {
            self.schedule.leave_together(&slot, leads.then_some(reason));
        }
        self.flights.lanes.push(id);
        self.flights.of_life += usize::from(leads);
        self.flights.items += slot.items;
        self.flights.bytes += slot.bytes;
        let slot = lane.in_flight.insert(slot);
        Commit { lane: id, key: &lane.key, slot, reason }
    }

    /// How many commits [`poll_commit`](Self::poll_commit) would yield now.
    pub fn wanted(&self) -> usize {
        let due = self.schedule.due.len();
        let due = match self.config.commit_scope {
            CommitScope::Lane => due,
            CommitScope::Shard => usize::from(due > 0 && self.schedule.gate.open.is_some()),
        };
        match self.phase {
            Phase::Running | Phase::Stopping => {
                due.min(self.config.max_in_flight.saturating_sub(self.flights.of_life))
            }
            Phase::Closed | Phase::Orphaned(_) => 0,
        }
    }

    /// Whether so many commits are in flight as may be.
    pub(crate) fn is_busy(&self) -> bool {
        self.flights.of_life >= self.config.max_in_flight
    }

    /// The commit of this lane has ended, and these processes are about to be answered. May be
    /// called several times for one commit, with some of them each time, before they can know.
    ///
    /// Whatever comes from any other process from here on has nothing to do with this commit (5.4).
    pub fn handle_answering(
        &mut self,
        now: Instant,
        id: LaneId,
        writers: impl Iterator<Item = u64>,
    ) {
        let Some(lane) = self.lanes.lane(id).filter(|lane| lane.in_flight.is_some()) else {
            return;
        };
        let pace = match self.config.commit_scope {
            CommitScope::Lane => &mut lane.pace,
            CommitScope::Shard => &mut self.pace,
        };
        pace.answering(self.config.pacing, (now, self.next_ticket), writers, &mut self.learned);
    }

    /// The commit of this lane has ended and its callers have been answered.
    ///
    /// Returns what the driver kept in the batch; `None` if nothing was in flight there.
    pub fn handle_commit_done(&mut self, now: Instant, id: LaneId) -> Option<B> {
        let lane = self.lanes.lane(id)?;
        let slot = lane.in_flight.take()?;
        let flight = lane.flight;
        // A commit of an earlier life paces nothing.
        let leads = lane.leads && slot.epoch >= self.epochs.life_from;
        lane.state = State::Idle;
        if let Some(queue) = lane.take_stale(self.epochs) {
            self.abandoned.push_back(queue);
        }
        self.land(flight);
        self.flights.of_life -= usize::from(leads);
        self.flights.items -= slot.items;
        self.flights.bytes -= slot.bytes;
        self.items -= slot.items;
        self.bytes -= slot.bytes;
        self.barriers.answered(slot.epoch);
        self.commit_ended(now, id, leads);
        self.lanes.rest(id);
        Some(slot.contents)
    }

    /// What waits behind it leaves, or is held, or sits its window out.
    fn commit_ended(&mut self, now: Instant, id: LaneId, leads: bool) {
        let lane = self.lanes.lane(id).expect("it had a commit in flight");
        let leave = match self.config.commit_scope {
            CommitScope::Lane => {
                let first = lane.queue.front();
                let queue = first.map_or(Queued::default(), |slot| Queued {
                    groups: slot.groups,
                    first_ticket: Some(slot.first_ticket),
                    follows: slot.follows,
                });
                lane.pace.end(&self.config, now, queue, &mut self.learned)
            }
            CommitScope::Shard if leads => {
                let queue = self.schedule.gate.queued();
                self.pace.end(&self.config, now, queue, &mut self.learned)
            }
            CommitScope::Shard => Leave::Window,
        };
        let ready = (leave == Leave::Now).then_some(Reason::Commit);
        self.place(id, self.cause(now, ready, leave));
    }

    /// One less is in flight.
    fn land(&mut self, flight: usize) {
        self.flights.lanes.swap_remove(flight);
        if let Some(&moved) = self.flights.lanes.get(flight)
            && let Some(lane) = self.lanes.lane(moved)
        {
            lane.flight = flight;
        }
    }
}
