//! What can be set for a shard.

use crate::name::LaneRef;
use crate::offer::{Bound, Group, Refused, Usage};
use std::time::Duration;

/// When the slot that gathered behind a commit leaves (5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// As soon as that commit ends: under load the commit itself is the window. Lowest latency.
    #[default]
    Commit,
    /// When the slot's own window has passed: fewer and larger commits, later replies.
    Window,
    /// When no write is expected any more that it would pay to wait for: that is learned, and the window is the longest
    /// that a write waits (5.6).
    Auto,
}

/// What one commit takes (4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitScope {
    /// What is due of one lane.
    #[default]
    Lane,
    /// What is due of all lanes of the shard: where a commit costs the same for one lane and for all.
    Shard,
}

/// What becomes of a group that does not fit the open slot of a lane whose commit is in flight (16.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It opens the next slot: the queue grows up to the limits of the shard.
    #[default]
    Queue,
    /// It is refused: a caller hears at once that the lane is behind.
    Refuse,
}

/// The limits and habits of one shard.
///
/// What is an option of the BEAM side has its text from the schema there (`mix batcher.options` writes it here):
/// no limit is `None`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Option `:namespace_batch_max`: most commands in one commit of a namespace lane. More share a
    /// sync among more writes and hold the log longer. `0` commits each write by itself,
    /// `:infinity` or `nil` has no limit.
    pub namespace_max: Option<u64>,
    /// Option `:hot_batch_max`: the same for the generic, the put and the delete lane, in items,
    /// and with `commit_scope: :shard` for a whole commit, in what its lanes count.
    pub hot_max: Option<u64>,
    /// Most usage that one commit may be to the state machine, where groups are measured. A group
    /// above it is refused, and so is one of a hot lane with more items than `hot_max`.
    pub budgets: Option<Usage>,
    /// Option `:overflow`: what becomes of a write that does not fit the full slot of a lane whose
    /// commit is in flight: `:queue`, it opens the next slot; `:refuse`, it gets an error at once.
    pub overflow: Overflow,
    /// Option `:pacing`: when writes that have gathered leave: `:commit`, as soon as the commit
    /// before them ends, or their window does; `:window`, when their own window has passed (fewer
    /// commits, later replies); `:auto`, as soon as it is not worth while to wait for more, which
    /// is learned: the window is the longest that they are held, and a call that is alone is
    /// committed by its own process, in which the backend then runs.
    pub pacing: Pacing,
    /// Option `:commit_scope`: what one commit takes: `:lane`, what is due of one lane; `:shard`,
    /// what is due of all lanes of the shard, at most `:hot_batch_max`. Where a commit costs the
    /// same for one lane and for all, as in a Raft group, that is less work; a result of a whole
    /// batch, such as an error, is that of all lanes in it.
    pub commit_scope: CommitScope,
    /// How long after a commit a lane goes on being paced by it, if that commit had been paced by
    /// the one before: a write of a process that it has answered leaves at once if it comes within
    /// this time. A caller that writes again and again is often just too late for the look that its
    /// committer takes, and would sit out a window that is many times longer than its commit.
    pub linger: Duration,
    /// Option `:max_in_flight`: most commits of the shard in flight at once, each by a process of
    /// its own. More hide the time that one takes, fewer let more writes gather. What else is due
    /// leaves in the order in which it became so.
    pub max_in_flight: usize,
    /// Option `:max_queue_items`: most items that the shard holds, queued and in flight; above it a
    /// write is refused at once with `{:error, :batcher_overloaded}`.
    pub max_items: u64,
    /// Option `:max_queue_bytes`: the same in bytes: commands with their binaries, prefixes, tags
    /// of callers.
    pub max_bytes: u64,
    /// Option `:adoption_timeout`: how long in ms queued writes wait for a new owner when theirs
    /// was killed; then they get `{:error, :batcher_down}` and were not committed.
    pub adoption_timeout: Duration,
}

impl Config {
    /// What a commit of this lane may count at most (6.1).
    pub(crate) fn max(&self, lane: LaneRef<'_>) -> Option<u64> {
        match lane {
            LaneRef::Prefix(_) | LaneRef::Long(_) => self.namespace_max,
            LaneRef::Generic | LaneRef::Put | LaneRef::Delete => self.hot_max,
        }
    }

    /// Whether a group, where it is measured, may be a commit at all (16.3).
    pub(crate) fn admit(&self, lane: LaneRef<'_>, group: Group) -> Result<(), Refused> {
        let Some(budgets) = self.budgets else { return Ok(()) };
        let is_hot = !matches!(lane, LaneRef::Prefix(_) | LaneRef::Long(_));
        if is_hot && self.hot_max.is_some_and(|max| group.cost > max) {
            return Err(Refused::Overloaded(Bound::Slot));
        }
        group.usage.above(budgets).map_or(Ok(()), Err)
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            namespace_max: Some(10_000),
            hot_max: Some(10_000),
            budgets: None,
            overflow: Overflow::Queue,
            pacing: Pacing::Commit,
            commit_scope: CommitScope::Lane,
            linger: Duration::from_micros(100),
            max_in_flight: 256,
            max_items: 1_000_000,
            max_bytes: 1 << 30,
            adoption_timeout: Duration::from_secs(5),
        }
    }
}
