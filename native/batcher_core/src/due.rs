//! The lanes that are due, in the order in which they became so.
//!
//! Invariant: `lanes` counts the lanes in all entries, and no entry is empty.

use crate::name::LaneId;
use crate::slot::Reason;
use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

/// Lanes by the end of their windows.
pub(crate) type Timers = BTreeSet<(Instant, LaneId)>;

/// Lanes by the tickets of their oldest writes.
pub(crate) type Oldest = BTreeSet<(u64, LaneId)>;

#[derive(Debug, Default)]
pub(crate) struct DueLanes {
    entries: VecDeque<Entry>,
    lanes: usize,
}

#[derive(Debug)]
enum Entry {
    One(LaneId, Reason),
    /// All that waited for their windows when a flush came.
    Many(Timers, Reason),
    /// All that would have left together.
    Together(Oldest, Reason),
}

impl DueLanes {
    pub(crate) fn len(&self) -> usize {
        self.lanes
    }

    pub(crate) fn push(&mut self, id: LaneId, reason: Reason) {
        self.entries.push_back(Entry::One(id, reason));
        self.lanes += 1;
    }

    /// All of them at once, however many they are.
    pub(crate) fn push_all(&mut self, timers: Timers, reason: Reason) {
        if !timers.is_empty() {
            self.lanes += timers.len();
            self.entries.push_back(Entry::Many(timers, reason));
        }
    }

    /// The same of lanes that would have left together.
    pub(crate) fn push_oldest(&mut self, lanes: Oldest, reason: Reason) {
        if !lanes.is_empty() {
            self.lanes += lanes.len();
            self.entries.push_back(Entry::Together(lanes, reason));
        }
    }

    /// The one that became due first.
    pub(crate) fn first(&self) -> Option<LaneId> {
        match self.entries.front()? {
            Entry::One(id, _) => Some(*id),
            Entry::Many(timers, _) => timers.first().map(|&(_, id)| id),
            Entry::Together(lanes, _) => lanes.first().map(|&(_, id)| id),
        }
    }

    /// The same, and it is due no more.
    pub(crate) fn pop(&mut self) -> Option<(LaneId, Reason)> {
        let (next, was_last) = self.entries.front_mut()?.pop();
        if was_last {
            self.entries.pop_front();
        }
        self.lanes -= 1;
        next
    }

    /// One of the lanes that became due last.
    pub(crate) fn pop_last(&mut self) -> Option<LaneId> {
        let (next, was_last) = self.entries.back_mut()?.pop();
        if was_last {
            self.entries.pop_back();
        }
        self.lanes -= 1;
        next.map(|(id, _)| id)
    }
}

impl Entry {
    /// One of its lanes, and whether that was the last one.
    fn pop(&mut self) -> (Option<(LaneId, Reason)>, bool) {
        match self {
            Entry::One(id, reason) => (Some((*id, *reason)), true),
            Entry::Many(timers, reason) => {
                let next = timers.pop_first().map(|(_, id)| (id, *reason));
                (next, timers.is_empty())
            }
            Entry::Together(lanes, reason) => {
                let next = lanes.pop_first().map(|(_, id)| (id, *reason));
                (next, lanes.is_empty())
            }
        }
    }
}
