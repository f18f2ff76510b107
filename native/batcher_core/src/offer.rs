//! What is offered to a shard, and what becomes of it.

use crate::name::LaneId;

/// One call's writes, as far as the engine cares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    /// What it counts against the maximum of its lane (6.1).
    pub cost: u64,
    /// Its size in memory (6.5).
    pub bytes: u64,
    /// The process that writes, as a number of the driver's choice: the one that
    /// [`handle_answering`](crate::Engine::handle_answering) names when it is answered (5.4).
    pub writer: u64,
    /// What it is to the state machine; nothing where groups are not measured.
    pub usage: Usage,
    /// Its process calls, and waits for the reply: it can commit the group itself, and may write again when it has been
    /// answered (5.6).
    pub waits: bool,
    /// It can't be in one commit with groups of other lanes, and so leaves by itself (4.4).
    pub apart: bool,
}

impl Group {
    /// What it counts against the most items of a shard: an empty one takes room too (6.5).
    pub fn items(&self) -> u64 {
        self.cost.max(1)
    }
}

/// What a group, a slot or a whole commit is to the state machine that applies it (16.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Commands, each member of a batch counted.
    pub command_items: u64,
    /// Members of compound values.
    pub compound_members: u64,
    /// Steps of the walk through nested commands.
    pub visits: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn and(self, other: Usage) -> Usage {
        Usage {
            command_items: self.command_items.saturating_add(other.command_items),
            compound_members: self.compound_members.saturating_add(other.compound_members),
            visits: self.visits.saturating_add(other.visits),
        }
    }

    /// Why it is too much for these budgets.
    pub(crate) fn above(self, budgets: Usage) -> Option<Refused> {
        if self.command_items > budgets.command_items {
            Some(Refused::CommandBudget)
        } else if self.compound_members > budgets.compound_members {
            Some(Refused::CompoundBudget)
        } else {
            (self.visits > budgets.visits).then_some(Refused::CommandBudget)
        }
    }
}

/// An accepted group.
#[derive(Debug)]
pub struct Accepted<'a, B> {
    /// The group's number; they grow within a shard.
    pub ticket: u64,
    /// The slot that it joined: the driver puts the writes in here.
    pub contents: &'a mut B,
    /// Its lane.
    pub lane: LaneId,
    /// The group is alone: its process commits it at once, and the driver names the lane when that has ended. It is in
    /// flight from here on, and nothing need be put in.
    pub is_alone: bool,
}

/// Why an offer was refused. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No batcher runs (10.1).
    NotRunning,
    /// It is being stopped (10.3).
    ShuttingDown,
    /// Something holds as much as it may.
    Overloaded(Bound),
    /// More command items or visits than one commit may be (16.3).
    CommandBudget,
    /// More members of compound values than one commit may be (16.3).
    CompoundBudget,
}

/// What holds as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The shard, in items (6.5).
    Items,
    /// The same in bytes.
    Bytes,
    /// All shards of the driver's together, in bytes: it says so, the engine does not.
    TotalBytes,
    /// The slot behind a commit, or any slot (16.3).
    Slot,
}

/// What takes room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Items as 6.5 counts them.
    pub items: u64,
    /// Bytes, as the driver told them.
    pub bytes: u64,
}
