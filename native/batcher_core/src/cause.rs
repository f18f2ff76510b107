//! Why what waits leaves.

use crate::slot::{Reason, Slot};
use std::time::Instant;

/// Why a lane is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Cause {
    pub(crate) now: Instant,
    /// A reason to leave now, if there is one beside the reasons that the slot itself carries.
    pub(crate) ready: Option<Reason>,
    /// It is held until then, whatever its window: that counts from when it could leave.
    pub(crate) held_until: Option<Instant>,
    /// Slots of earlier ones are flushed.
    pub(crate) epoch: u64,
    pub(crate) stopping: bool,
}

/// What leaves as one: the first slot of a lane, or all that waits for the gate.
pub(crate) struct Front {
    pub(crate) flushed: bool,
    pub(crate) sealed: bool,
    pub(crate) deadline: Instant,
}

impl Front {
    pub(crate) fn of<B>(slot: &Slot<B>, epoch: u64) -> Self {
        Front { flushed: slot.epoch < epoch, sealed: slot.sealed, deadline: slot.deadline() }
    }
}

/// Why it leaves now, if it does.
pub(crate) fn why_now(front: Front, cause: Cause) -> Option<Reason> {
    match cause.ready {
        _ if cause.stopping => Some(Reason::Stop),
        _ if front.flushed => Some(Reason::Flush),
        Some(Reason::Commit) => cause.ready,
        _ if front.sealed => Some(Reason::Size),
        None if cause.held_until.is_none() && front.deadline <= cause.now => Some(Reason::Window),
        ready => ready,
    }
}
