//! How long calls hold the lock of a shard, counted by nanoseconds: for the benchmarks, in no release build.

use crate::sync::{self, Lock, LockGuard};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What is held longer counts as held so many nanoseconds.
const LONGEST: usize = 20_000;
/// How often the clock is looked at twice to know what a look costs.
const LOOKS: usize = 10_001;

/// How many calls have held the lock so long, of all shards.
static COUNTS: [AtomicU64; LONGEST + 1] = [const { AtomicU64::new(0) }; LONGEST + 1];

/// A lock that is held, and since when. To give it back is part of the time.
pub(crate) struct Timed<'a, T> {
    guard: Option<LockGuard<'a, T>>,
    since: Instant,
}

/// Takes a lock, as [`sync::lock`] does.
pub(crate) fn lock<T>(lock: &Lock<T>) -> Timed<'_, T> {
    let guard = Some(sync::lock(lock));
    Timed { guard, since: sync::now() }
}

impl<T> Deref for Timed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("it is held until it is dropped")
    }
}

impl<T> DerefMut for Timed<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("it is held until it is dropped")
    }
}

impl<T> Drop for Timed<'_, T> {
    fn drop(&mut self) {
        drop(self.guard.take());
        let held = sync::now().duration_since(self.since).as_nanos();
        let held = usize::try_from(held).unwrap_or(LONGEST);
        COUNTS[held.min(LONGEST)].fetch_add(1, Relaxed);
    }
}

/// How long calls have held locks since this was asked last, `(nanoseconds, how many of them)`, ascending, and
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
