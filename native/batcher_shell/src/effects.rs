//! What follows from a change of a shard: the processes that are told, and what its timer is told.
//!
//! Invariant: nothing here is run under the lock of a shard.

use crate::vm::{Alone, Notice, Vm};
use crate::workers::WorkerId;
use batcher_core::LaneKey;
use smallvec::SmallVec;
use std::sync::Arc;

/// What a timer is told of a shard.
pub enum Event<V: Vm> {
    /// Look again: a deadline comes earlier than the one noted, or the shard was opened or closed.
    Wake,
    /// The owner of this number has died.
    OwnerDown(u64),
    /// This committer has died.
    WorkerDown(WorkerId),
    /// The process that commits this write itself has died.
    AloneDown(Alone),
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
    /// Committers to be woken, mostly one.
    pub(crate) wakers: SmallVec<[V::Waker; 1]>,
    /// Their barriers are done.
    pub(crate) waiters: Vec<V::Waiter>,
    /// The owner, and how many more committers are wanted of it.
    pub(crate) wanted: Option<(V::Owner, usize)>,
    /// Processes to be watched, each for its write.
    pub(crate) to_watch: Vec<(Alone, V::Process)>,
}

impl<V: Vm> Effects<V> {
    /// Tells processes. `sender` is the calling one, `None` on the thread of a timer.
    pub(crate) fn run(self, sender: Option<V::Env<'_>>) {
        for waker in self.wakers {
            V::wake(waker, sender);
        }
        for waiter in self.waiters {
            V::tell(waiter, sender, None);
        }
        if let Some((owner, count)) = self.wanted {
            V::notify(&owner, sender, Notice::Committers(count));
        }
    }
}
