//! The BEAM, as the runtime is plugged into it.
//!
//! Invariant: nothing here is called under the lock of a shard.

use crate::answers::Answers;
use crate::arena::{self, Arena, Kept};
use crate::atoms;
use crate::beam::{Beam, Proxied};
use crate::caller::Waiting;
use crate::committer::{self, Committer};
use crate::owner::OwnerWatch;
use crate::responder::Responder;
use crate::waiter::Waiter;
use crate::writes::Writes;
use batcher_shell::{Failure, Notice, Vm};
use rustler::{Encoder, Env, LocalPid, ResourceArc};

impl Vm for Beam {
    type Env<'a> = Env<'a>;
    type Pid = LocalPid;
    type Watch = ResourceArc<OwnerWatch>;
    type Committer = ResourceArc<Committer>;
    type Responder = ResourceArc<Responder>;
    type Writes = Writes;
    type Caller = Waiting;
    type Answers = Answers;
    type Waiter = Waiter;
    type Proxied = Proxied;
    /// In an arena.
    type Reply = (Arena, Kept);

    fn may_be_exiting(_sender: Env<'_>) -> bool {
        arena::on_dirty_scheduler()
    }

    fn wake(committer: &ResourceArc<Committer>, sender: Option<Env<'_>>) {
        committer::wake(committer, sender);
    }

    fn tell(waiter: Waiter, sender: Option<Env<'_>>, failure: Option<&Failure>) {
        waiter.tell(sender, failure);
    }

    fn notify(owner: &LocalPid, sender: Option<Env<'_>>, notice: Notice<'_>) {
        Arena::default().send(sender, *owner, |inside| {
            let env = inside.env();
            match notice {
                Notice::Committers(count) => (atoms::spawn_committers(), count).encode(env),
                Notice::Responders => atoms::spawn_responders().encode(env),
                Notice::Crashed(text) => (atoms::batcher_crashed(), text).encode(env),
            }
        });
    }

    fn fail(answers: &mut Answers, failure: &Failure, proxied: &mut Vec<Proxied>) {
        answers.fail(failure, proxied);
    }

    fn tell_late(answers: &mut Answers, caller: Waiting) {
        answers.tell_late(caller);
    }

    fn clear(answers: &mut Answers) {
        answers.clear();
    }
}
