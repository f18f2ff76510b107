//! Committers as the shell sees them, and batches on their way to one.
//!
//! Invariant: a committer serves one lane at most, from the moment a batch is chosen for it until
//! it has answered that batch and asks for the next.

use crate::contents::Contents;
use crate::host::Host;
use crate::sync::Mutex;
use batcher_core::{LaneId, LaneKey, Reason};
use std::time::Duration;

/// Batches of more groups are put together on the shard's thread, not on a scheduler.
const LONG_BATCH: u64 = 2_000;
/// Of more groups than this each may be a message of its own: then the thread sends them, too.
const MANY_GROUPS: u64 = 500;

/// A committing process in its place.
pub struct Seat<H: Host> {
    /// The process.
    pub pid: H::Pid,
    pub(crate) serving: Mutex<Option<Serving<H>>>,
}

/// The batch that a committer has.
pub(crate) struct Serving<H: Host> {
    pub(crate) lane: LaneId,
    pub(crate) contents: Contents<H>,
    /// Of one caller, and left because the commit before it had ended.
    pub(crate) paced_one: bool,
}

impl<H: Host> Seat<H> {
    /// A process that has no batch yet.
    pub fn new(pid: H::Pid) -> Self {
        Seat { pid, serving: Mutex::new(None) }
    }

    /// What its batch holds, if it has one.
    pub fn contents(&self) -> Option<Contents<H>> {
        self.serving.lock().as_ref().map(|serving| serving.contents.clone())
    }

    /// Whether its batch is of this lane.
    pub fn serves(&self, lane: LaneId) -> bool {
        self.serving.lock().as_ref().is_some_and(|serving| serving.lane == lane)
    }
}

/// The batch of a committer that has died, until another one has answered it.
pub(crate) struct Orphan<H: Host> {
    /// The dead one, with the batch still in its seat.
    pub(crate) committer: H::Committer,
    pub(crate) reply: H::Reply,
}

/// A batch on its way to its committer.
pub struct Departure<H: Host> {
    /// Who gets it.
    pub committer: H::Committer,
    /// Its lane.
    pub lane: LaneKey,
    /// What telemetry wants to know.
    pub info: Info,
    pub(crate) contents: Contents<H>,
}

impl<H: Host> Departure<H> {
    /// Whether it takes too long for a scheduler.
    pub(crate) fn is_long(&self) -> bool {
        let many = || H::messages(&self.contents.lock().writes) as u64 > MANY_GROUPS;
        self.info.groups > LONG_BATCH || self.info.groups > MANY_GROUPS && many()
    }

    /// Sends the batch, once all of it is there.
    pub(crate) fn send(self, sender: Option<H::Env<'_>>) {
        let emptied = H::depart(&self, self.contents.take_writes(), sender);
        self.contents.put_back(emptied);
    }
}

/// What telemetry wants to know of a batch (13).
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// What it counts against the maximum of its lane (6.1).
    pub weight: u64,
    /// How many calls it holds.
    pub groups: u64,
    /// The window of the write that opened it.
    pub window_ms: u64,
    /// How long its first write has been queued.
    pub waited: Duration,
    /// Why it left.
    pub reason: Reason,
}
