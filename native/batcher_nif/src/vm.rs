//! The BEAM, as the runtime is plugged into it.
//!
//! Invariant: nothing here is called under the lock of a shard.

use crate::answers::Answers;
use crate::arena::{self, Arena, Kept};
use crate::atoms;
use crate::beam::{Beam, Terms};
use crate::committer::Committer;
use crate::owner::Owner;
use crate::responder::Responder;
use crate::watch::Watch;
use crate::writes::Writes;
use batcher_shell::{Alone, Expired, Failure, Notice, Vm};
use rustler::{Encoder, Env, LocalPid, ResourceArc, Term};
use std::time::Instant;

impl Vm for Beam {
    type Env<'a> = Env<'a>;
    type Owner = ResourceArc<Owner>;
    type Committer = ResourceArc<Committer>;
    type Waker = LocalPid;
    type Responder = ResourceArc<Responder>;
    type Writes = Writes;
    type Answers = Answers;
    type Waiter = Waiter;
    type Process = LocalPid;
    type Watch = ResourceArc<Watch>;
    type Terms = Terms;

    fn may_be_exiting(_sender: Env<'_>) -> bool {
        arena::on_dirty_scheduler()
    }

    fn process(sender: Env<'_>) -> LocalPid {
        sender.pid()
    }

    fn watch(
        sender: Option<Env<'_>>,
        process: LocalPid,
        index: u64,
        alone: Alone,
    ) -> Option<ResourceArc<Watch>> {
        Watch::new(sender, process, index, alone)
    }

    fn waker(committer: &ResourceArc<Committer>) -> LocalPid {
        committer.pid
    }

    /// Sends `:work`.
    fn wake(waker: LocalPid, sender: Option<Env<'_>>) {
        arena::send_atom(sender, waker, atoms::work());
    }

    /// Sends `{tag, :ok}`, or `{tag, {:error, reason}}` after a failure.
    fn tell(waiter: Waiter, sender: Option<Env<'_>>, failure: Option<&Failure>) {
        Arena::default().enter(|inside| {
            let env = inside.env();
            let ok = || atoms::ok().encode(env);
            let result = failure.map_or_else(ok, |failure| atoms::failure(env, failure));
            // One that has died need not know.
            let _ = waiter.arena.reply(sender, waiter.pid, waiter.tag, result);
        });
    }

    fn notify(owner: &ResourceArc<Owner>, sender: Option<Env<'_>>, notice: Notice<'_>) {
        Arena::default().send(sender, owner.pid, |inside| {
            let env = inside.env();
            match notice {
                Notice::Committers(count) => (atoms::spawn_committers(), count).encode(env),
                Notice::Responders => atoms::spawn_responders().encode(env),
                Notice::Crashed(text) => (atoms::batcher_crashed(), text).encode(env),
            }
        });
    }

    fn fail(answers: &mut Answers, failure: &Failure, proxied: &mut Option<Terms>) {
        answers.fail(failure, proxied);
    }

    fn expire(answers: &mut Answers, now: Instant, from: usize) -> Expired {
        answers.expire(now, from)
    }
}

/// A process of this node that waits for a flush or a stop, and its tag.
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
}
