//! How long offers hold the lock of a shard, counted by nanoseconds: for the benchmarks, in no release build.
//!
//! Invariant: guarded by the very lock whose times are kept, so it needs no atomics; to keep one takes time under
//! the lock, but none that is counted, except for a look at the clock: see [`clock_ns`].

use crate::sync;
use std::mem;
use std::time::Instant;

/// What is held longer counts as held so many nanoseconds.
const LONGEST: usize = 20_000;
/// How often the clock is looked at twice to know what a look costs.
const LOOKS: usize = 10_001;

/// The times of a shard.
pub(crate) struct LockTimes {
    /// Whoever holds the lock now makes an offer.
    offers: bool,
    counts: Vec<u64>,
}

impl Default for LockTimes {
    fn default() -> Self {
        LockTimes { offers: false, counts: vec![0; LONGEST + 1] }
    }
}

impl LockTimes {
    /// The lock was taken for an offer: this time counts.
    pub(crate) fn offers(&mut self) {
        self.offers = true;
    }

    /// The lock was taken then, and is about to be free.
    pub(crate) fn held_since(&mut self, taken: Instant) {
        let held = usize::try_from(sync::now().duration_since(taken).as_nanos()).unwrap_or(LONGEST);
        if mem::take(&mut self.offers) {
            self.counts[held.min(LONGEST)] += 1;
        }
    }

    /// `(nanoseconds, how many times held so long)`, ascending, and forgets them.
    pub(crate) fn take(&mut self) -> Vec<(u64, u64)> {
        let counts = mem::take(self).counts.into_iter();
        (0..).zip(counts).filter(|&(_, count)| count > 0).collect()
    }
}

/// Nanoseconds between two looks at the clock with nothing between, which are in each time: the median of many.
pub fn clock_ns() -> u64 {
    let mut costs: Vec<_> = (0..LOOKS)
        .map(|_| {
            let first = sync::now();
            sync::now().duration_since(first).subsec_nanos().into()
        })
        .collect();
    costs.sort_unstable();
    costs[LOOKS / 2]
}
