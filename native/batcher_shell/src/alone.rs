//! Writes that are alone: their own processes commit them, and give them back (5.6).
//!
//! Invariant: a process is watched as soon as anybody waits for its write, and not before: a write that nobody waits for
//! pays for no monitor. If it has died, its write counts as given back then.

use crate::vm::{Alone, Vm};
use batcher_core::LaneId;

struct Entry<V: Vm> {
    alone: Alone,
    lane: LaneId,
    process: V::Process,
    is_watched: bool,
    watch: Option<V::Watch>,
}

/// The writes of a shard that are alone.
#[derive(Default)]
pub(crate) struct AloneWrites<V: Vm>(Vec<Entry<V>>);

impl<V: Vm> AloneWrites<V> {
    pub(crate) fn add(&mut self, alone: Alone, lane: LaneId, process: V::Process) {
        self.0.push(Entry { alone, lane, process, is_watched: false, watch: None });
    }

    /// It has been given back. Returns its lane, and what has watched its process, to be freed outside the lock; `None`
    /// if that was known.
    pub(crate) fn remove(&mut self, alone: Alone) -> Option<(LaneId, Option<V::Watch>)> {
        let place = self.0.iter().position(|entry| entry.alone == alone)?;
        let Entry { lane, watch, .. } = self.0.swap_remove(place);
        Some((lane, watch))
    }

    /// Whether what is in flight of this lane is alone.
    pub(crate) fn has(&self, lane: LaneId) -> bool {
        self.0.iter().any(|entry| entry.lane == lane)
    }

    /// Somebody waits for those in such lanes: whom to watch that is not watched yet.
    pub(crate) fn unwatched(&mut self, is: impl Fn(LaneId) -> bool) -> Vec<(Alone, V::Process)> {
        let unwatched = self.0.iter_mut().filter(|entry| !entry.is_watched && is(entry.lane));
        let unwatched = unwatched.map(|entry| {
            entry.is_watched = true;
            (entry.alone, entry.process.clone())
        });
        unwatched.collect()
    }

    /// The engine has failed that they were of.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps what watches a process; returned if that has given its write back.
    pub(crate) fn keep(&mut self, alone: Alone, watch: V::Watch) -> Option<V::Watch> {
        match self.0.iter_mut().find(|entry| entry.alone == alone) {
            Some(entry) => entry.watch.replace(watch),
            None => Some(watch),
        }
    }
}
