//! How times and sizes of a shard are distributed.
//!
//! Invariant: a distribution takes as much memory for any number of values, none before its first one, and to record
//! can't fail: what is above the highest value counts as that, and sums that can't grow any more stay as they are.

use batcher_core::{LaneKind, Slot};
use std::time::Instant;

/// Below this each value has a bucket of its own; above it each doubling is divided into half as many, so that a value is
/// told apart from others within a hundredth.
const EXACT: usize = 256;
const HALF: usize = EXACT / 2;
/// Values from here on count as the greatest below: eighteen minutes in microseconds, a gigabyte in bytes.
const END: u64 = 1 << 30;
/// 25 kB for each distribution.
const BUCKETS: usize = bucket(END - 1) + 1;

/// Where a value below [`END`] is counted.
#[allow(clippy::cast_possible_truncation, reason = "it is below 2^30")]
const fn bucket(value: u64) -> usize {
    let doublings = (u64::BITS - value.leading_zeros()).saturating_sub(EXACT.trailing_zeros());
    doublings as usize * HALF + (value >> doublings) as usize
}

/// The least and the greatest value that are counted there.
fn bounds_of(bucket: usize) -> (u64, u64) {
    let doublings = (bucket / HALF).saturating_sub(1);
    let least = ((bucket - doublings * HALF) as u64) << doublings;
    (least, least + (1 << doublings) - 1)
}

/// So many values of a time or a size, and how they are distributed.
#[derive(Clone, Debug, Default)]
pub struct Distribution(Option<Box<Recorded>>);

#[derive(Clone, Debug)]
struct Recorded {
    counts: [u64; BUCKETS],
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
        // No model looks at it, and each of its many thousand runs leaves a shard behind.
        if cfg!(loom) {
            return;
        }
        let empty = || Box::new(Recorded { counts: [0; BUCKETS], sum: 0, min: u64::MAX, max: 0 });
        let recorded = self.0.get_or_insert_with(empty);
        let count = &mut recorded.counts[bucket(value.min(END - 1))];
        *count = count.saturating_add(times);
        recorded.sum = recorded.sum.saturating_add(value.saturating_mul(times));
        recorded.min = recorded.min.min(value);
        recorded.max = recorded.max.max(value);
    }

    fn record_time(&mut self, from: Instant, to: Instant, times: u64) {
        self.record(micros_between(from, to), times);
    }

    /// Both together.
    fn and(mut self, other: &Distribution) -> Self {
        let Some(more) = &other.0 else { return self };
        let Some(recorded) = &mut self.0 else { return other.clone() };
        for (count, more) in recorded.counts.iter_mut().zip(more.counts) {
            *count = count.saturating_add(more);
        }
        recorded.sum = recorded.sum.saturating_add(more.sum);
        recorded.min = recorded.min.min(more.min);
        recorded.max = recorded.max.max(more.max);
        self
    }

    /// What is told of it, with the number of values up to each of these bounds, which ascend.
    pub fn summary(&self, bounds: &[u64]) -> Summary {
        let mut buckets: Vec<_> = bounds.iter().map(|&bound| (bound, 0_u64)).collect();
        let Some(recorded) = &self.0 else { return Summary { buckets, ..Summary::default() } };
        let Recorded { counts, sum, min, max } = recorded.as_ref();
        let count = counts.iter().fold(0_u64, |all, &count| all.saturating_add(count));
        let ranks = QUANTILES.map(|(_, part)| rank(count, part));
        let (mut quantiles, mut before) = ([*max; QUANTILES.len()], 0_u64);
        for (index, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let (least, greatest) = bounds_of(index);
            let up_to = before.saturating_add(count);
            for (quantile, rank) in quantiles.iter_mut().zip(ranks) {
                if (before..up_to).contains(&(rank - 1)) {
                    *quantile = greatest.clamp(*min, *max);
                }
            }
            before = up_to;
            let above = buckets.iter_mut().filter(|&&mut (bound, _)| least <= bound);
            above.for_each(|(_, count)| *count = before);
        }
        Summary { count, sum: *sum, min: *min, max: *max, quantiles, buckets }
    }
}

/// Which of so many values in order the quantile is, counted from 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn rank(count: u64, part: f64) -> u64 {
    ((count as f64 * part).ceil() as u64).clamp(1, count.max(1))
}

/// As `micros` of `sync`, which divides numbers of 128 bits.
fn micros_between(from: Instant, to: Instant) -> u64 {
    let time = to.saturating_duration_since(from);
    time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()))
}

/// All distributions of a shard. The distributions of lanes are in the order of [`LaneKind`].
#[derive(Debug, Default)]
pub struct Distributions {
    answer: [Distribution; 4],
    queue_wait: [Distribution; 4],
    /// How long commits took of calls that were alone, which is how long these took. Nothing else is recorded of them:
    /// they have waited for nobody, and shared nothing.
    alone: [Distribution; 4],
    commit: Distribution,
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
    /// How long calls took of this kind of lane.
    pub(crate) fn answer(&self, lane: usize) -> Distribution {
        self.answer[lane].clone().and(&self.alone[lane])
    }

    /// How long they were queued.
    pub(crate) fn queue_wait(&self, lane: usize) -> Distribution {
        self.queue_wait[lane].clone()
    }

    /// How long commits took.
    pub(crate) fn commit(&self) -> Distribution {
        self.alone.iter().fold(self.commit.clone(), Distribution::and)
    }

    /// A call that was alone.
    pub(crate) fn add_alone(&mut self, lane: LaneKind, left: Instant, returned: Instant) {
        self.alone[lane as usize].record_time(left, returned, 1);
    }

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
