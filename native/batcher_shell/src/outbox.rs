//! What is to be sent once the lock of a shard is free.

use crate::committer::Departure;
use crate::host::Host;
use crate::sync::Sender;
use crate::thread::Event;

/// Effects of a change, in the order in which they are sent.
pub struct Outbox<H: Host> {
    pub(crate) wake: bool,
    pub(crate) departures: Vec<Departure<H>>,
    /// Who answers the batch of a dead committer, and what.
    pub(crate) takeovers: Vec<(H::Committer, H::Reply)>,
    pub(crate) passed: Vec<H::Waiter>,
    /// The owner, and how many more committers are wanted of it.
    pub(crate) committers_wanted: Option<(H::Pid, usize)>,
}

impl<H: Host> Default for Outbox<H> {
    fn default() -> Self {
        Outbox {
            wake: false,
            departures: Vec::new(),
            takeovers: Vec::new(),
            passed: Vec::new(),
            committers_wanted: None,
        }
    }
}

impl<H: Host> Outbox<H> {
    pub(crate) fn is_empty(&self) -> bool {
        !self.wake
            && self.departures.is_empty()
            && self.takeovers.is_empty()
            && self.passed.is_empty()
            && self.committers_wanted.is_none()
    }

    /// Whether to send it takes too long for a scheduler.
    pub(crate) fn is_long(&self) -> bool {
        self.departures.iter().any(Departure::is_long)
    }

    /// `sender` is the calling process, `None` on the shard's own thread.
    pub(crate) fn send(self, sender: Option<H::Env<'_>>, events: &Sender<Event<H>>) {
        if self.wake {
            // The receiver lives as long as the shard.
            let _ = events.send(Event::Wake);
        }
        for departure in self.departures {
            departure.send(sender);
        }
        for (committer, reply) in self.takeovers {
            H::take_over(&committer, sender, reply);
        }
        for waiter in self.passed {
            H::tell(waiter, sender, None);
        }
        if let Some((owner, count)) = self.committers_wanted {
            H::ask_for_committers(owner, sender, count);
        }
    }
}
