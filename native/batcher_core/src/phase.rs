//! Whether a shard runs.

use crate::offer::Refused;
use std::time::Instant;

/// The life of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No batcher runs. Commits that were in flight may still end.
    Closed,
    /// An owner is there.
    Running,
    /// The owner is there and wants everything committed; nothing new is taken.
    Stopping,
    /// The owner has died; what is queued waits for another one until this time (10.4).
    Orphaned(Instant),
}

impl Phase {
    /// Why nothing can be offered now.
    pub fn refuses(self) -> Option<Refused> {
        match self {
            Phase::Closed => Some(Refused::NotRunning),
            Phase::Stopping => Some(Refused::ShuttingDown),
            Phase::Running | Phase::Orphaned(_) => None,
        }
    }
}
