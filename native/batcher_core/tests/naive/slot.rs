//! A slot as the model sees it.
//!
//! Invariant: what it holds never changes but for groups that are added at its end.

use batcher_core::{Group, Reason};
use std::time::Duration;

/// Where a slot is. A slot goes down this list and never up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Queued,
    InFlight,
    /// Nobody will commit it; its callers have not been told yet.
    Abandoned,
    /// Its callers have been answered.
    Answered,
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) lane: usize,
    pub(crate) groups: Vec<(u64, Group)>,
    pub(crate) opened: Duration,
    pub(crate) window: Duration,
    pub(crate) place: Place,
    /// Takes no more groups.
    pub(super) shut: bool,
    /// It reached its maximum, or somebody did not fit.
    pub(super) full: bool,
    /// A flush came after it was opened.
    pub(super) flushed: bool,
    /// It left because a commit had ended, and for no better reason.
    pub(super) paced: bool,
    /// It holds a write that belongs to the commit in flight, whose callers were being answered.
    pub(super) follows: bool,
    /// Its callers are being answered.
    pub(super) answering: bool,
    /// The first slot of its commit, once it has left.
    pub(super) head: usize,
    /// When it left, by input.
    pub(super) left: u64,
    pub(super) due: Option<Due>,
}

/// A slot that is to leave as soon as somebody can commit it.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// Who is due first leaves first: by input, then by deadline. Equals may leave in any order.
    pub(super) since: (u64, Duration),
    /// Each of these explains why.
    pub(super) reasons: Vec<Reason>,
}

impl Slot {
    pub(super) fn new(lane: usize, opened: Duration, window: Duration) -> Self {
        Slot {
            lane,
            groups: Vec::new(),
            opened,
            window,
            place: Place::Queued,
            shut: false,
            full: false,
            flushed: false,
            paced: false,
            follows: false,
            answering: false,
            head: usize::MAX,
            left: 0,
            due: None,
        }
    }

    pub(super) fn is_apart(&self) -> bool {
        self.groups.iter().any(|(_, group)| group.apart)
    }

    pub(crate) fn tickets(&self) -> Vec<u64> {
        self.groups.iter().map(|&(ticket, _)| ticket).collect()
    }

    pub(crate) fn cost(&self) -> u64 {
        self.groups.iter().map(|(_, group)| group.cost).sum()
    }

    pub(super) fn deadline(&self) -> Duration {
        self.opened + self.window
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.place, Place::Queued | Place::InFlight)
    }
}
