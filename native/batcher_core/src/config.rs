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
    /// When nobody is expected any more whom it would pay to wait for: that is learned, and the window is the longest
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
#[derive(Clone, Debug)]
pub struct Config {
    /// Most commands in one commit of a namespace lane. Larger batches share a sync among more
    /// writes and hold the log longer; `Some(0)` commits each write alone, `None` has no limit.
    pub namespace_max: Option<u64>,
    /// The same for the generic, the put and the delete lane, in items.
    pub hot_max: Option<u64>,
    /// Most usage that one commit may be to the state machine, where groups are measured. A group
    /// above it is refused, and so is one of a hot lane with more items than `hot_max`.
    pub budgets: Option<Usage>,
    /// What becomes of a group that does not fit.
    pub overflow: Overflow,
    /// When a slot behind a commit leaves.
    pub pacing: Pacing,
    /// What one commit takes.
    pub commit_scope: CommitScope,
    /// How long after a commit a lane goes on being paced by it, if that commit had been paced by
    /// the one before: a write of a process that it has answered leaves at once if it comes within
    /// this time. A caller that writes again and again is often just too late for the look that its
    /// committer takes, and would sit out a window that is many times longer than its commit.
    pub linger: Duration,
    /// Most commits in flight at once, each with lanes of its own, those of closed lives aside (4.2).
    /// More hide the time that one takes; fewer leave more writes to gather. 0 commits nothing.
    pub max_in_flight: usize,
    /// Most items that the shard holds, queued and in flight (6.5). Bounds memory and the time
    /// that a new write can wait; what comes above is refused at once.
    pub max_items: u64,
    /// The same in bytes.
    pub max_bytes: u64,
    /// How long queued writes wait for a new owner when theirs has died (10.4).
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
        if is_hot && self.hot_max.is_some_and(|max| group.weight > max) {
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
            max_in_flight: 128,
            max_items: 1_000_000,
            max_bytes: 1 << 30,
            adoption_timeout: Duration::from_secs(5),
        }
    }
}
