//! Who waits for a flush or a stop.

use crate::answers::Caller;
use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::failure;
use batcher_shell::Failure;
use rustler::{Encoder, Env, LocalPid};

/// A process of this node and its tag.
pub(crate) struct Waiter {
    pid: LocalPid,
    arena: Arena,
    tag: Kept,
}

impl Waiter {
    /// `None` for a caller that only a courier reaches.
    pub(crate) fn new(caller: Caller<'_>) -> Option<Self> {
        let (Caller::Own(pid, tag) | Caller::Direct(pid, tag)) = caller else { return None };
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
                Some(failure) => failure::term(env, failure),
            };
            // One that has died need not know.
            let _ = self.arena.reply(sender, self.pid, self.tag, result);
        });
    }
}
