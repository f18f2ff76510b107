//! The processes that the last commit of a lane has answered.
//!
//! Invariant: it knows no process that was not answered; of very many it may know only some.

use foldhash::fast::RandomState;
use std::collections::HashSet;

/// So many are remembered: one of them is enough for what gathers behind a commit to leave.
const REMEMBERED: usize = 10_000;
/// Memory for so many is kept for the next commit.
const KEPT: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Answered(HashSet<u64, RandomState>);

impl Answered {
    pub(crate) fn add(&mut self, writers: impl Iterator<Item = u64>) {
        let room = REMEMBERED.saturating_sub(self.0.len());
        self.0.extend(writers.take(room));
    }

    pub(crate) fn has(&self, writer: u64) -> bool {
        self.0.contains(&writer)
    }

    pub(crate) fn forget(&mut self) {
        // Mostly nobody is left: asked for before each commit, and behind it.
        if !self.0.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(KEPT);
    }
}
