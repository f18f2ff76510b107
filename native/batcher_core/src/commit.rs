//! Pacing by commits: what gathered behind one leaves when that ends, and so does what its callers write next (5.4).
//!
//! Invariant: only writes that were queued before a commit answered anybody, or that it made, follow it.

use crate::answered::Answered;
use crate::name::LaneId;
use std::time::Instant;

/// What is remembered of the last commits of a channel.
#[derive(Debug, Default)]
pub(crate) struct CommitPace {
    /// A commit in flight whose callers are being answered, by the lane of its first part, with the first ticket that
    /// came after that had begun.
    answering: Option<(LaneId, u64)>,
    /// More of these, where several commits of a channel may be in flight.
    answering_too: Vec<(LaneId, u64)>,
    /// The writers that these, or else the last commit, have answered, as long as that matters.
    answered: Answered,
    /// Until when their writes still leave because a commit has ended, and the epoch of that: in a later life they do not.
    lingers: Option<(Instant, u64)>,
}

impl CommitPace {
    /// The callers of a commit are about to be answered, these first.
    pub(crate) fn answering(
        &mut self,
        commit: LaneId,
        next_ticket: u64,
        writers: impl Iterator<Item = u64>,
    ) {
        if !self.is_answering() {
            self.answered.forget();
        }
        match self.answering {
            None => self.answering = Some((commit, next_ticket)),
            Some((first, _)) if first == commit => {}
            Some(_) if self.answering_too.iter().any(|&(other, _)| other == commit) => {}
            Some(_) => self.answering_too.push((commit, next_ticket)),
        }
        self.answered.add(writers);
    }

    /// Whether callers are being answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.answering.is_some()
    }

    /// Whether a write belongs to what a commit before it has begun: that has just answered its process. The life of the
    /// shard is that of epochs from `life_from` on.
    pub(crate) fn returns(&self, now: Instant, writer: u64, life_from: u64) -> bool {
        let lingers = self.lingers.is_some_and(|(until, epoch)| now < until && epoch >= life_from);
        (self.is_answering() || lingers) && self.answered.has(writer)
    }

    /// A commit has ended; the first ticket that came after it had begun to answer, if it had. `lingers`: so long
    /// writes of the processes that it has answered still leave at once, and its epoch.
    pub(crate) fn end(&mut self, commit: LaneId, lingers: Option<(Instant, u64)>) -> Option<u64> {
        let answering_from = self.forget(commit);
        self.lingers = lingers;
        if lingers.is_none() && !self.is_answering() {
            self.answered.forget();
        }
        answering_from
    }

    /// A commit has ended that no longer is one of this channel's.
    pub(crate) fn forget(&mut self, commit: LaneId) -> Option<u64> {
        let (first, from) = self.answering?;
        if first == commit {
            self.answering = self.answering_too.pop();
            return Some(from);
        }
        let place = self.answering_too.iter().position(|&(other, _)| other == commit)?;
        Some(self.answering_too.swap_remove(place).1)
    }
}
