//! What is queued in all lanes of a shard, seen as one, where one commit takes what is due of all of them (4.4).
//!
//! Invariant: while the gate is shut, nothing that is queued has a reason to leave that was there when the gate was last
//! looked at; it opens for all lanes at once, and shuts when none is due any more.

use crate::cause::{Cause, Front, why_now};
use crate::offer::Work;
use crate::pace::Queued;
use crate::slot::{Reason, Slot};
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Why what is due leaves, if it does.
    pub(crate) open: Option<Reason>,
    /// What is queued: calls.
    pub(crate) groups: u64,
    /// The first window to end.
    deadline: Option<Instant>,
    /// The end of a hold, if there is one.
    held_until: Option<Instant>,
    /// The ticket that came first.
    first_ticket: Option<u64>,
    /// Some of it leaves when the commit in flight ends, though it came while the callers of that were being answered.
    follows: bool,
    /// A slot is full.
    sealed: bool,
    /// A flush came.
    flushed: bool,
    /// Of the commit that is being put together.
    load: Load,
}

/// What lanes have brought into a commit.
#[derive(Debug)]
struct Load {
    reason: Reason,
    weight: u64,
    work: Work,
    apart: bool,
}

impl Default for Load {
    fn default() -> Self {
        Load { reason: Reason::Window, weight: 0, work: Work::default(), apart: false }
    }
}

impl Gate {
    /// A slot waits here; `flushed`: a flush has ended it.
    pub(crate) fn add<B>(&mut self, slot: &Slot<B>, flushed: bool) {
        let deadline = slot.deadline();
        self.deadline = Some(self.deadline.map_or(deadline, |first| first.min(deadline)));
        let ticket = slot.first_ticket;
        self.first_ticket = Some(self.first_ticket.map_or(ticket, |first| first.min(ticket)));
        self.follows |= slot.follows;
        self.sealed |= slot.sealed;
        self.flushed |= flushed;
    }

    /// The gate is looked at while it can open.
    pub(crate) fn look(&mut self, cause: Cause) {
        let Some(deadline) = self.deadline else { return };
        let front = Front { flushed: self.flushed, sealed: self.sealed, deadline };
        self.open = self.open.or_else(|| why_now(front, cause));
        self.held_until = cause.held_until;
    }

    /// When it is to be looked at again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.open.is_some() {
            return None;
        }
        let times = [self.deadline, self.held_until];
        times.into_iter().flatten().min()
    }

    /// A slot leaves; as the first of a commit, for a reason of its own.
    pub(crate) fn leave<B>(&mut self, slot: &Slot<B>, leads: Option<Reason>) {
        self.groups -= slot.groups;
        if let Some(reason) = leads {
            self.load = Load { reason, weight: slot.weight, work: slot.work, apart: slot.apart };
        }
    }

    /// Why a slot may leave in the same commit, if it may.
    pub(crate) fn admit<B>(
        &mut self,
        slot: &Slot<B>,
        max: Option<u64>,
        budgets: Option<Work>,
    ) -> Option<Reason> {
        let Load { reason, weight, work, apart } = &mut self.load;
        let (sum, sum_work) = (weight.saturating_add(slot.weight), work.and(slot.work));
        let fits = max.is_none_or(|max| sum <= max)
            && budgets.is_none_or(|budgets| sum_work.above(budgets).is_none());
        if *apart || slot.apart || !fits {
            return None;
        }
        (*weight, *work) = (sum, sum_work);
        Some(*reason)
    }

    /// All of it leaves.
    pub(crate) fn flush(&mut self, reason: Reason, is_busy: bool) {
        self.flushed = true;
        if !is_busy {
            self.open.get_or_insert(reason);
        }
    }

    /// Nothing is due any more: what is queued waits behind commits in flight, and comes here when these end.
    pub(crate) fn shut(&mut self) {
        let Gate { groups, load, .. } = std::mem::take(self);
        *self = Gate { groups, load, ..Gate::default() };
    }

    /// What is queued, behind a commit that has ended.
    pub(crate) fn queued(&self) -> Queued {
        Queued { groups: self.groups, first_ticket: self.first_ticket, follows: self.follows }
    }
}
