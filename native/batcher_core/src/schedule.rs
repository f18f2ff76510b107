//! What lanes wait for: their windows, the gate, or a committer.
//!
//! Invariant: a lane with queued slots is in `timers`, in `waiting`, in `due`, or has a commit in flight, and in one of
//! them only.

use crate::cause::{Cause, Front, why_now};
use crate::config::CommitScope;
use crate::due::{DueLanes, Oldest, Timers};
use crate::gate::Gate;
use crate::lane::{Lane, State};
use crate::name::LaneId;
use crate::slot::Reason;

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pub(crate) timers: Timers,
    pub(crate) due: DueLanes,
    /// Lanes that wait for the gate, where one commit takes what is due of all lanes.
    pub(crate) waiting: Oldest,
    /// Whether these leave.
    pub(crate) gate: Gate,
}

impl Schedule {
    /// Decides what a lane waits for.
    pub(crate) fn place<B>(&mut self, id: LaneId, lane: &mut Lane<B>, cause: Cause) {
        if lane.is_behind() {
            return;
        }
        let Some(first) = lane.queue.front_mut() else {
            lane.state = State::Idle;
            return;
        };
        first.held_until = cause.held_until.or(first.held_until);
        let reason = why_now(Front::of(first, cause.epoch), cause);
        let deadline = cause.held_until.unwrap_or_else(|| first.deadline());
        let before = lane.state;
        lane.state = if reason.is_some() { State::Due } else { State::Waiting(deadline) };
        if lane.state == before {
            return;
        }
        if let State::Waiting(deadline) = before {
            self.timers.remove(&(deadline, id));
        }
        match reason {
            Some(reason) => self.due.push(id, reason),
            None => {
                self.timers.insert((deadline, id));
            }
        }
    }

    /// Decides what a lane waits for whose writes leave with writes of other lanes: the gate, unless it is in flight.
    pub(crate) fn place_in_shard<B>(
        &mut self,
        id: LaneId,
        lane: &mut Lane<B>,
        cause: Cause,
        is_at_limit: bool,
    ) {
        if lane.state == State::Busy {
            return;
        }
        self.join(id, lane, cause.epoch);
        self.look(cause, is_at_limit);
    }

    /// What a lane that is not in flight holds waits for the gate.
    pub(crate) fn join<B>(&mut self, id: LaneId, lane: &mut Lane<B>, epoch: u64) {
        let Some(first) = lane.queue.front() else { return };
        if lane.state == State::Idle {
            lane.state = State::Due;
            self.waiting.insert((first.first_ticket, id));
        }
        self.gate.add(first, first.epoch < epoch);
    }

    /// Looks whether the gate opens, if something could leave then.
    pub(crate) fn look(&mut self, cause: Cause, is_at_limit: bool) {
        if !is_at_limit && self.count() > 0 {
            self.gate.look(cause);
        }
    }

    /// What waits for the gate leaves now, or when the commit in flight ends.
    pub(crate) fn flush_together(&mut self, reason: Reason, is_at_limit: bool) {
        if self.count() > 0 {
            self.gate.flush(reason, is_at_limit);
        }
    }

    /// Lanes that waited with others are due one by one, or the other way round: another owner has another scope of
    /// commits. What they hold has been flushed.
    pub(crate) fn change_scope(&mut self, scope: CommitScope, is_at_limit: bool) {
        let reason = Reason::Flush;
        self.due.push_all(std::mem::take(&mut self.timers), reason);
        self.due.push_oldest(std::mem::take(&mut self.waiting), reason);
        self.gate = Gate::default();
        if scope == CommitScope::Shard {
            self.flush_together(reason, is_at_limit);
        }
    }

    /// How many lanes are due, or wait for the gate.
    pub(crate) fn count(&self) -> usize {
        self.due.len() + self.waiting.len()
    }

    /// The lane that leaves next, where one commit takes what is due of all lanes.
    pub(crate) fn first(&self) -> Option<LaneId> {
        // Lanes that do not wait for the gate are due since another owner had lanes leave one by one.
        self.due.first().or_else(|| self.waiting.first().map(|&(_, id)| id))
    }

    /// The lane that leaves next, with the reason that it has had since it became due; it is due no more.
    pub(crate) fn pop(&mut self) -> Option<(LaneId, Option<Reason>)> {
        match self.due.pop() {
            Some((id, reason)) => Some((id, Some(reason))),
            None => self.waiting.pop_first().map(|(_, id)| (id, None)),
        }
    }

    /// All lanes that hold something and are not in flight.
    pub(crate) fn take_all(&mut self) -> DueLanes {
        let Schedule { timers, mut due, waiting, gate: _ } = std::mem::take(self);
        due.push_all(timers, Reason::Stop);
        due.push_oldest(waiting, Reason::Stop);
        due
    }
}
