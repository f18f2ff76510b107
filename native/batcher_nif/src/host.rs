//! The BEAM, as the shell is plugged into it.
//!
//! Invariant: nothing here is called under the lock of a shard but `seat`, `is_current`, `deliver`, which sends one
//! message, and `reply`, which builds one.

use crate::answers::Answers;
use crate::arena::{self, Arena, Kept};
use crate::atoms;
use crate::caller::Waiting;
use crate::committer::{self, Committer};
use crate::contents::Writes;
use crate::failure;
use crate::herald::Herald;
use crate::owner::OwnerWatch;
use crate::waiter::Waiter;
use batcher_shell::{Contents, Departure, Failure, Host, Seat};
use rustler::{Encoder, Env, LocalPid, ResourceArc};

pub(crate) enum Beam {}

pub(crate) type Shard = batcher_shell::Shard<Beam>;
pub(crate) type Event = batcher_shell::Event<Beam>;

impl Host for Beam {
    type Env<'a> = Env<'a>;
    type Pid = LocalPid;
    type Watch = ResourceArc<OwnerWatch>;
    type Committer = ResourceArc<Committer>;
    type Herald = ResourceArc<Herald>;
    type Writes = Writes;
    type Caller = Waiting;
    type Answers = Answers;
    type Waiter = Waiter;
    /// `[{to, message}]` in an arena.
    type Mail = (Arena, Kept);
    type Reply = (Arena, Kept);

    fn may_be_exiting(_sender: Env<'_>) -> bool {
        arena::on_dirty_scheduler()
    }

    fn is_current(committer: &ResourceArc<Committer>) -> bool {
        committer.is_current()
    }

    fn seat(committer: &ResourceArc<Committer>) -> &Seat<Self> {
        &committer.seat
    }

    fn messages(writes: &Writes) -> usize {
        writes.messages()
    }

    fn depart(departure: &Departure<Self>, writes: Writes, sender: Option<Env<'_>>) -> Writes {
        committer::depart(departure, writes, sender)
    }

    fn clear(answers: &mut Answers) {
        answers.clear();
    }

    fn tell(waiter: Waiter, sender: Option<Env<'_>>, failure: Option<&Failure>) {
        waiter.tell(sender, failure);
    }

    fn ask_for_committers(owner: LocalPid, sender: Option<Env<'_>>, count: usize) {
        Arena::default()
            .send(sender, owner, |inside| (atoms::spawn_committers(), count).encode(inside.env()));
    }

    fn ask_for_heralds(owner: LocalPid, sender: Env<'_>) {
        Arena::default()
            .send(Some(sender), owner, |inside| atoms::spawn_heralds().encode(inside.env()));
    }

    fn fail(
        batches: impl Iterator<Item = Contents<Self>>,
        failure: &Failure,
    ) -> Option<(Arena, Kept)> {
        let mut left = Arena::default();
        let mut proxied = Vec::new();
        for contents in batches {
            contents.lock().answers.fail(failure, &mut left, &mut proxied);
        }
        left.list_of_kept(&proxied)
    }

    fn tell_late(answers: &mut Answers, caller: Waiting) {
        answers.tell_late(caller);
    }

    fn take_over(
        committer: &ResourceArc<Committer>,
        sender: Option<Env<'_>>,
        reply: (Arena, Kept),
    ) {
        committer::tell(committer, sender, atoms::answer(), reply);
    }

    fn reply(failure: &Failure) -> (Arena, Kept) {
        let mut arena = Arena::default();
        let reply = arena.build(|inside| failure::term(inside.env(), failure));
        (arena, reply)
    }

    fn deliver(committer: &ResourceArc<Committer>, sender: Option<Env<'_>>, mail: (Arena, Kept)) {
        committer::tell(committer, sender, atoms::deliver(), mail);
    }

    fn dismiss(committer: &ResourceArc<Committer>) {
        committer::dismiss(committer);
    }

    fn tell_of_crash(owner: LocalPid, text: &str) {
        Arena::default()
            .send(None, owner, |inside| (atoms::batcher_crashed(), text).encode(inside.env()));
    }
}
