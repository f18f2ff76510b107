//! What a slot holds: writes, and the callers who wait for them.
//!
//! Invariant: groups are put in right after they were accepted, outside the lock of the shard, and have arrived when
//! they are in; nobody sees what a slot holds before all that were accepted are.

use crate::host::Host;
use crate::sync::{self, Condvar, Mutex, MutexGuard};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// What the shell keeps in a slot, and the committer in its seat once the batch has left.
pub struct Contents<H: Host> {
    /// How many groups were accepted.
    groups: u64,
    shared: Arc<Shared<H>>,
}

struct Shared<H: Host> {
    held: Mutex<Held<H>>,
    /// All groups may be in.
    filled: Condvar,
}

/// Writes and callers.
pub struct Held<H: Host> {
    /// What will be committed.
    pub writes: H::Writes,
    /// Who waits.
    pub answers: H::Answers,
    /// How many groups are in.
    groups: u64,
}

/// Where a group that was accepted is to be put.
pub(crate) struct Place<H: Host>(Arc<Shared<H>>);

impl<H: Host> Default for Contents<H> {
    fn default() -> Self {
        let held = Held { writes: H::Writes::default(), answers: H::Answers::default(), groups: 0 };
        let shared = Shared { held: Mutex::new(held), filled: Condvar::default() };
        Contents { groups: 0, shared: Arc::new(shared) }
    }
}

impl<H: Host> Clone for Contents<H> {
    fn clone(&self) -> Self {
        Contents { groups: self.groups, shared: Arc::clone(&self.shared) }
    }
}

impl<H: Host> Contents<H> {
    /// A place for one more group. Whoever gets it must fill it.
    pub(crate) fn add(&mut self) -> Place<H> {
        self.groups += 1;
        Place(Arc::clone(&self.shared))
    }

    /// What it holds, as soon as all groups are in.
    pub fn lock(&self) -> MutexGuard<'_, Held<H>> {
        let Shared { held, filled } = &*self.shared;
        sync::lock_when(held, filled, |held| held.groups >= self.groups)
    }

    /// Made ready for another slot; false if somebody else still has it, and may take the next callers for those of
    /// this batch.
    pub(crate) fn reset(&mut self) -> bool {
        let Some(shared) = Arc::get_mut(&mut self.shared) else { return false };
        shared.held.get_mut().groups = 0;
        self.groups = 0;
        true
    }
}

impl<H: Host> Place<H> {
    /// Puts the group in. A panic is passed on, but nobody waits for this group any more.
    pub(crate) fn fill(self, fill: impl FnOnce(&mut H::Writes, &mut H::Answers)) {
        let Shared { held, filled } = &*self.0;
        let mut held = sync::lock(held);
        let Held { writes, answers, .. } = &mut *held;
        let done = catch_unwind(AssertUnwindSafe(|| fill(writes, answers)));
        held.groups += 1;
        drop(held);
        filled.notify_all();
        if let Err(panic) = done {
            resume_unwind(panic);
        }
    }
}
