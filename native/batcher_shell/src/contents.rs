//! What a slot holds: writes, and the callers who wait for them.
//!
//! Invariant: each group that the engine accepts is put in before its call returns, outside the lock of the shard, and
//! stands behind those that are in already. So calls that overlap are in order, whatever that is, and calls that don't
//! are in theirs (4.3). Nobody sees what a slot holds before every group that was accepted is in.

use crate::host::Host;
use crate::sync::{self, Lock, LockGuard};
use crossbeam_utils::CachePadded;
use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

sync::thread_local! {
    /// What this thread put a group into last: mostly the next one goes there as well. To count handles anew for each
    /// group is what cores would fight for.
    static LAST: Cell<Option<Handle>> = Cell::new(None);
}

/// An `Arc<Locked<H>>`. A thread's own variable can't be of a kind for each host.
type Handle = Arc<dyn Any + Send + Sync>;

/// What the shell keeps in a slot, and the committer in its seat once the batch has left.
pub struct Contents<H: Host> {
    /// How many groups were accepted.
    accepted: u64,
    keeper: Arc<Keeper<H>>,
}

/// What slot and committers have together, counted apart from the threads, which may have what it holds for longer. So
/// the last of them empties that.
struct Keeper<H: Host> {
    held: Arc<Locked<H>>,
}

/// Begins a cache line and shares none.
type Locked<H> = CachePadded<Lock<Held<H>>>;

/// Writes and callers. What each write changes comes first, beside the lock.
#[repr(C)]
pub struct Held<H: Host> {
    /// How many groups are in.
    filled: u64,
    /// What will be committed; nothing once it has left.
    pub writes: H::Writes,
    /// Who waits.
    pub answers: H::Answers,
    /// The writes have been sent to a committer.
    sent: bool,
}

impl<H: Host> Default for Held<H> {
    fn default() -> Self {
        let (writes, answers) = Default::default();
        Held { writes, answers, filled: 0, sent: false }
    }
}

impl<H: Host> Default for Contents<H> {
    fn default() -> Self {
        let held = Arc::new(Locked::new(Lock::new(Held::default())));
        Contents { accepted: 0, keeper: Arc::new(Keeper { held }) }
    }
}

impl<H: Host> Clone for Contents<H> {
    fn clone(&self) -> Self {
        Contents { accepted: self.accepted, keeper: Arc::clone(&self.keeper) }
    }
}

impl<H: Host> Contents<H> {
    /// A place for one more group.
    pub(crate) fn add(&mut self) -> Place<H> {
        let place = Place::new(&self.keeper.held);
        self.accepted += 1;
        place
    }

    /// What it holds, as soon as all groups are in that were accepted when this handle was made or copied.
    pub fn lock(&self) -> LockGuard<'_, Held<H>> {
        sync::lock_when(&self.keeper.held, |held| held.filled >= self.accepted)
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
    /// or if somebody else still keeps it and may take the next callers for those of this batch.
    ///
    /// Under the lock of the shard, which waits for nobody: all groups were in when the callers were cleared.
    pub(crate) fn reset(&mut self) -> bool {
        let Some(keeper) = Arc::get_mut(&mut self.keeper) else { return false };
        let mut held = sync::lock(&keeper.held);
        held.filled = 0;
        self.accepted = 0;
        std::mem::take(&mut held.sent)
    }
}

impl<H: Host> Drop for Keeper<H> {
    fn drop(&mut self) {
        // Otherwise it ends here anyway. New places are made for those only who still have a keeper.
        if Arc::strong_count(&self.held) > 1 {
            let rest = std::mem::take(&mut *sync::lock(&self.held));
            // Frees its memory outside the lock.
            drop(rest);
        }
    }
}

/// Where a group that was accepted is to be put. Whatever becomes of that, nobody waits for a place that is no more.
pub(crate) struct Place<H: Host> {
    /// Nothing once this is dropped.
    held: Option<Arc<Locked<H>>>,
    is_filled: bool,
    /// What this thread had before: given up with the place, when the lock of the shard is free.
    _other: Option<Handle>,
}

impl<H: Host> Place<H> {
    fn new(held: &Arc<Locked<H>>) -> Self {
        let (mut own, mut other) = (None, None);
        match LAST.with(Cell::take).map(Arc::downcast) {
            Some(Ok(last)) if Arc::ptr_eq(&last, held) => own = Some(last),
            Some(Ok(last)) => other = Some(last as Handle),
            Some(Err(last)) => other = Some(last),
            None => {}
        }
        let held = own.unwrap_or_else(|| Arc::clone(held));
        Place { held: Some(held), is_filled: false, _other: other }
    }

    /// Puts the group in.
    pub(crate) fn fill<R>(mut self, put: impl FnOnce(&mut Held<H>) -> R) -> R {
        let mut held = sync::lock(self.held.as_ref().expect("it is dropped later"));
        let result = put(&mut held);
        held.filled += 1;
        drop(held);
        self.is_filled = true;
        result
    }
}

impl<H: Host> Drop for Place<H> {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        if !self.is_filled {
            sync::lock(&held).filled += 1;
        }
        LAST.with(|last| last.set(Some(held)));
    }
}
