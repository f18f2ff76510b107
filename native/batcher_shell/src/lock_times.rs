//! How long offers hold the lock of a shard, counted by nanoseconds: for the benchmarks, in no release build.

use crate::sync;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What is held longer counts as held so many nanoseconds.
const LONGEST: usize = 20_000;
/// How often the clock is looked at twice to know what a look costs.
const LOOKS: usize = 10_001;

/// How many offers have held the lock so long, of all shards.
static COUNTS: [AtomicU64; LONGEST + 1] = [const { AtomicU64::new(0) }; LONGEST + 1];

/// An offer has taken a lock then, and has just given it back.
pub(crate) fn held_since(taken: Instant) {
    let held = usize::try_from(sync::now().duration_since(taken).as_nanos()).unwrap_or(LONGEST);
    COUNTS[held.min(LONGEST)].fetch_add(1, Relaxed);
}

/// How long offers have held locks since this was asked last, `(nanoseconds, how many of them)`, ascending, and
/// nanoseconds between two looks at the clock with nothing between, which are in each time: the median of many.
pub fn take_lock_times() -> (Vec<(u64, u64)>, u64) {
    let counts = (0..).zip(COUNTS.iter().map(|count| count.swap(0, Relaxed)));
    let mut looks: Vec<_> = (0..LOOKS)
        .map(|_| {
            let first = sync::now();
            sync::now().duration_since(first).subsec_nanos().into()
        })
        .collect();
    looks.sort_unstable();
    (counts.filter(|&(_, count)| count > 0).collect(), looks[LOOKS / 2])
}
