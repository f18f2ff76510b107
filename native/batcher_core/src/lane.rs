//! A lane: one serial commit channel of a shard.
//!
//! Invariant: at most one slot is in flight; the queue behind it is in the order of arrival; only
//! the last slot of the queue may still take groups.

use crate::config::{CommitScope, Config, Overflow};
use crate::name::{Digest, LaneId, LaneKey};
use crate::offer::{Group, Refused};
use crate::pace::Pace;
use crate::slot::Slot;
use crate::slots::Slots;
use std::time::Instant;

/// What a lane does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Holds nothing.
    Idle,
    /// Its first slot leaves at this time, or is due if it is of an earlier epoch.
    Waiting(Instant),
    /// Its first slot leaves as soon as somebody can commit it, or waits for the gate before that.
    Due,
    /// A commit is in flight.
    Busy,
}

/// Which slots may still take groups, and which of them nobody will commit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Epochs {
    /// A slot of an earlier one is flushed: it takes no more groups and leaves windows aside.
    pub(crate) now: u64,
    /// A slot of an earlier one is of a closed life.
    pub(crate) life_from: u64,
}

/// How many calls, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls.
    pub writes: u64,
    /// Items as 6.5 counts them.
    pub items: u64,
    /// Bytes, as the driver told them.
    pub bytes: u64,
}

impl Tally {
    /// With what a slot holds.
    pub fn and<B>(self, slot: &Slot<B>) -> Self {
        self.plus(Tally { writes: slot.groups, items: slot.items, bytes: slot.bytes })
    }

    /// Both together.
    pub fn plus(self, other: Tally) -> Self {
        Tally {
            writes: self.writes.saturating_add(other.writes),
            items: self.items.saturating_add(other.items),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Lane<B> {
    pub(crate) key: LaneKey,
    /// Of its name, if that is a long one; else zeros.
    pub(crate) digest: Digest,
    pub(crate) generation: u32,
    /// Its place among the lanes in flight, while it is one of them.
    pub(crate) place_in_flight: usize,
    pub(crate) state: State,
    pub(crate) queue: Slots<B>,
    pub(crate) in_flight: Option<Slot<B>>,
    /// The lane whose batch is the first part of the commit in flight here: this one, unless that is of several lanes.
    pub(crate) head: LaneId,
    /// When its last commit ended.
    pub(crate) freed: Option<Instant>,
    /// How many groups left together last.
    pub(crate) last_groups: u64,
    /// What has left since it was opened, or since that was forgotten.
    pub(crate) done: Tally,
    /// When what gathers here leaves, if each lane has commits of its own.
    pub(crate) pace: Pace,
}

impl<B> Lane<B> {
    pub(crate) fn new(key: LaneKey, digest: Digest, id: LaneId) -> Self {
        Lane {
            key,
            digest,
            generation: id.generation,
            place_in_flight: 0,
            state: State::Idle,
            queue: Slots::default(),
            in_flight: None,
            head: id,
            freed: None,
            last_groups: 0,
            done: Tally::default(),
            pace: Pace::default(),
        }
    }

    /// Whether what is queued is of a closed life, and nobody will commit it.
    pub(crate) fn is_stale(&self, epochs: Epochs) -> bool {
        // All of it or nothing: it makes way for the first write of the next life.
        self.queue.front().is_some_and(|slot| slot.epoch < epochs.life_from)
    }

    /// Its queue, if that is stale: the lane holds only what is in flight from here on.
    pub(crate) fn take_stale(&mut self, epochs: Epochs) -> Option<Slots<B>> {
        if !self.is_stale(epochs) {
            return None;
        }
        self.state = if self.in_flight.is_some() { State::Busy } else { State::Idle };
        Some(std::mem::take(&mut self.queue))
    }

    /// What a flush or a close has done to all lanes at once is done to this one; its queue, if that is stale.
    #[cold]
    pub(crate) fn catch_up(&mut self, epochs: Epochs) -> Option<Slots<B>> {
        let stale = self.take_stale(epochs);
        if matches!(self.state, State::Waiting(_)) {
            // It is due, among the lanes that waited when the flush came.
            self.state = State::Due;
        }
        stale
    }

    /// Whether a group needs a slot of its own, the last one being full, or none that takes any more. It is refused where
    /// it would have to wait behind a slot that is full (16.3).
    #[inline]
    pub(crate) fn fit(
        &self,
        group: Group,
        max: Option<u64>,
        config: &Config,
        epoch: u64,
        gate_is_open: bool,
    ) -> Result<bool, Refused> {
        let together = config.commit_scope == CommitScope::Shard;
        let keeps_out = |held| Slot::keeps_out(held, group, max, config.budgets);
        let opens = self.queue.back().is_none_or(|last| {
            let apart = together && (last.apart || group.apart);
            last.epoch < epoch || last.sealed || apart || keeps_out(Some(last)).is_some()
        });
        if config.overflow == Overflow::Refuse {
            let is_closed = |first: &Slot<B>| first.sealed || first.epoch < epoch;
            let leaves = !together || gate_is_open || self.queue.front().is_some_and(is_closed);
            let front_leaves = self.state == State::Due && leaves;
            if (front_leaves || self.state == State::Busy)
                && let Some(refused) = keeps_out(self.gathering(front_leaves, epoch))
            {
                return Err(refused);
            }
        }
        Ok(opens)
    }

    /// What gathers behind the slot that leaves before it, if there is one and a flush has not ended that.
    pub(crate) fn gathering(&self, leaving: bool, epoch: u64) -> Option<&Slot<B>> {
        let last = self.queue.back().filter(|_| self.queue.len() > usize::from(leaving));
        last.filter(|slot| slot.epoch == epoch)
    }

    /// Whether something leaves before what comes next.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self.state, State::Busy | State::Due)
    }
}

/// A look at one lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneView<'a, B> {
    id: LaneId,
    lane: &'a Lane<B>,
    epochs: Epochs,
}

impl<'a, B> LaneView<'a, B> {
    pub(crate) fn new(id: LaneId, lane: &'a Lane<B>, epochs: Epochs) -> Self {
        LaneView { id, lane, epochs }
    }

    /// Its number.
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// Its name.
    pub fn key(&self) -> &'a LaneKey {
        &self.lane.key
    }

    /// Its queued slots in order of arrival, without slots that [`close`](crate::Engine::close) has abandoned.
    pub fn queue(&self) -> impl Iterator<Item = &'a Slot<B>> + use<'a, B> {
        let is_stale = self.lane.is_stale(self.epochs);
        self.lane.queue.iter().filter(move |_slot| !is_stale)
    }

    /// How many groups leave together next; `None` if no more fit.
    pub fn gathered(&self) -> Option<u64> {
        let takes = |slot: &Slot<B>| !slot.sealed && slot.epoch == self.epochs.now;
        self.queue().next().map_or(Some(0), |slot| takes(slot).then_some(slot.groups))
    }

    /// What has left it since it was opened, or since [`forget_done`](crate::Engine::forget_done).
    pub fn done(&self) -> Tally {
        self.lane.done
    }

    /// What is being committed.
    pub fn in_flight(&self) -> Option<&'a Slot<B>> {
        self.lane.in_flight.as_ref()
    }
}
