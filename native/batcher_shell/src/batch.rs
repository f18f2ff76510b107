//! What a slot holds, from the first write on until its callers have been answered: writes, and their callers.
//!
//! Invariant: each group that the engine accepts is put in before its call returns, outside the lock of the shard, and
//! stands behind the groups that are in already. So calls that overlap are in order, whatever that is, and calls that
//! don't are in theirs (4.3). Nobody sees what a batch holds before every group that was accepted is in.

use crate::sync::{self, Lock, LockGuard};
use crate::vm::Vm;
use crossbeam_utils::CachePadded;
use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

sync::thread_local! {
    /// Where this thread has put a group last: mostly its next one goes there as well. To count a reference for each
    /// group takes two atomic operations, on a cache line that all cores want.
    static LAST: Cell<Option<AnyLocked>> = Cell::new(None);
}

/// A [`Locked`]: a thread's own variable can't be of a type for each VM.
type AnyLocked = Arc<dyn Any + Send + Sync>;

/// A handle of a batch.
#[derive(Clone, Default)]
pub struct Batch<V: Vm> {
    /// How many groups had been accepted when this handle was made.
    accepted: u64,
    /// How many the contents have held at most, in this slot or one before.
    most: u64,
    shared: Arc<Shared<V>>,
}

/// What all handles have in common. The last of them empties the contents, whose memory a thread may have for longer.
#[derive(Default)]
struct Shared<V: Vm>(Arc<Locked<V>>);

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
        Reservation::new(&self.shared.0)
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
        sync::lock_when(&self.shared.0, |contents| contents.filled >= self.accepted)
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
        let Some(Shared(locked)) = Arc::get_mut(&mut self.shared) else { return false };
        let mut contents = sync::lock(locked);
        contents.filled = 0;
        self.most = self.most.max(self.accepted);
        let was_empty = std::mem::take(&mut self.accepted) == 0;
        std::mem::take(&mut contents.taken) || was_empty
    }
}

impl<V: Vm> Drop for Shared<V> {
    fn drop(&mut self) {
        if Arc::get_mut(&mut self.0).is_none() {
            let rest = std::mem::take(&mut *sync::lock(&self.0));
            // When the lock is free.
            drop(rest);
        }
    }
}

/// The place of a group that was accepted. Whatever becomes of it, nobody waits for a place that is no more.
pub(crate) struct Reservation<V: Vm> {
    /// `None` once it is filled.
    locked: Option<Arc<Locked<V>>>,
    /// Where this thread had put a group before, if that is elsewhere: not dropped under the lock of the shard.
    _left: Option<AnyLocked>,
}

impl<V: Vm> Reservation<V> {
    fn new(locked: &Arc<Locked<V>>) -> Self {
        let (same, left) = match LAST.with(Cell::take).map(Arc::downcast::<Locked<V>>) {
            Some(Ok(last)) if Arc::ptr_eq(&last, locked) => (Some(last), None),
            Some(Ok(last)) => (None, Some(last as AnyLocked)),
            Some(Err(last)) => (None, Some(last)),
            None => (None, None),
        };
        Reservation { locked: Some(same.unwrap_or_else(|| Arc::clone(locked))), _left: left }
    }

    /// Puts the group in.
    pub(crate) fn fill<R>(mut self, put: impl FnOnce(&mut Contents<V>) -> R) -> R {
        let locked = self.locked.take().expect("it is filled once");
        let mut contents = sync::lock(&locked);
        // Before it is in: nobody waits for it if that fails, and none looks until the lock is free.
        contents.filled += 1;
        let result = put(&mut contents);
        drop(contents);
        LAST.with(|last| last.set(Some(locked)));
        result
    }
}

impl<V: Vm> Drop for Reservation<V> {
    fn drop(&mut self) {
        if let Some(locked) = &self.locked {
            sync::lock(locked).filled += 1;
        }
    }
}
