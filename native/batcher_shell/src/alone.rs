//! Writes that are alone: their own processes commit them (5.6).
//!
//! Invariant: a lane whose write is alone is in flight until that has been given back, which counts once: by its process
//! when the backend has returned, or by what is left of it when it has died.

use crate::shard::Shard;
use crate::vm::Vm;
use batcher_core::LaneId;

/// Names a write that is alone. None has the number of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alone(pub u64);

impl<V: Vm> Shard<V> {
    /// The write has been committed by its process, or that is no more: its lane goes on.
    pub fn give_back(&'static self, sender: Option<V::Env<'_>>, alone: Alone) {
        self.end(sender, |state, now| {
            let place = state.alone.iter().position(|&(other, _)| other == alone);
            let lane = place.map(|place| state.alone.swap_remove(place).1);
            ((), lane.and_then(|lane| state.commit_done(now, lane)))
        });
    }

    /// Whether what is in flight of this lane is alone.
    pub fn is_alone(&self, lane: LaneId) -> bool {
        self.locked(|state| state.alone.iter().any(|&(_, other)| other == lane))
    }
}
