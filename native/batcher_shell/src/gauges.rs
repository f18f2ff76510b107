//! What a shard holds at a moment, in numbers.
//!
//! Invariant: the lock of the shard is held for a time that does not grow with lanes or writes.

use crate::shard::Shard;
use crate::sync::age_us;
use crate::total::{total_bound, total_held};
use crate::vm::Vm;
use std::time::Instant;

/// What a shard holds, against its bounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Items that are queued.
    pub queued_items: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Items that are being committed, or whose callers are being answered.
    pub in_flight_items: u64,
    /// Their bytes.
    pub in_flight_bytes: u64,
    /// The bound on both kinds of items together.
    pub max_queue_items: u64,
    /// The same in bytes.
    pub max_queue_bytes: u64,
    /// What all shards hold together, in bytes, if that is bounded.
    pub total_queue_bytes: u64,
    /// The bound in bytes on that; 0: there is none.
    pub max_total_queue_bytes: u64,
    /// How long ago the oldest commit left that is in flight, in microseconds; 0: none is.
    pub oldest_commit_age_us: u64,
    /// Lanes that hold something.
    pub lanes: u64,
    /// Committers that live.
    pub committers: u64,
    /// Responders that live.
    pub responders: u64,
    /// Commits in flight, without commits of closed lives.
    pub in_flight_commits: u64,
    /// The bound on these.
    pub max_in_flight: u64,
}

/// The process that commits.
pub enum CommittedBy<V: Vm> {
    /// One of the shard's, or one that has died.
    Committer(V::Committer),
    /// The one that has written, alone.
    Caller(V::Process),
}

impl<V: Vm> Shard<V> {
    /// What the shard holds now, and the process of the oldest commit in flight. `None`: no batcher runs.
    pub fn gauges(&'static self, sender: V::Env<'_>) -> Option<(Gauges, Option<CommittedBy<V>>)> {
        let responders = self.responders.count() as u64;
        let (mut gauges, left, by) = self.with(Some(sender), |state, _now| {
            if state.is_closed() {
                return None;
            }
            // What a dead process has left in flight is not shown for ever; other shards may wait for its bytes.
            state.alone.mark_waited_for(|_lane| true);
            let (engine, config) = (&state.engine, state.engine.config());
            let (queued, flying) = (engine.queued(), engine.flying());
            let oldest = engine.oldest_in_flight();
            let gauges = Gauges {
                queued_items: queued.items,
                queued_bytes: queued.bytes,
                in_flight_items: flying.items,
                in_flight_bytes: flying.bytes,
                max_queue_items: config.max_items,
                max_queue_bytes: config.max_bytes,
                total_queue_bytes: total_held(),
                max_total_queue_bytes: total_bound().unwrap_or(0),
                lanes: engine.occupied_lanes() as u64,
                committers: state.workers.living().count() as u64,
                responders,
                in_flight_commits: engine.commits() as u64,
                max_in_flight: config.max_in_flight as u64,
                ..Gauges::default()
            };
            let by = oldest.and_then(|(lane, _)| match state.workers.committer_of(lane) {
                Some(committer) => Some(CommittedBy::Committer(committer.clone())),
                None => state.alone.process_of(lane).cloned().map(CommittedBy::Caller),
            });
            Some((gauges, oldest.map(|(_, left)| left), by))
        })?;
        gauges.oldest_commit_age_us = left.map_or(0, age_us);
        Some((gauges, by))
    }

    /// How long ago the oldest slot was opened that is queued, in microseconds. Lanes are looked at only if one is.
    pub(crate) fn oldest_write_age_us(&self) -> Option<u64> {
        if self.locked(|state| state.engine.queued_calls()) == 0 {
            return None;
        }
        let mut oldest: Option<Instant> = None;
        self.each_lane(|lane| {
            let opened = lane.queue().next().map(|slot| slot.opened);
            oldest = [oldest, opened].into_iter().flatten().min();
        });
        oldest.map(age_us)
    }
}
