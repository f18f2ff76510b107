//! What follows from a change of a shard's state: collected under its lock, run when that is free.

use crate::vm::{Notice, Vm};
use crate::workers::WorkerId;
use batcher_core::LaneKey;
use std::sync::Arc;

/// What a timer is told of a shard.
pub enum Event<V: Vm> {
    /// Look again: a deadline comes earlier than the one noted, or the shard was opened or closed.
    Wake,
    /// The owner of this number has died.
    OwnerDown(u64),
    /// This committer has died.
    WorkerDown(WorkerId),
    /// What a process leaves to the timer, because it may be exiting.
    Run(Effects<V>),
    /// A name that takes long to free: it is dropped on the thread of the timer.
    Free(LaneKey),
    /// The library failed in a calling process, under the owner of this number.
    Crash(u64, Arc<str>),
    /// Fail here and now.
    #[cfg(feature = "seams")]
    Panic,
}

/// Effects of a change, in the order in which they are run.
pub struct Effects<V: Vm> {
    /// The timer would look too late.
    pub(crate) wakes_timer: bool,
    /// To be woken.
    pub(crate) committers: Vec<V::Committer>,
    /// Their barriers are done.
    pub(crate) waiters: Vec<V::Waiter>,
    /// The owner, and how many more committers are wanted of it.
    pub(crate) wanted: Option<(V::Pid, usize)>,
}

impl<V: Vm> Effects<V> {
    pub(crate) fn new(wakes_timer: bool) -> Self {
        Effects { wakes_timer, committers: Vec::new(), waiters: Vec::new(), wanted: None }
    }

    /// Tells processes. `sender` is the calling one, `None` on the thread of a timer.
    pub(crate) fn run(self, sender: Option<V::Env<'_>>) {
        for committer in self.committers {
            V::wake(&committer, sender);
        }
        for waiter in self.waiters {
            V::tell(waiter, sender, None);
        }
        if let Some((owner, count)) = self.wanted {
            V::notify(&owner, sender, Notice::Committers(count));
        }
    }
}
