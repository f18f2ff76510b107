//! A lane: one serial commit channel of a shard.
//!
//! Invariant: at most one slot is in flight; the queue behind it is in the order of arrival; only
//! the last slot of the queue may still take groups.

use crate::slot::{Reason, Slot};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// A lane's name, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LaneKey {
    /// The lane of a namespace.
    Prefix(Arc<[u8]>),
    /// The hot lane of `write_batch`.
    Generic,
    /// The hot lane of puts.
    Put,
    /// The hot lane of deletes.
    Delete,
}

impl LaneKey {
    /// The same name, borrowed.
    pub fn borrow(&self) -> LaneRef<'_> {
        match self {
            LaneKey::Prefix(prefix) => LaneRef::Prefix(prefix),
            LaneKey::Generic => LaneRef::Generic,
            LaneKey::Put => LaneRef::Put,
            LaneKey::Delete => LaneRef::Delete,
        }
    }
}

/// A lane's name, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneRef<'a> {
    /// The lane of a namespace.
    Prefix(&'a [u8]),
    /// The hot lane of `write_batch`.
    Generic,
    /// The hot lane of puts.
    Put,
    /// The hot lane of deletes.
    Delete,
}

impl LaneRef<'_> {
    /// The same name, owned.
    pub fn to_key(self) -> LaneKey {
        match self {
            LaneRef::Prefix(prefix) => LaneKey::Prefix(prefix.into()),
            LaneRef::Generic => LaneKey::Generic,
            LaneRef::Put => LaneKey::Put,
            LaneRef::Delete => LaneKey::Delete,
        }
    }
}

/// A lane's number. Valid while the lane holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub(crate) u32);

/// What a lane does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Holds nothing.
    Idle,
    /// Its first slot leaves at this time.
    Waiting(Instant),
    /// Its first slot leaves as soon as somebody can commit it.
    Due(Reason),
    /// A commit is in flight.
    Busy,
}

#[derive(Debug)]
pub(crate) struct Lane<B> {
    pub(crate) key: LaneKey,
    pub(crate) state: State,
    pub(crate) queue: VecDeque<Slot<B>>,
    pub(crate) in_flight: Option<Slot<B>>,
    /// What is in flight left because the commit before it had ended.
    pub(crate) paced: bool,
    /// Until when a write still leaves because a commit has ended (5.4).
    pub(crate) lingers_until: Option<Instant>,
    /// Slots up to this ticket leave windows aside.
    pub(crate) flush_through: Option<u64>,
}

impl<B> Lane<B> {
    pub(crate) fn new(key: LaneKey) -> Self {
        Lane {
            key,
            state: State::Idle,
            queue: VecDeque::new(),
            in_flight: None,
            paced: false,
            lingers_until: None,
            flush_through: None,
        }
    }

    /// The last thing that this lane holds, which is answered last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Slot<B>> {
        self.queue.back_mut().or(self.in_flight.as_mut())
    }
}

/// A look at one lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneView<'a, B> {
    id: LaneId,
    lane: &'a Lane<B>,
}

impl<'a, B> LaneView<'a, B> {
    pub(crate) fn new(id: LaneId, lane: &'a Lane<B>) -> Self {
        LaneView { id, lane }
    }

    /// Its number.
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// Its name.
    pub fn key(&self) -> &'a LaneKey {
        &self.lane.key
    }

    /// Its queued slots in order of arrival.
    pub fn queue(&self) -> impl ExactSizeIterator<Item = &'a Slot<B>> + use<'a, B> {
        self.lane.queue.iter()
    }

    /// How many groups leave together next; `None` if no more fit.
    pub fn gathered(&self) -> Option<u64> {
        let next = self.lane.queue.front();
        next.map_or(Some(0), |slot| (!slot.sealed).then_some(slot.groups))
    }

    /// What is being committed.
    pub fn in_flight(&self) -> Option<&'a Slot<B>> {
        self.lane.in_flight.as_ref()
    }
}
