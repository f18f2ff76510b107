//! Pacing by commits: what gathered behind one leaves when that ends, and so does what its callers write next (5.4).
//!
//! Invariant: only writes that were queued before a commit answered anybody, or that it made, follow it.

use crate::answered::Answered;
use std::time::Instant;

/// What is remembered of the last commit of a channel.
#[derive(Debug, Default)]
pub(crate) struct CommitPace {
    /// What is in flight left because the commit before it had ended.
    paced: bool,
    /// While the callers of what is in flight are being answered: the first ticket that came after that had begun.
    answering_from: Option<u64>,
    /// Whom the last commit has answered, as long as that matters.
    answered: Answered,
    /// Until when their writes still leave because a commit has ended.
    lingers_until: Option<Instant>,
}

impl CommitPace {
    /// A batch leaves; `paced`: because a commit has ended.
    pub(crate) fn begin(&mut self, paced: bool) {
        self.paced = paced;
    }

    /// Its callers are about to be answered, these first.
    pub(crate) fn answering(&mut self, next_ticket: u64, writers: impl Iterator<Item = u64>) {
        if self.answering_from.is_none() {
            self.answering_from = Some(next_ticket);
            self.answered.forget();
        }
        self.answered.add(writers);
    }

    /// Whether callers are being answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.answering_from.is_some()
    }

    /// Whether a write belongs to what the commit before it has begun: that has just answered its process.
    pub(crate) fn returns(&self, now: Instant, writer: u64) -> bool {
        let lingers = self.lingers_until.is_some_and(|until| now < until);
        (self.is_answering() || lingers) && self.answered.has(writer)
    }

    /// The commit has ended. A channel that commits have paced goes on being so until the given time.
    pub(crate) fn end(&mut self, lingers_until: Option<Instant>) {
        self.lingers_until = lingers_until.filter(|_| self.paced);
        self.answering_from = None;
        if self.lingers_until.is_none() {
            self.answered.forget();
        }
    }

    /// Whether what was queued with this ticket leaves when the commit ends: it was queued before that had answered
    /// anybody.
    pub(crate) fn came_before_answers(&self, ticket: u64) -> bool {
        self.answering_from.is_none_or(|from| ticket < from)
    }
}
