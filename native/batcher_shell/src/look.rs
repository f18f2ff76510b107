//! A look at a shard from outside.
//!
//! Invariant: nothing is copied under the lock of the shard but handles, of so many lanes at a time.

use crate::batch::Batch;
use crate::shard::Shard;
use crate::sync;
use crate::vm::Vm;
use batcher_core::{LaneId, LaneKey, LaneView, Slot, Work};
use std::collections::HashMap;
use std::time::Instant;

/// A lane as it was a moment ago.
pub struct LaneLook<V: Vm> {
    /// Its name.
    pub lane: LaneKey,
    /// Its queued slots in order of arrival.
    pub queue: Vec<SlotLook<V>>,
    /// The committer of its batch in flight, or the one that has died with it.
    pub committer: Option<V::Committer>,
}

/// A queued slot.
pub struct SlotLook<V: Vm> {
    /// What it holds. It may have left meanwhile.
    pub batch: Batch<V>,
    /// What it counts against the maximum of its lane (6.1).
    pub weight: u64,
    /// The window of the write that opened it.
    pub window_ms: u64,
    /// How long ago that was, in microseconds.
    pub age_us: u64,
    /// What it is to the state machine.
    pub work: Work,
}

impl<V: Vm> Shard<V> {
    /// All lanes; `None` if no batcher runs.
    pub fn lanes(&self) -> Option<Vec<LaneLook<V>>> {
        let now = sync::now();
        self.locked(|state| {
            if state.is_closed() {
                return None;
            }
            let committers: HashMap<LaneId, &V::Committer> =
                state.workers.all_work().map(|(work, committer)| (work.lane, committer)).collect();
            let look = |lane: LaneView<'_, Batch<V>>| LaneLook {
                lane: lane.key().clone(),
                queue: lane.queue().map(|slot| slot_look(slot, now)).collect(),
                committer: committers.get(&lane.id()).map(|&committer| committer.clone()),
            };
            Some(state.engine.lanes().map(look).collect())
        })
    }
}

fn slot_look<V: Vm>(slot: &Slot<Batch<V>>, now: Instant) -> SlotLook<V> {
    SlotLook {
        batch: slot.contents.clone(),
        weight: slot.weight,
        window_ms: sync::millis(slot.window),
        age_us: sync::micros(now.saturating_duration_since(slot.opened)),
        work: slot.work,
    }
}
