//! Lanes by their prefixes.
//!
//! Invariant: no call moves more than one part of them, however many there are: a table that is full moves all that it
//! holds at a stretch, which takes 20 ms of 100 000 prefixes.

use crate::name::LaneId;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

const PARTS: usize = 64;

type Entry = (Arc<[u8]>, LaneId);

#[derive(Debug)]
pub(crate) struct Prefixes {
    parts: [HashTable<Entry>; PARTS],
    hasher: RandomState,
}

impl Default for Prefixes {
    fn default() -> Self {
        Prefixes {
            parts: std::array::from_fn(|_| HashTable::new()),
            hasher: RandomState::default(),
        }
    }
}

impl Prefixes {
    #[inline]
    pub(crate) fn get(&self, prefix: &[u8]) -> Option<LaneId> {
        let hash = self.hasher.hash_one(prefix);
        let found = self.parts[part(hash)].find(hash, |(other, _)| **other == *prefix);
        found.map(|&(_, lane)| lane)
    }

    /// The prefix of a lane that was not there.
    pub(crate) fn insert(&mut self, prefix: Arc<[u8]>, lane: LaneId) {
        let hash = self.hasher.hash_one(&*prefix);
        let again = |(prefix, _): &Entry| self.hasher.hash_one(&**prefix);
        self.parts[part(hash)].insert_unique(hash, (prefix, lane), again);
    }

    pub(crate) fn remove(&mut self, prefix: &[u8]) {
        let hash = self.hasher.hash_one(prefix);
        let found = self.parts[part(hash)].find_entry(hash, |(other, _)| **other == *prefix);
        if let Ok(entry) = found {
            entry.remove();
        }
    }
}

/// By bits from the middle: a table looks at the first and the last ones.
#[inline]
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}
