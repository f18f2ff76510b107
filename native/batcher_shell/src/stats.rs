//! What a shard has counted, as it is read and forgotten, and what is counted elsewhere than under its lock.
//!
//! Invariant: reading changes nothing, but for what is taken to be told of, and whatever is read was so at one moment of
//! the lock.

use crate::counts::{Counts, LANES, RefusedBy};
use crate::distributions::Summary;
use crate::gauges::Gauges;
use crate::metrics::Read;
use crate::shard::Shard;
use crate::sync;
use crate::vm::Vm;
use batcher_core::{LaneKey, Tally};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What is read at once.
#[derive(Default)]
pub struct Seen {
    /// What the shard holds now.
    pub gauges: Gauges,
    /// What has happened to it.
    pub counts: Counts,
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a gauge or a counter.
    Number(u64),
    /// Of a distribution.
    Summary(Summary),
}

/// A lane, and what it was given.
pub struct BusyLane {
    /// Its name.
    pub lane: LaneKey,
    /// What it was given since it was opened, or since all counts were forgotten.
    pub given: Tally,
    /// What of that is queued.
    pub queued: Tally,
    /// When its oldest queued slot was opened.
    pub opened: Option<Instant>,
    /// When what is in flight of it left.
    pub left: Option<Instant>,
}

impl<V: Vm> Shard<V> {
    /// All counts; `None` if no batcher runs.
    pub fn counts(&self) -> Option<Counts> {
        let direct_commits = self.direct_commits.load(Ordering::Relaxed);
        self.locked(|state| {
            state.counts.committer_deaths += state.workers.take_deaths();
            state.counts.direct_commits = direct_commits;
            (!state.is_closed()).then(|| state.counts.clone())
        })
    }

    /// The values of a metric, each beside the values of its labels, in their order. Distributions are read here, one
    /// under each lock, since they are large.
    pub fn values(&self, read: &Read, seen: &Seen) -> Vec<(Vec<&'static str>, Value)> {
        let Seen { gauges, counts } = seen;
        let labelled = |(label, count)| (vec![label], Value::Number(count));
        match *read {
            Read::Gauge(read) => vec![(vec![], Value::Number(read(gauges)))],
            Read::OldestWrite => {
                vec![(vec![], Value::Number(self.oldest_write_age_us().unwrap_or(0)))]
            }
            Read::Counter(read) => vec![(vec![], Value::Number(read(counts)))],
            Read::Lanes(read) => counts.by_lane(read).map(labelled).collect(),
            Read::Refused => counts.by_cause().map(labelled).collect(),
            Read::Commits => {
                let of = |(reason, verdict, count)| (vec![reason, verdict], Value::Number(count));
                counts.by_commit().map(of).collect()
            }
            Read::Distribution(read, bounds) => {
                let distribution = self.locked(|state| read(&state.distributions));
                vec![(vec![], Value::Summary(distribution.summary(bounds)))]
            }
            Read::Distributions(read, bounds) => {
                let of = |(index, lane): (usize, _)| {
                    let distribution = self.locked(|state| read(&state.distributions, index));
                    (vec![lane], Value::Summary(distribution.summary(bounds)))
                };
                LANES.into_iter().enumerate().map(of).collect()
            }
        }
    }

    /// Forgets all counts and distributions, and what lanes were given.
    pub fn forget_stats(&self) {
        self.direct_commits.store(0, Ordering::Relaxed);
        let distributions = self.locked(|state| {
            state.workers.take_deaths();
            state.counts.forget();
            std::mem::take(&mut state.distributions)
        });
        drop(distributions);
        self.in_steps(sync::nap, |state, places| state.engine.forget_done(places));
    }

    /// Writes by cause that were refused since this was called last, whether a batcher runs or not: each of them is told
    /// of once, by whoever asks.
    pub fn take_refused(&self) -> impl Iterator<Item = (&'static str, u64)> + use<V> {
        self.locked(|state| state.counts.take_untold())
    }

    /// A write was refused before it could be offered.
    pub fn refuse(&self, cause: RefusedBy) {
        self.locked(|state| state.counts.refuse_for(cause));
    }

    /// A caller commits directly.
    pub fn commit_directly(&self) {
        self.direct_commits.fetch_add(1, Ordering::Relaxed);
    }

    /// So many of the lanes that hold something, or are kept for their next write: the lanes that were given the
    /// most writes, the busiest first; `None` if no batcher runs.
    pub fn busiest_lanes(&self, count: usize) -> Option<Vec<BusyLane>> {
        let mut lanes = Vec::new();
        self.each_lane(|lane| {
            let queued = lane.queue().fold(Tally::default(), Tally::and);
            let given = lane.done().plus(queued);
            if given.writes > 0 {
                let opened = lane.queue().next().map(|slot| slot.opened);
                let left = lane.in_flight().and_then(|slot| slot.left);
                let lane = lane.key().clone();
                lanes.push(BusyLane { lane, given, queued, opened, left });
            }
        });
        lanes.sort_by_key(|lane| std::cmp::Reverse(lane.given.writes));
        lanes.truncate(count);
        self.locked(|state| !state.is_closed()).then_some(lanes)
    }
}
