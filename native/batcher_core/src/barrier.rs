//! Barriers: who asked to hear when everything accepted so far has been answered (11.1).
//!
//! Invariant: a barrier is counted once in the last slot, or the commit in flight, of each lane
//! that held something when it was asked for: lanes are serial, so that one is answered last. Where
//! the queue of a busy lane is abandoned, it is counted in both.

use std::collections::{HashMap, VecDeque};

/// Names a flush or a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BarrierId(pub u64);

/// The open barriers of a shard.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    next: u64,
    waiting_for: HashMap<BarrierId, u64>,
    done: VecDeque<BarrierId>,
}

impl Barriers {
    /// A new barrier that waits for nothing yet; [`settle`](Self::settle) it after the count.
    pub(crate) fn open(&mut self) -> BarrierId {
        let id = BarrierId(self.next);
        self.next += 1;
        self.waiting_for.insert(id, 0);
        id
    }

    /// One more lane to wait for.
    pub(crate) fn wait_for_one(&mut self, id: BarrierId) {
        *self.waiting_for.entry(id).or_default() += 1;
    }

    /// Done at once if it waits for nothing.
    pub(crate) fn settle(&mut self, id: BarrierId) {
        if self.waiting_for.get(&id) == Some(&0) {
            self.waiting_for.remove(&id);
            self.done.push_back(id);
        }
    }

    /// What carried these barriers has been answered.
    pub(crate) fn passed(&mut self, ids: &[BarrierId]) {
        for &id in ids {
            if let Some(left) = self.waiting_for.get_mut(&id) {
                *left -= 1;
                self.settle(id);
            }
        }
    }

    /// The next barrier that is done.
    pub(crate) fn poll(&mut self) -> Option<BarrierId> {
        self.done.pop_front()
    }
}
