//! How times and sizes of a shard are distributed.
//!
//! Invariant: a distribution takes as much memory for any number of values, none before its first one, and to record
//! can't fail: what is above the highest value counts as that, and sums that can't grow any more stay as they are.

use crate::sync::micros;
use batcher_core::{LaneKind, Slot};
use hdrhistogram::Histogram;
use std::time::Instant;

/// A value is told apart from others within a hundredth.
const DIGITS: u8 = 2;
/// Eighteen minutes in microseconds, a gigabyte in bytes: 25 kB for each distribution.
const HIGHEST: u64 = 1 << 30;

/// So many values of a time or a size, and how they are distributed.
#[derive(Clone, Debug, Default)]
pub struct Distribution(Option<Box<Recorded>>);

#[derive(Clone, Debug)]
struct Recorded {
    histogram: Histogram<u64>,
    sum: u64,
    min: u64,
    max: u64,
}

/// What is told of a distribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many values there are.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
    /// The median, and what 90, 99 and 99.9 percent of the values are not above.
    pub quantiles: [u64; 4],
    /// How many values are not above each of the bounds.
    pub buckets: Vec<(u64, u64)>,
}

/// The quantiles of a summary.
pub const QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)];

impl Distribution {
    /// One value, so many times.
    pub fn record(&mut self, value: u64, times: u64) {
        if self.0.is_none() {
            // These bounds are valid.
            let histogram = Histogram::new_with_bounds(1, HIGHEST, DIGITS).ok();
            let empty = |histogram| Recorded { histogram, sum: 0, min: u64::MAX, max: 0 };
            self.0 = histogram.map(empty).map(Box::new);
        }
        let Some(recorded) = &mut self.0 else { return };
        recorded.histogram.saturating_record_n(value, times);
        recorded.sum = recorded.sum.saturating_add(value.saturating_mul(times));
        recorded.min = recorded.min.min(value);
        recorded.max = recorded.max.max(value);
    }

    fn record_time(&mut self, from: Instant, to: Instant, times: u64) {
        self.record(micros(to.saturating_duration_since(from)), times);
    }

    /// What is told of it, with the number of values up to each of these bounds, which ascend.
    pub fn summary(&self, bounds: &[u64]) -> Summary {
        let mut buckets: Vec<_> = bounds.iter().map(|&bound| (bound, 0)).collect();
        let Some(recorded) = &self.0 else { return Summary { buckets, ..Summary::default() } };
        let Recorded { histogram, sum, min, max } = recorded.as_ref();
        for bin in histogram.iter_recorded() {
            let value = histogram.lowest_equivalent(bin.value_iterated_to());
            let first = buckets.partition_point(|&(bound, _)| bound < value);
            if let Some((_, count)) = buckets.get_mut(first) {
                *count += bin.count_since_last_iteration();
            }
        }
        let mut before = 0;
        for (_, count) in &mut buckets {
            before += *count;
            *count = before;
        }
        let quantile = |(_, part)| histogram.value_at_quantile(part).clamp(*min, *max);
        Summary {
            count: histogram.len(),
            sum: *sum,
            min: *min,
            max: *max,
            quantiles: QUANTILES.map(quantile),
            buckets,
        }
    }
}

/// All distributions of a shard. Those of lanes are in the order of [`LaneKind`].
#[derive(Debug, Default)]
pub struct Distributions {
    pub(crate) answer: [Distribution; 4],
    pub(crate) queue_wait: [Distribution; 4],
    pub(crate) commit: Distribution,
    pub(crate) answering: Distribution,
    pub(crate) writes: Distribution,
    pub(crate) bytes: Distribution,
    pub(crate) hold: Distribution,
    pub(crate) meant_hold: Distribution,
}

/// When a commit was at which point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// It left.
    pub(crate) left: Instant,
    /// The backend had returned.
    pub(crate) returned: Instant,
    /// All callers had been answered; `None`: there was nobody to answer but the process that has committed.
    pub(crate) answered: Option<Instant>,
}

impl Distributions {
    /// A lane of a commit. Of its writes it is only known when the first one came: that counts for all of them.
    pub(crate) fn add_lane<B>(&mut self, lane: LaneKind, slot: &Slot<B>, times: Times) {
        let (lane, writes) = (lane as usize, slot.groups);
        let answered = times.answered.unwrap_or(times.returned);
        self.queue_wait[lane].record_time(slot.opened, times.left, writes);
        self.answer[lane].record_time(slot.opened, answered, writes);
    }

    /// A commit of so many writes and bytes.
    pub(crate) fn add_commit(&mut self, writes: u64, bytes: u64, times: Times) {
        self.commit.record_time(times.left, times.returned, 1);
        self.writes.record(writes, 1);
        self.bytes.record(bytes, 1);
        if let Some(answered) = times.answered {
            self.answering.record_time(times.returned, answered, 1);
        }
    }

    /// The first lane of a commit that was not alone, which may have been held; `learned`: it was to be for as long as
    /// that has said.
    pub(crate) fn add_hold<B>(&mut self, slot: &Slot<B>, left: Instant, learned: bool) {
        let Some(ready) = slot.ready else { return };
        self.hold.record_time(ready, left, 1);
        if learned {
            self.meant_hold.record_time(ready, slot.held_until.unwrap_or(ready), 1);
        }
    }
}
