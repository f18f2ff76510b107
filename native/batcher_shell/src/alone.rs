//! Writes that are alone: their own processes commit them, and give them back (5.6).
//!
//! Invariant: a process is watched as soon as anybody waits for its write, is refused another one, or looks at the shard,
//! and not before: a write that nobody waits for pays for no monitor. If it has died, its write counts as given back then.

use crate::vm::{Alone, Vm};
use batcher_core::LaneId;

struct Entry<V: Vm> {
    alone: Alone,
    lane: LaneId,
    process: V::Process,
    is_waited_for: bool,
    watch: Option<V::Watch>,
}

/// The writes of a shard that are alone.
pub(crate) struct AloneWrites<V: Vm> {
    entries: Vec<Entry<V>>,
    /// How many of them nobody waits for.
    unwaited: usize,
    /// Processes that are to be watched from now on.
    to_watch: Vec<(Alone, V::Process)>,
}

impl<V: Vm> Default for AloneWrites<V> {
    fn default() -> Self {
        AloneWrites { entries: Vec::new(), unwaited: 0, to_watch: Vec::new() }
    }
}

impl<V: Vm> AloneWrites<V> {
    pub(crate) fn add(&mut self, alone: Alone, lane: LaneId, process: V::Process) {
        self.unwaited += 1;
        self.entries.push(Entry { alone, lane, process, is_waited_for: false, watch: None });
    }

    /// It has been given back. Returns its lane, and what has watched its process, to be freed outside the lock; `None`
    /// if that was known.
    pub(crate) fn remove(&mut self, alone: Alone) -> Option<(LaneId, Option<V::Watch>)> {
        let place = self.entries.iter().position(|entry| entry.alone == alone)?;
        let Entry { lane, is_waited_for, watch, .. } = self.entries.swap_remove(place);
        self.unwaited -= usize::from(!is_waited_for);
        Some((lane, watch))
    }

    /// Whether what is in flight of this lane is alone.
    pub(crate) fn has(&self, lane: LaneId) -> bool {
        self.entries.iter().any(|entry| entry.lane == lane)
    }

    /// The process of what is in flight of this lane, if that is alone.
    pub(crate) fn process_of(&self, lane: LaneId) -> Option<&V::Process> {
        self.entries.iter().find(|entry| entry.lane == lane).map(|entry| &entry.process)
    }

    /// Somebody waits for the writes in such lanes.
    pub(crate) fn mark_waited_for(&mut self, is: impl Fn(LaneId) -> bool) {
        if self.unwaited == 0 {
            return;
        }
        let unwaited = self.entries.iter_mut().filter(|entry| !entry.is_waited_for);
        for entry in unwaited.filter(|entry| is(entry.lane)) {
            entry.is_waited_for = true;
            self.unwaited -= 1;
            self.to_watch.push((entry.alone, entry.process.clone()));
        }
    }

    /// Whether processes are to be watched from now on.
    pub(crate) fn has_to_watch(&self) -> bool {
        !self.to_watch.is_empty()
    }

    /// These are.
    pub(crate) fn take_to_watch(&mut self) -> Vec<(Alone, V::Process)> {
        std::mem::take(&mut self.to_watch)
    }

    /// Keeps what watches a process; returned if that has given its write back.
    pub(crate) fn keep(&mut self, alone: Alone, watch: V::Watch) -> Option<V::Watch> {
        match self.entries.iter_mut().find(|entry| entry.alone == alone) {
            Some(entry) => entry.watch.replace(watch),
            None => Some(watch),
        }
    }
}
