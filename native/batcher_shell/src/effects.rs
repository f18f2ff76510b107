//! What follows from a change of a shard's state: collected under its lock, run when that is free.

use crate::sync::Sender;
use crate::vm::{Notice, Vm};
use crate::workers::WorkerId;
use std::sync::Arc;

/// What others tell the shard's thread.
pub enum Event<V: Vm> {
    /// Look again: a deadline comes earlier than the one you sleep for, or the shard was closed.
    Wake,
    /// The owner of this number has died.
    OwnerDown(u64),
    /// This committer has died.
    WorkerDown(WorkerId),
    /// What a process leaves to the thread, because it may be exiting.
    Run(Effects<V>),
    /// The library failed in a calling process, under the owner of this number.
    Crash(u64, Arc<str>),
    /// Fail here and now.
    #[cfg(feature = "seams")]
    Panic,
}

/// Effects of a change, in the order in which they are run.
pub struct Effects<V: Vm> {
    pub(crate) wakes_thread: bool,
    /// To be woken.
    pub(crate) committers: Vec<V::Committer>,
    /// Their barriers are done.
    pub(crate) waiters: Vec<V::Waiter>,
    /// The owner, and how many more committers are wanted of it.
    pub(crate) wanted: Option<(V::Pid, usize)>,
}

impl<V: Vm> Effects<V> {
    pub(crate) fn new(wakes_thread: bool) -> Self {
        Effects { wakes_thread, committers: Vec::new(), waiters: Vec::new(), wanted: None }
    }

    /// `sender` is the calling process, `None` on the shard's own thread.
    pub(crate) fn run(self, sender: Option<V::Env<'_>>, events: &Sender<Event<V>>) {
        if self.wakes_thread {
            // The receiver lives as long as the shard.
            let _ = events.send(Event::Wake);
        }
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
