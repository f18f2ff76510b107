//! The process that waits for a flush or a stop.

use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::failure;
use batcher_shell::Failure;
use rustler::{Encoder, Env, LocalPid, Term};

/// A process of this node and its tag.
pub(crate) struct Waiter {
    pid: LocalPid,
    arena: Arena,
    tag: Kept,
}

impl Waiter {
    pub(crate) fn new(pid: LocalPid, tag: Term<'_>) -> Self {
        let mut arena = Arena::default();
        let tag = arena.keep(tag);
        Waiter { pid, arena, tag }
    }

    /// Sends `{tag, :ok}`, or `{tag, {:error, reason}}` after a failure.
    pub(crate) fn tell(self, sender: Option<Env<'_>>, failure: Option<&Failure>) {
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
