//! What lanes wait for: their windows, or somebody who commits.
//!
//! Invariant: a lane with queued slots is in `timers`, in `due`, or has a commit in flight, and in one of
//! them only.

use crate::due::{DueLanes, Timers};
use crate::lane::{Lane, State};
use crate::name::LaneId;
use crate::slot::{Reason, Slot};
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pub(crate) timers: Timers,
    pub(crate) due: DueLanes,
}

/// Why a lane is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Cause {
    pub(crate) now: Instant,
    /// A reason to leave now, if there is one beside those that the slot itself carries.
    pub(crate) ready: Option<Reason>,
    /// Slots of earlier ones are flushed.
    pub(crate) epoch: u64,
    pub(crate) stopping: bool,
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
        let (reason, deadline) = (why_now(first, cause), first.deadline());
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
}

/// Why the first slot of a lane leaves now, if it does.
fn why_now<B>(slot: &Slot<B>, cause: Cause) -> Option<Reason> {
    match cause.ready {
        _ if cause.stopping => Some(Reason::Stop),
        _ if slot.epoch < cause.epoch => Some(Reason::Flush),
        Some(Reason::Commit) => cause.ready,
        _ if slot.sealed => Some(Reason::Size),
        None if slot.deadline() <= cause.now => Some(Reason::Window),
        ready => ready,
    }
}
