//! What is offered to a shard, and what becomes of it.

/// One call's writes, as far as the engine cares.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What it counts against the maximum of its lane (6.1).
    pub weight: u64,
    /// Its size in memory (6.5).
    pub bytes: u64,
}

/// An accepted group.
#[derive(Debug)]
pub struct Accepted<'a, B> {
    /// The group's number; they grow within a shard.
    pub ticket: u64,
    /// The slot that it joined: the driver puts the writes in here.
    pub contents: &'a mut B,
}

/// Why an offer was refused. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No batcher runs (10.1).
    NotRunning,
    /// It is being stopped (10.3).
    ShuttingDown,
    /// It holds as much as it may (6.5).
    Overloaded,
}

/// An empty group takes room too.
pub(crate) fn items(group: Group) -> u64 {
    group.weight.max(1)
}
