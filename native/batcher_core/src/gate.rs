//! What waits in all lanes of a shard, seen as one, where one commit takes what is due of all of them (4.4). The *gate*
//! opens when one of these lanes has a reason to leave: then all of them are due.
//!
//! Invariant: while the gate is shut, nothing that waits there has a reason to leave that was there when the gate was
//! last looked at. What is queued in a lane that is in flight does not wait here: it can't leave yet.

use crate::cause::{Cause, Front, why_now};
use crate::name::LaneId;
use crate::offer::Usage;
use crate::slot::{Reason, Slot};
use std::time::{Duration, Instant};

/// Most lanes in one commit: to take them and to give them back takes a microsecond each, in one piece.
const MOST_LANES: usize = 500;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Why what waits leaves, if it does.
    pub(crate) open: Option<Reason>,
    /// The first window to end.
    deadline: Option<Instant>,
    /// The shortest window.
    window: Option<Duration>,
    /// The end of a hold, if there is one: instead of windows.
    pub(crate) held_until: Option<Instant>,
    /// Some of it leaves when the commit in flight ends, though it came while the callers of that were being answered.
    pub(crate) follows: bool,
    /// A slot is full.
    sealed: bool,
    /// A flush came.
    flushed: bool,
    /// The commit that is being put together.
    load: Option<Load>,
}

/// What lanes have brought into a commit.
#[derive(Debug)]
struct Load {
    /// The lane that it began with.
    head: LaneId,
    reason: Reason,
    lanes: usize,
    cost: u64,
    usage: Usage,
    apart: bool,
}

impl Gate {
    /// A slot waits here, or what is known of it has changed; `flushed`: a flush has ended it.
    pub(crate) fn add<B>(&mut self, slot: &Slot<B>, flushed: bool) {
        let deadline = slot.deadline();
        self.deadline = Some(self.deadline.map_or(deadline, |first| first.min(deadline)));
        self.window = Some(self.window.map_or(slot.window, |first| first.min(slot.window)));
        self.follows |= slot.follows;
        self.sealed |= slot.sealed;
        self.flushed |= flushed;
    }

    /// The gate is looked at while something waits there, and could leave.
    pub(crate) fn look(&mut self, cause: Cause) {
        let deadline = self.deadline.unwrap_or(cause.now);
        let front = Front { flushed: self.flushed, sealed: self.sealed, deadline };
        // Without a decision on what is held, the last one stands.
        self.held_until = cause.held_until.or(self.held_until);
        let cause = Cause { held_until: self.held_until, ..cause };
        self.open = self.open.or_else(|| why_now(front, cause));
    }

    /// When it is to be looked at again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.open.is_some() {
            return None;
        }
        self.held_until.or(self.deadline)
    }

    /// The shortest window of what waits here, and of one more.
    pub(crate) fn window(&self, other: Duration) -> Duration {
        self.window.map_or(other, |window| window.min(other))
    }

    /// A slot leaves as the first part of a commit.
    pub(crate) fn begin<B>(&mut self, head: LaneId, slot: &Slot<B>, reason: Reason) {
        let Slot { cost, usage, apart, .. } = *slot;
        self.load = Some(Load { head, reason, lanes: 1, cost, usage, apart });
    }

    /// Whether a slot may leave in the same commit: the lane of its first part and the reason, if so.
    pub(crate) fn admit<B>(
        &mut self,
        slot: &Slot<B>,
        max: Option<u64>,
        budgets: Option<Usage>,
    ) -> Option<(LaneId, Reason)> {
        let load = self.load.as_mut()?;
        let (cost, usage) = (load.cost.saturating_add(slot.cost), load.usage.and(slot.usage));
        // A maximum of 0 commits each write.
        let fits = load.lanes < MOST_LANES
            && max.is_none_or(|max| max > 0 && cost <= max)
            && budgets.is_none_or(|budgets| usage.above(budgets).is_none());
        if load.apart || slot.apart || !fits {
            return None;
        }
        (load.cost, load.usage, load.lanes) = (cost, usage, load.lanes + 1);
        Some((load.head, load.reason))
    }

    /// All of it leaves.
    pub(crate) fn flush(&mut self, reason: Reason, is_at_limit: bool) {
        self.flushed = true;
        if !is_at_limit {
            self.open.get_or_insert(reason);
        }
    }

    /// Nothing waits any more: what is queued is behind commits in flight, and comes here when these end.
    pub(crate) fn shut(&mut self) {
        *self = Gate { load: self.load.take(), ..Gate::default() };
    }
}
