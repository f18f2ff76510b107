//! What a slot holds: writes, and the callers who wait for them.
//!
//! Invariant: each group that the engine accepts is put in before its call returns, outside the lock of the shard, and
//! stands behind those that are in already. So calls that overlap are in order, whatever that is, and calls that don't
//! are in theirs (4.3). Nobody sees what a slot holds before every group that was accepted is in.

use crate::host::Host;
use crate::sync::{self, Condvar, Mutex, MutexGuard};
use std::sync::Arc;

/// What the shell keeps in a slot, and the committer in its seat once the batch has left.
pub struct Contents<H: Host> {
    /// How many groups were accepted.
    accepted: u64,
    shared: Arc<Shared<H>>,
}

struct Shared<H: Host> {
    held: Mutex<Held<H>>,
    /// One more group is in.
    filled: Condvar,
}

/// Writes and callers.
pub struct Held<H: Host> {
    /// What will be committed; nothing once it has left.
    pub writes: H::Writes,
    /// Who waits.
    pub answers: H::Answers,
    /// How many groups are in.
    filled: u64,
    /// The writes have been sent to a committer.
    sent: bool,
}

impl<H: Host> Default for Contents<H> {
    fn default() -> Self {
        let (writes, answers) = Default::default();
        let held = Mutex::new(Held { writes, answers, filled: 0, sent: false });
        Contents { accepted: 0, shared: Arc::new(Shared { held, filled: Condvar::default() }) }
    }
}

impl<H: Host> Clone for Contents<H> {
    fn clone(&self) -> Self {
        Contents { accepted: self.accepted, shared: Arc::clone(&self.shared) }
    }
}

impl<H: Host> Contents<H> {
    /// A place for one more group.
    pub(crate) fn add(&mut self) -> Place<H> {
        self.accepted += 1;
        Place { shared: Arc::clone(&self.shared), is_filled: false }
    }

    /// What it holds, as soon as all groups are in that were accepted when this handle was made or copied.
    pub fn lock(&self) -> MutexGuard<'_, Held<H>> {
        let Shared { held, filled } = &*self.shared;
        sync::lock_when(held, filled, |held| held.filled >= self.accepted)
    }

    /// The writes, to be sent.
    pub(crate) fn take_writes(&self) -> H::Writes {
        std::mem::take(&mut self.lock().writes)
    }

    /// The writes have been sent. What held them may hold those of another slot.
    pub(crate) fn put_back(&self, emptied: H::Writes) {
        let mut held = self.lock();
        held.writes = emptied;
        held.sent = true;
    }

    /// Made ready for another slot, when the callers have been [cleared](Host::clear). False if writes are left in it,
    /// or if somebody else still has it and may take the next callers for those of this batch.
    pub(crate) fn reset(&mut self) -> bool {
        let Some(shared) = Arc::get_mut(&mut self.shared) else { return false };
        let held = shared.held.get_mut();
        held.filled = 0;
        self.accepted = 0;
        std::mem::take(&mut held.sent)
    }
}

/// Where a group that was accepted is to be put. Whatever becomes of that, nobody waits for a place that is no more.
pub(crate) struct Place<H: Host> {
    shared: Arc<Shared<H>>,
    is_filled: bool,
}

impl<H: Host> Place<H> {
    /// Puts the group in.
    pub(crate) fn fill<R>(mut self, put: impl FnOnce(&mut Held<H>) -> R) -> R {
        let mut held = sync::lock(&self.shared.held);
        let result = put(&mut held);
        held.filled += 1;
        self.is_filled = true;
        drop(held);
        self.shared.filled.notify_all();
        result
    }
}

impl<H: Host> Drop for Place<H> {
    fn drop(&mut self) {
        if !self.is_filled {
            sync::lock(&self.shared.held).filled += 1;
            self.shared.filled.notify_all();
        }
    }
}
