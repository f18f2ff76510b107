//! A look at a shard from outside.
//!
//! Invariant: nothing is copied under the lock of the shard but handles, of so many lanes at a time.

use crate::batch::Batch;
use crate::shard::Shard;
use crate::state::State;
use crate::sync;
use crate::vm::Vm;
use batcher_core::{LaneId, LaneKey, LaneView, Slot};
use std::ops::Range;

/// A lane as it was a moment ago.
pub struct LaneLook<V: Vm> {
    /// Its name.
    pub lane: LaneKey,
    /// Its queued slots in order of arrival. Each may hold more by now, or may have left.
    pub queue: Vec<Slot<Batch<V>>>,
    /// Its number, for [`committer_of`](Shard::committer_of).
    pub id: LaneId,
}

/// So many lanes are looked at under one lock.
const AT_ONCE: u32 = 256;

impl<V: Vm> Shard<V> {
    /// All lanes; `None` if no batcher runs.
    pub fn lanes(&self) -> Option<Vec<LaneLook<V>>> {
        let mut looks = Vec::new();
        self.each_lane(|lane| {
            let queue = lane.queue().cloned().collect();
            looks.push(LaneLook { lane: lane.key().clone(), queue, id: lane.id() });
        });
        self.locked(|state| !state.is_closed()).then_some(looks)
    }

    /// The committer of the batch in flight of this lane, or the one that has died with it.
    pub fn committer_of(&self, lane: LaneId) -> Option<V::Committer> {
        self.locked(|state| state.workers.committer_of(lane).cloned())
    }

    /// The batches of all lanes, queued and in flight. For the timer, which other shards wait for: it takes no naps.
    pub(crate) fn batches(&self) -> Vec<Batch<V>> {
        let mut batches = Vec::new();
        self.in_steps(
            || {},
            |state, places| {
                for lane in state.engine.lanes_in(places) {
                    let slots = lane.in_flight().into_iter().chain(lane.queue());
                    batches.extend(slots.map(|slot| slot.contents.clone()));
                }
            },
        );
        batches
    }

    /// Looks at one lane after the other, the lock given back every so often.
    pub(crate) fn each_lane(&self, mut look: impl FnMut(LaneView<'_, Batch<V>>)) {
        // A thread that naps until the lock is free would find it taken again, and again.
        self.in_steps(sync::nap, |state, places| {
            state.engine.lanes_in(places).for_each(&mut look);
        });
    }

    /// Does something to all lanes, to the lanes of so many places under one lock. Between two steps, with the lock
    /// free, it rests.
    pub(crate) fn in_steps(
        &self,
        rest: impl Fn(),
        mut step: impl FnMut(&mut State<V>, Range<u32>),
    ) {
        let (mut next, mut places) = (0, 1);
        while next < places {
            places = self.locked(|state| {
                step(state, next..next + AT_ONCE);
                state.engine.places()
            });
            next += AT_ONCE;
            if next < places {
                rest();
            }
        }
    }
}
