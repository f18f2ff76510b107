//! A lane: one serial commit channel of a shard.
//!
//! Invariant: at most one slot is in flight; the queue behind it is in the order of arrival; only
//! the last slot of the queue may still take groups.

use crate::answered::Answered;
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
    /// While the callers of what is in flight are being answered: the first ticket that came after
    /// that had begun.
    pub(crate) answering_from: Option<u64>,
    /// Whom the last commit has answered, as long as that matters.
    pub(crate) answered: Answered,
    /// Until when their writes still leave because a commit has ended (5.4).
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
            answering_from: None,
            answered: Answered::default(),
            lingers_until: None,
            flush_through: None,
        }
    }

    /// The last thing that this lane holds, which is answered last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Slot<B>> {
        self.queue.back_mut().or(self.in_flight.as_mut())
    }

    /// What gathers behind the slot that leaves before it, if a flush has not ended that.
    pub(crate) fn gathering(&self) -> Option<&Slot<B>> {
        let leaving = usize::from(matches!(self.state, State::Due(_)));
        let last = self.queue.iter().skip(leaving).next_back();
        last.filter(|slot| !self.is_flushed(slot))
    }

    /// Whether a slot leaves windows aside.
    pub(crate) fn is_flushed(&self, slot: &Slot<B>) -> bool {
        self.flush_through.is_some_and(|through| slot.first_ticket <= through)
    }

    /// Whether something leaves before what comes next.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self.state, State::Busy | State::Due(_))
    }

    /// Whether a write belongs to what the commit before it has begun: that has just answered its
    /// process (5.4).
    pub(crate) fn returns(&self, now: Instant, writer: u64) -> bool {
        let answering = self.answering_from.is_some();
        let lingers = self.lingers_until.is_some_and(|until| now < until);
        (answering || lingers) && self.answered.has(writer)
    }

    /// Whether the first slot leaves when the commit in flight ends: it was queued before that had
    /// answered anybody, or holds a write of one who was.
    pub(crate) fn follows(&self) -> bool {
        let during =
            |slot: &Slot<B>| self.answering_from.is_none_or(|from| slot.first_ticket < from);
        self.queue.front().is_some_and(|slot| slot.follows || during(slot))
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
