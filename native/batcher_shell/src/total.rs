//! What all shards of this VM hold together, in bytes, if that is bounded.
//!
//! Invariant: the sum is over the shares, and a share is what its shard holds, or nothing while there is no bound.
//! Without one nobody writes here.

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// There is no bound.
const NONE: u64 = u64::MAX;

/// Numbers that nothing else is read after: so they are none of loom's.
static BOUND: AtomicU64 = AtomicU64::new(NONE);
static SUM: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));

/// All shards together may hold so many bytes from now on; `None`: as many as they like.
pub fn bound_total(bytes: Option<u64>) {
    BOUND.store(bytes.unwrap_or(NONE), Relaxed);
}

/// The bound, if there is one.
pub(crate) fn total_bound() -> Option<u64> {
    Some(BOUND.load(Relaxed)).filter(|&bound| bound != NONE)
}

/// What all shards hold; 0 without a bound.
pub(crate) fn total_held() -> u64 {
    SUM.load(Relaxed)
}

/// What is a shard's of the sum.
#[derive(Debug, Default)]
pub(crate) struct Share(u64);

impl Share {
    /// So many bytes come to what the shard holds. False: they would be too many. The first ones are not, however many.
    pub(crate) fn admit(&mut self, bytes: u64) -> bool {
        let Some(bound) = total_bound() else { return true };
        let before = SUM.fetch_add(bytes, Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= bound;
        if fits {
            self.0 += bytes;
        } else {
            SUM.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// The shard holds so many bytes.
    pub(crate) fn settle(&mut self, held: u64) {
        let share = if total_bound().is_some() { held } else { 0 };
        // Not written where it stays the same: mostly that takes the cache line from no other core.
        if share > self.0 {
            SUM.fetch_add(share - self.0, Relaxed);
        } else if share < self.0 {
            SUM.fetch_sub(self.0 - share, Relaxed);
        } else {
            return;
        }
        self.0 = share;
    }
}
