//! What has happened to a shard, counted.
//!
//! Invariant: all of them are counted under the lock of the shard, which a thread that counts mostly has for other
//! reasons already.

use batcher_core::{Bound, LaneKind, Reason, Refused, Tally};

/// How the label of a lane is named, in the order of [`LaneKind`].
pub(crate) const LANES: [&str; 4] = ["namespace", "batch", "put_batch", "delete_batch"];

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// The shard holds as many items as it may.
    Items,
    /// It holds as many bytes.
    Bytes,
    /// All shards together do.
    TotalBytes,
    /// It does not fit the slot behind a commit, or any.
    Overflow,
    /// It is more work than one commit may be, or the host's measuring says no.
    Budget,
    /// The batcher is being stopped.
    ShuttingDown,
    /// It is not what can be written.
    Invalid,
}

/// Their names, in the same order.
const CAUSES: [&str; 7] =
    ["items", "bytes", "total_bytes", "overflow", "budget", "shutting_down", "invalid"];

impl RefusedBy {
    /// `None` where no batcher runs: such a write is committed directly.
    fn of(refused: Refused) -> Option<RefusedBy> {
        Some(match refused {
            Refused::NotRunning => return None,
            Refused::ShuttingDown => RefusedBy::ShuttingDown,
            Refused::Overloaded(Bound::Items) => RefusedBy::Items,
            Refused::Overloaded(Bound::Bytes) => RefusedBy::Bytes,
            Refused::Overloaded(Bound::TotalBytes) => RefusedBy::TotalBytes,
            Refused::Overloaded(Bound::Slot) => RefusedBy::Overflow,
            Refused::CommandBudget | Refused::CompoundBudget => RefusedBy::Budget,
        })
    }
}

/// The names of the reasons for which commits leave.
const REASONS: [&str; 7] = ["window", "size", "commit", "immediate", "alone", "flush", "stop"];

/// The place of a reason among these.
fn place(reason: Reason) -> usize {
    match reason {
        Reason::Window => 0,
        Reason::Size => 1,
        Reason::Commit => 2,
        Reason::Immediate => 3,
        Reason::Alone => ALONE,
        Reason::Flush => 5,
        Reason::Stop => 6,
    }
}

const ALONE: usize = 4;

/// What became of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Each write has its reply.
    Ok,
    /// The backend has said something else.
    Error,
    /// It has given another number of replies.
    Mismatch,
    /// It exited, raised or threw, or its process was killed.
    #[default]
    Exit,
}

/// Their names, in the same order.
const VERDICTS: [&str; 4] = ["ok", "error", "mismatch", "exit"];

/// All counts of a shard.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    left: [Tally; LANES.len()],
    refused: [u64; CAUSES.len()],
    /// The same counts when they were told of last. Those that are forgotten meanwhile are below these, and wrap.
    told: [u64; CAUSES.len()],
    commits: [[u64; VERDICTS.len()]; REASONS.len()],
    pub(crate) late_replies: u64,
    pub(crate) timeouts: u64,
    pub(crate) abandoned_writes: u64,
    pub(crate) adoptions: u64,
    pub(crate) committer_deaths: u64,
    pub(crate) panics: u64,
    /// Counted without the lock, and added when all are read.
    pub(crate) direct_commits: u64,
}

impl Counts {
    /// Writes of a lane leave to be committed. They are not counted as they come: that would take one more cache line
    /// from another core with each of them.
    pub(crate) fn leave(&mut self, lane: LaneKind, writes: Tally) {
        let left = &mut self.left[lane as usize];
        *left = left.plus(writes);
    }

    /// A write was refused.
    pub(crate) fn refuse(&mut self, refused: Refused) {
        if let Some(cause) = RefusedBy::of(refused) {
            self.refuse_for(cause);
        }
    }

    /// The same for a cause that the engine does not know.
    pub(crate) fn refuse_for(&mut self, cause: RefusedBy) {
        self.refused[cause as usize] += 1;
    }

    /// A commit has ended.
    pub(crate) fn commit(&mut self, reason: Reason, verdict: Verdict) {
        self.commits[place(reason)][verdict as usize] += 1;
    }

    pub(crate) fn by_lane(
        &self,
        count: impl Fn(&Tally) -> u64,
    ) -> impl Iterator<Item = (&'static str, u64)> {
        LANES.into_iter().zip(self.left.map(|left| count(&left)))
    }

    /// Refused writes by cause.
    pub fn by_cause(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CAUSES.into_iter().zip(self.refused)
    }

    /// Writes by cause that were refused since this was called last.
    pub(crate) fn take_untold(&mut self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let told = std::mem::replace(&mut self.told, self.refused);
        let untold = self.refused.into_iter().zip(told);
        CAUSES.into_iter().zip(untold.map(|(refused, told)| refused.wrapping_sub(told)))
    }

    /// All of them are 0 again. What was refused and not told of yet stays to be told of.
    pub(crate) fn forget(&mut self) {
        let mut told = self.told;
        for (told, refused) in told.iter_mut().zip(self.refused) {
            *told = told.wrapping_sub(refused);
        }
        *self = Counts { told, ..Counts::default() };
    }

    pub(crate) fn by_commit(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let rows = REASONS.into_iter().zip(self.commits);
        rows.flat_map(|(reason, row)| {
            VERDICTS.into_iter().zip(row).map(move |(verdict, count)| (reason, verdict, count))
        })
    }

    pub(crate) fn alone(&self) -> u64 {
        self.commits[ALONE].iter().sum()
    }
}
