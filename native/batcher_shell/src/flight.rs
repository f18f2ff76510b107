//! What a worker takes, and what is known of it when it has ended.
//!
//! Invariant: what is in flight is a picture of when it was taken: it changes nothing of its lane.

use crate::batch::Batch;
use crate::counts::Verdict;
use crate::vm::Vm;
use crate::workers::Proxied;
use batcher_core::{LaneId, LaneKey, Reason, Slot, Tally};
use std::time::{Duration, Instant};

/// What a committer has to do.
pub enum Taken<V: Vm> {
    /// To commit this together, and to answer its callers.
    Commit(Vec<Flight<V>>),
    /// To answer what a committer that has died has left, with what its owner says, if it says anything.
    Answer(Vec<Flight<V>>, Option<V::Terms>),
    /// To send these replies, each of which is in there until it is sent, and to ask again.
    Send(Proxied<V>),
    /// Nothing, until it is woken.
    Rest,
    /// To end.
    Leave,
}

/// What is known of a commit that has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    /// What became of it.
    pub verdict: Verdict,
    /// How many of its callers had given up before they could be answered.
    pub late_replies: u64,
    /// When the backend had returned; `None`: only now.
    pub returned: Option<Instant>,
    /// When all callers had been answered; `None`: nobody was to be.
    pub answered: Option<Instant>,
}

/// What is in flight of one lane: a commit, or a part of one.
pub struct Flight<V: Vm> {
    /// Its lane.
    pub lane: LaneId,
    /// The name of that.
    pub key: LaneKey,
    /// Its batch.
    pub batch: Batch<V>,
    /// What that counts against the maximum of its lane.
    pub cost: u64,
    /// What it holds.
    pub tally: Tally,
    /// The window of the write that opened its slot.
    pub window: Duration,
    /// How long that was open.
    pub waited: Duration,
    /// Why it left.
    pub reason: Reason,
}

impl<V: Vm> Flight<V> {
    pub(crate) fn of(lane: LaneId, key: &LaneKey, slot: &Slot<Batch<V>>, reason: Reason) -> Self {
        Flight {
            lane,
            key: key.clone(),
            batch: slot.contents.clone(),
            cost: slot.cost,
            tally: Tally::default().and(slot),
            window: slot.window,
            waited: slot.left.map_or_else(Duration::default, |left| left - slot.opened),
            reason,
        }
    }
}
