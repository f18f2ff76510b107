//! A slot: groups of a lane that leave together, as one commit or as a part of one.
//!
//! Invariant: `cost` and `usage` are the sums over the groups, and never above the maximum of
//! the lane or the budgets unless the slot holds a single group.

use crate::name::{LaneId, LaneKey};
use crate::offer::{Bound, Group, Refused, Usage};
use std::time::{Duration, Instant};

/// Why a batch left its lane (13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its window ended.
    Window,
    /// It reached the maximum.
    Size,
    /// The commit before it ended.
    Commit,
    /// A write with window 0 met an idle lane.
    Immediate,
    /// It was alone, and its own process commits it (5.6).
    Alone,
    /// A flush.
    Flush,
    /// The shard is being stopped.
    Stop,
}

/// Queued writes of one lane that will be committed together. What each write changes comes first, on one
/// cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Slot<B> {
    /// What the slot counts against its maximum (6.1).
    pub cost: u64,
    /// How many groups (calls) it holds.
    pub groups: u64,
    /// How many of them wait for their replies.
    pub(crate) callers: u64,
    /// Bytes, as the driver told them.
    pub bytes: u64,
    /// Items as 6.5 counts them: an empty group is one too.
    pub items: u64,
    /// What the driver keeps here: filled by it after each accepted offer.
    pub contents: B,
    /// The epoch in which it was opened. After that it takes no more groups and leaves windows aside.
    pub(crate) epoch: u64,
    /// Takes no more groups.
    pub(crate) sealed: bool,
    /// Leaves by itself (4.4).
    pub(crate) apart: bool,
    /// It left because the commit before it had ended.
    pub(crate) paced: bool,
    /// Leaves when the commit in flight ends, though it was opened while that one's callers were
    /// being answered: one of them has written again (5.4).
    pub(crate) follows: bool,
    /// When it left.
    pub left: Option<Instant>,
    /// When it could have left, if nobody had been waited for: once it was opened, and no commit was before it. Known
    /// when it has left.
    pub ready: Option<Instant>,
    /// Until when it was to be held by learned pacing, if it was.
    pub held_until: Option<Instant>,
    /// The window of the write that opened it.
    pub window: Duration,
    /// When it was opened.
    pub opened: Instant,
    /// Ticket of its first group.
    pub(crate) first_ticket: u64,
    /// What it is to the state machine; nothing where groups are not measured.
    pub usage: Usage,
}

/// A batch that is to be committed now, by itself or with batches of other lanes.
#[derive(Debug)]
pub struct Commit<'a, B> {
    /// Its lane, to be named when the commit has ended.
    pub lane: LaneId,
    /// The lane's name.
    pub key: &'a LaneKey,
    /// The batch.
    pub slot: &'a mut Slot<B>,
    /// Why it leaves now.
    pub reason: Reason,
}

impl<B> Slot<B> {
    pub(crate) fn open(
        now: Instant,
        window: Duration,
        first_ticket: u64,
        epoch: u64,
        contents: B,
    ) -> Self {
        Slot {
            contents,
            epoch,
            cost: 0,
            groups: 0,
            callers: 0,
            left: None,
            ready: None,
            held_until: None,
            window,
            opened: now,
            first_ticket,
            bytes: 0,
            items: 0,
            sealed: false,
            apart: false,
            paced: false,
            follows: false,
            usage: Usage::default(),
        }
    }

    /// Why a group can't be in one commit with what a slot holds, if it holds anything.
    pub(crate) fn keeps_out(
        held: Option<&Self>,
        group: Group,
        max: Option<u64>,
        budgets: Option<Usage>,
    ) -> Option<Refused> {
        let cost = held.map_or(0, |slot| slot.cost);
        if max.is_some_and(|max| cost.saturating_add(group.cost) > max) {
            return Some(Refused::Overloaded(Bound::Slot));
        }
        let budgets = budgets?;
        held.map_or(group.usage, |slot| slot.usage.and(group.usage)).above(budgets)
    }

    /// One more group.
    pub(crate) fn count(&mut self, group: Group) {
        self.cost += group.cost;
        self.groups += 1;
        self.callers += u64::from(group.waits);
        self.apart |= group.apart;
        self.bytes += group.bytes;
        self.items += group.items();
        // On a cache line of its own: not written where groups are not measured.
        if group.usage != Usage::default() {
            self.usage = self.usage.and(group.usage);
        }
    }

    /// When the window ends.
    pub(crate) fn deadline(&self) -> Instant {
        self.opened + self.window
    }
}
