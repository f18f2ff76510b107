//! What lanes wait for: their windows, or somebody who commits.
//!
//! Invariant: a lane with queued slots is in `timers`, in `due`, or has a commit in flight, and in one of
//! them only.

use crate::cause::{Cause, Front, why_now};
use crate::due::{DueLanes, Timers};
use crate::gate::Gate;
use crate::lane::{Lane, State};
use crate::name::LaneId;
use crate::slot::{Reason, Slot};

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pub(crate) timers: Timers,
    pub(crate) due: DueLanes,
    /// Whether what is due leaves, where a commit takes that of all lanes.
    pub(crate) gate: Gate,
}

impl Schedule {
    /// Decides what a lane waits for.
    pub(crate) fn place<B>(&mut self, id: LaneId, lane: &mut Lane<B>, cause: Cause) {
        if lane.is_behind() {
            return;
        }
        let Some(first) = lane.queue.front() else {
            lane.state = State::Idle;
            return;
        };
        let reason = why_now(Front::of(first, cause.epoch), cause);
        let deadline =
            cause.held_until.map_or(first.deadline(), |until| until.min(first.deadline()));
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

    /// Decides what a lane waits for whose writes leave with those of other lanes: it is due, and waits for the gate.
    pub(crate) fn place_in_shard<B>(
        &mut self,
        id: LaneId,
        lane: &mut Lane<B>,
        cause: Cause,
        is_busy: bool,
    ) {
        if let Some(first) = lane.queue.front() {
            if lane.state == State::Idle {
                lane.state = State::Due;
                self.due.push(id, Reason::Window);
            }
            self.gate.add(first, first.epoch < cause.epoch);
        }
        if !is_busy && self.due.len() > 0 {
            self.gate.look(cause);
        }
    }

    /// What waits for the gate leaves now, or when the commit in flight ends.
    pub(crate) fn flush_together(&mut self, reason: Reason, is_busy: bool) {
        if self.due.len() > 0 {
            self.gate.flush(reason, is_busy);
        }
    }

    /// A slot leaves with others; as the first of them, for a reason of its own.
    pub(crate) fn leave_together<B>(&mut self, slot: &Slot<B>, leads: Option<Reason>) {
        self.gate.leave(slot, leads);
        if self.due.len() == 0 {
            self.gate.shut();
        }
    }
}
