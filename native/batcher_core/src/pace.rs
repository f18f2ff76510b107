//! When what gathers in a channel leaves. A *channel* is what commits one batch after the other: a lane, or with
//! [`CommitScope::Shard`](crate::CommitScope) all lanes of a shard together.
//!
//! There are two policies, of which a shard has one: by commits (`commit`), which with [`Pacing::Window`] makes nothing
//! leave, and learned (`auto`). A *commit* is named here by the lane of its first part.
//!
//! Invariant: the policy of the shard hears of each commit that begins, answers and ends, and of each write, but for
//! writes that join a slot which follows a commit anyway.

use crate::auto::{AutoPace, Backlog, Learned};
use crate::commit::CommitPace;
use crate::config::{Config, Pacing};
use crate::name::LaneId;
use std::time::Instant;

/// What the policies remember of one channel; the one that is not the shard's remembers nothing new.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    commit: CommitPace,
    auto: AutoPace,
}

/// A write that came to a channel.
pub(crate) struct Arrival {
    pub(crate) now: Instant,
    pub(crate) writer: u64,
    /// The first epoch of this life.
    pub(crate) life_from: u64,
    /// Nothing else is queued or in flight in the channel.
    pub(crate) is_first: bool,
    /// What waits, itself among it.
    pub(crate) waiting: Backlog,
}

/// What becomes of what has gathered, other reasons to leave aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It leaves now.
    Now,
    /// It is held until then: its window counts from when it could have left, and is in that.
    By(Instant),
    /// It sits its window out.
    Window,
}

impl Pace {
    /// A batch leaves that so many callers wait for.
    pub(crate) fn begin(&mut self, pacing: Pacing, callers: u64) {
        if pacing == Pacing::Auto {
            self.auto.begin(callers);
        }
    }

    /// Another part of the commit that has just begun, with more callers.
    pub(crate) fn join(&mut self, pacing: Pacing, callers: u64) {
        if pacing == Pacing::Auto {
            self.auto.join(callers);
        }
    }

    /// These callers of a commit are about to be answered; the next write to come gets this ticket.
    pub(crate) fn answering(
        &mut self,
        commit: LaneId,
        ticket: u64,
        writers: impl Iterator<Item = u64>,
    ) {
        self.commit.answering(commit, ticket, writers);
    }

    /// The same where pacing is learned, which does not ask for the writers.
    pub(crate) fn learn_of_answers(&mut self, now: Instant, learned: &mut Learned) {
        self.auto.answering(now, learned);
    }

    /// Whether callers of a commit in flight have been answered, so that a write has to be marked if it follows that
    /// commit. Learned pacing does not ask for the writer.
    pub(crate) fn is_answering(&self) -> bool {
        self.commit.is_answering()
    }

    /// A write has come: what becomes of the slot that it joined.
    pub(crate) fn arrive(
        &mut self,
        pacing: Pacing,
        arrival: &Arrival,
        learned: &mut Learned,
    ) -> Leave {
        let Arrival { now, writer, life_from, is_first, waiting } = *arrival;
        match pacing {
            Pacing::Auto => learned_leave(self.auto.arrive(now, is_first, waiting, learned)),
            Pacing::Commit | Pacing::Window if self.commit.returns(now, writer, life_from) => {
                Leave::Now
            }
            Pacing::Commit | Pacing::Window => Leave::Window,
        }
    }

    /// A commit has ended. `queue` is what has gathered meanwhile.
    pub(crate) fn end(
        &mut self,
        config: &Config,
        now: Instant,
        commit: CommitEnd,
        queue: Queued,
        learned: &mut Learned,
    ) -> Leave {
        let paces = config.pacing == Pacing::Commit;
        let lingers = (paces && commit.paced).then(|| (now + config.linger, commit.epoch));
        let answering_from = self.commit.end(commit.head, lingers);
        if config.pacing == Pacing::Auto {
            return learned_leave(self.auto.end(now, commit.left, queue.waiting, learned));
        }
        let came_before = |ticket| answering_from.is_none_or(|from| ticket < from);
        let follows = queue.follows || queue.first_ticket.is_some_and(came_before);
        if paces && follows { Leave::Now } else { Leave::Window }
    }

    /// A commit has ended that began in this channel, which is no longer the channel of its lane: another owner has
    /// another scope of commits.
    pub(crate) fn forget(&mut self, commit: LaneId) {
        self.commit.forget(commit);
    }
}

/// A commit that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitEnd {
    /// The lane of its first part.
    pub(crate) head: LaneId,
    /// The epoch of that part.
    pub(crate) epoch: u64,
    /// It had left because the one before it had ended.
    pub(crate) paced: bool,
    /// When it had left, if it is of this life.
    pub(crate) left: Option<Instant>,
}

/// What has gathered behind a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub(crate) waiting: Backlog,
    /// The ticket of the first that could leave now.
    pub(crate) first_ticket: Option<u64>,
    /// Some of it was written by callers that the commit had just answered, or with window 0: all of it leaves.
    pub(crate) follows: bool,
}

fn learned_leave(held_until: Option<Instant>) -> Leave {
    held_until.map_or(Leave::Now, Leave::By)
}
