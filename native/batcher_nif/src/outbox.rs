//! What is to be sent once the lock of a shard is free.

use crate::answers::Caller;
use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::committer::Departure;
use crate::failure::Failure;
use crate::thread::Event;
use crossbeam_channel::Sender;
use rustler::{Encoder, Env, LocalPid};

/// Who asked for a barrier: a process of this node and its tag.
pub(crate) struct Waiter {
    pid: LocalPid,
    arena: Arena,
    tag: Kept,
}

impl Waiter {
    /// `None` for a caller that only a courier reaches.
    pub(crate) fn new(caller: Caller<'_>) -> Option<Self> {
        let Caller::Direct(pid, tag) = caller else { return None };
        let mut arena = Arena::default();
        let tag = arena.keep(tag);
        Some(Waiter { pid, arena, tag })
    }

    /// Sends `{tag, :ok}`, or `{tag, {:error, reason}}` after a failure.
    pub(crate) fn tell(mut self, sender: Option<Env<'_>>, failure: Option<&Failure>) {
        Arena::default().enter(|inside| {
            let env = inside.env();
            let result = match failure {
                None => atoms::ok().encode(env),
                Some(failure) => failure.encode(env),
            };
            // One that has died need not know.
            let _ = self.arena.reply(sender, self.pid, self.tag, result);
        });
    }
}

/// Effects of a change, in the order in which they are sent.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) wake: bool,
    pub(crate) departures: Vec<Departure>,
    pub(crate) passed: Vec<Waiter>,
    /// The owner, and how many more committers are wanted of it.
    pub(crate) committers_wanted: Option<(LocalPid, usize)>,
}

impl Outbox {
    /// `sender` is the environment of the calling process, `None` on the shard's own thread.
    pub(crate) fn send(self, sender: Option<Env<'_>>, events: &Sender<Event>) {
        if self.wake {
            // The receiver lives as long as the VM.
            let _ = events.send(Event::Wake);
        }
        for departure in self.departures {
            departure.send(sender);
        }
        for waiter in self.passed {
            waiter.tell(sender, None);
        }
        if let Some((owner, count)) = self.committers_wanted {
            Arena::default().send(sender, owner, |inside| {
                (atoms::spawn_committers(), count).encode(inside.env())
            });
        }
    }
}
