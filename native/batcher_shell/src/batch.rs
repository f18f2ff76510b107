//! What a slot holds, from the first write on until its callers have been answered: writes, and their callers.
//!
//! Invariant: each group that the engine accepts is put in before its call returns, outside the lock of the shard, and
//! stands behind the groups that are in already. So calls that overlap are in order, whatever that is, and calls that
//! don't are in theirs (4.3). Nobody sees what a batch holds before every group that was accepted is in.

use crate::sync::{self, Lock, LockGuard};
use crate::vm::Vm;
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// A handle of a batch.
#[derive(Clone, Default)]
pub struct Batch<V: Vm> {
    /// How many groups had been accepted when this handle was made.
    accepted: u64,
    /// How many the contents have held at most, in this slot or one before.
    most: u64,
    contents: Arc<Locked<V>>,
}

/// Begins a cache line and shares none.
type Locked<V> = CachePadded<Lock<Contents<V>>>;

/// Writes and callers. What each write changes comes first, beside the lock.
#[derive(Default)]
#[repr(C)]
pub struct Contents<V: Vm> {
    /// How many groups are in.
    filled: u64,
    /// What will be committed; nothing once it has left.
    pub writes: V::Writes,
    /// The callers.
    pub answers: V::Answers,
    /// The writes have been taken by a committer.
    pub taken: bool,
}

impl<V: Vm> Batch<V> {
    /// A place for one more group.
    pub(crate) fn reserve(&mut self) -> Reservation<V> {
        self.accepted += 1;
        Reservation { contents: Arc::clone(&self.contents), is_filled: false }
    }

    /// How many groups had been accepted when this handle was made.
    pub(crate) fn groups(&self) -> u64 {
        self.accepted
    }

    /// How many its memory has held at most.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    /// What it holds, as soon as all groups are in that were accepted when this handle was made or copied.
    pub fn lock(&self) -> LockGuard<'_, Contents<V>> {
        sync::lock_when(&self.contents, |contents| contents.filled >= self.accepted)
    }

    /// The writes, for the committer: they are empty when `empty` returns something, and otherwise not taken.
    pub fn empty_writes<R>(&self, empty: impl FnOnce(&mut V::Writes) -> Option<R>) -> Option<R> {
        let mut contents = self.lock();
        let emptied = empty(&mut contents.writes);
        // Not if that has failed in the midst of them: then their memory is for no other slot.
        contents.taken |= emptied.is_some();
        emptied
    }

    /// The writes, for the committer, which empties what held them when the lock is free. That may be
    /// [put back](Self::put_back).
    pub fn take_writes(&self) -> V::Writes {
        let mut contents = self.lock();
        contents.taken = true;
        std::mem::take(&mut contents.writes)
    }

    /// The writes have left. What held them may hold the writes of another slot.
    pub fn put_back(&self, emptied: V::Writes) {
        self.lock().writes = emptied;
    }

    /// Made ready for another slot, when its committer has taken the writes and emptied what held the answers, or if
    /// nothing was ever put in, since it was the batch of a write that is alone. False if writes are left in it, or
    /// if another handle still keeps it, whose holder may take the next callers for callers of this batch.
    ///
    /// Under the lock of the shard, which waits for nothing: without another handle nobody has the lock of the contents.
    pub(crate) fn reset(&mut self) -> bool {
        let Some(locked) = Arc::get_mut(&mut self.contents) else { return false };
        let contents = locked.get_mut();
        contents.filled = 0;
        self.most = self.most.max(self.accepted);
        let was_empty = std::mem::take(&mut self.accepted) == 0;
        std::mem::take(&mut contents.taken) || was_empty
    }
}

/// The place of a group that was accepted. Whatever becomes of it, nobody waits for a place that is no more.
pub(crate) struct Reservation<V: Vm> {
    contents: Arc<Locked<V>>,
    is_filled: bool,
}

impl<V: Vm> Reservation<V> {
    /// Puts the group in.
    pub(crate) fn fill<R>(mut self, put: impl FnOnce(&mut Contents<V>) -> R) -> R {
        let mut contents = sync::lock(&self.contents);
        let result = put(&mut contents);
        contents.filled += 1;
        drop(contents);
        self.is_filled = true;
        result
    }
}

impl<V: Vm> Drop for Reservation<V> {
    fn drop(&mut self) {
        if !self.is_filled {
            sync::lock(&self.contents).filled += 1;
        }
    }
}
