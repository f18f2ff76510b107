//! A slot: groups that will be one commit.
//!
//! Invariant: `weight` is the sum of the weights of the groups, and never above the maximum of
//! the lane unless the slot holds a single group.

use crate::barrier::BarrierId;
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
    /// A flush.
    Flush,
    /// The shard is being stopped.
    Stop,
}

/// Queued writes that will be committed together. What each write changes comes first, on one
/// cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot<B> {
    /// What the slot counts against its maximum (6.1).
    pub weight: u64,
    /// How many groups (calls) it holds.
    pub groups: u64,
    /// Bytes, as the driver told them.
    pub(crate) bytes: u64,
    /// Items as 6.5 counts them: an empty group is one too.
    pub(crate) items: u64,
    /// What the driver keeps here: filled by it after each accepted offer.
    pub contents: B,
    /// Takes no more groups.
    pub(crate) sealed: bool,
    /// The window of the write that opened it.
    pub window: Duration,
    /// When it was opened.
    pub opened: Instant,
    /// Ticket of its first group.
    pub(crate) first_ticket: u64,
    /// Barriers that wait for this slot to be answered.
    pub(crate) barriers: Vec<BarrierId>,
}

impl<B> Slot<B> {
    pub(crate) fn open(now: Instant, window: Duration, first_ticket: u64, contents: B) -> Self {
        Slot {
            contents,
            weight: 0,
            groups: 0,
            window,
            opened: now,
            first_ticket,
            bytes: 0,
            items: 0,
            sealed: false,
            barriers: Vec::new(),
        }
    }

    /// When the window ends.
    pub(crate) fn deadline(&self) -> Instant {
        self.opened + self.window
    }
}
