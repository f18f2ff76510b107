//! Responders as processes of the BEAM, and the replies that they are given.
//!
//! Invariant: only callers who have one reply of their batch to come are answered through a responder, so that none can
//! overtake another (8).

use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::beam::{Shard, Terms};
use crate::caller::Home;
use batcher_core::LaneId;
use batcher_shell::{Handover, Handovers, sync::Mutex};
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::sync::Arc;

/// Below this many callers a responder is not worth waking.
const FEW: usize = 3;

/// The committer that answers.
#[derive(Clone, Copy)]
pub(crate) struct Answerer<'a> {
    pub(crate) env: Env<'a>,
    pub(crate) shard: &'static Shard,
    /// The lane of its batch.
    pub(crate) lane: LaneId,
}

/// A process that is bound to a scheduler.
pub(crate) struct Responder {
    shard: &'static Shard,
    pid: LocalPid,
    queue: Handovers<Replies>,
}

#[rustler::resource_impl(name = "batcher_responder")]
impl Resource for Responder {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        self.shard.responders.leave(|responder| responder.pid == pid);
    }
}

impl Responder {
    /// The calling process as the responder of the scheduler that it runs on, unless there is one.
    pub(crate) fn join(env: Env<'_>, shard: &'static Shard) -> Option<ResourceArc<Responder>> {
        let pid = env.pid();
        let responder = ResourceArc::new(Responder { shard, pid, queue: Handovers::default() });
        responder.monitor(Some(env), &pid);
        shard.responders.join(Home::here().index(), responder.clone()).then_some(responder)
    }

    /// Sends the replies of one handover, but for those that the process itself is to send. True: there are more handovers.
    pub(crate) fn send_first<'a>(&self, env: Env<'a>) -> (bool, Vec<Term<'a>>) {
        let mut proxied = Vec::new();
        let more = self.queue.send_first(|replies| proxied = replies.send(env));
        (more, proxied)
    }
}

/// Replies for callers of one scheduler, as messages that are ready to be sent.
#[derive(Default)]
pub(crate) struct Replies {
    messages: Vec<(LocalPid, Kept)>,
    /// The arena of all messages, and those that only a process can send, `{to, message}`.
    terms: Terms,
}

impl Replies {
    pub(crate) fn len(&self) -> usize {
        self.messages.len() + self.terms.kept.len()
    }

    fn add(&mut self, pid: LocalPid, tag: Term<'_>, reply: Term<'_>) {
        let message = self.terms.arena.build(|inside| {
            let env = inside.env();
            (tag.in_env(env), reply.in_env(env)).encode(env)
        });
        self.messages.push((pid, message));
    }

    /// Sends what the library can send. `sender` is the calling process, `None` on the thread of a timer.
    fn send_direct(&mut self, sender: Option<Env<'_>>) {
        // Who has waited longest is sent its reply first.
        for (pid, message) in self.messages.drain(..) {
            // One that is no more need not know.
            let _ = self.terms.arena.send_copy(sender, pid, message);
        }
    }

    /// Sends what is left, but for what the calling process is to send at once, which is returned.
    pub(crate) fn send<'a>(&mut self, sender: Env<'a>) -> Vec<Term<'a>> {
        self.send_direct(Some(sender));
        let Terms { arena, kept } = &mut self.terms;
        let copy = |kept| arena.enter(|inside| inside.term(kept).in_env(sender));
        let proxied = kept.drain(..).map(copy).collect();
        // The responder may look at it much later.
        arena.clear();
        proxied
    }

    /// Sends what is left, from the thread of a timer. What only a process can send is copied to `proxied`.
    pub(crate) fn fail(&mut self, proxied: &mut Option<Terms>) {
        self.send_direct(None);
        for kept in self.terms.kept.drain(..) {
            self.terms.arena.enter(|inside| {
                proxied.get_or_insert_default().add(|env| inside.term(kept).in_env(env));
            });
        }
        self.terms.arena.clear();
    }
}

/// The replies of one call of a committer that it does not send at once, by the schedulers of their callers.
#[derive(Default)]
pub(crate) struct Handed(Vec<(Home, Given)>);

/// Replies and the responder that will be given them: without one, they are left for the end of the batch.
type Given = (Option<ResourceArc<Responder>>, Replies);

impl Handed {
    /// True if this reply, to a caller at home there, will be sent by a responder.
    pub(crate) fn take(
        &mut self,
        answerer: Answerer<'_>,
        home: Home,
        pid: LocalPid,
        tag: Term<'_>,
        reply: Term<'_>,
    ) -> bool {
        let here = Home::here();
        if home == here || home == Home::NOWHERE || here == Home::NOWHERE {
            return false;
        }
        match self.at(answerer, home) {
            (Some(_responder), replies) => replies.add(pid, tag, reply),
            (None, _) => return false,
        }
        true
    }

    /// This reply, `{to, message}`, will be sent by a process.
    pub(crate) fn take_proxied(
        &mut self,
        answerer: Answerer<'_>,
        home: Home,
        build: impl for<'b> FnOnce(Env<'b>) -> Term<'b>,
    ) {
        self.at(answerer, home).1.terms.add(build);
    }

    fn at(&mut self, answerer: Answerer<'_>, home: Home) -> &mut Given {
        let place = self.0.iter().position(|&(found, _)| found == home);
        let place = place.unwrap_or_else(|| {
            let Answerer { env, shard, .. } = answerer;
            let lives = home != Home::NOWHERE;
            let responder = lives.then(|| shard.responder(env, home.index())).flatten();
            self.0.push((home, (responder, Replies::default())));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives each responder what is its, and answers the handovers that have to be sent before the batch ends.
    /// `sender` is the calling committer; without one, nothing is given to responders.
    pub(crate) fn leave(
        &mut self,
        sender: Option<Env<'_>>,
    ) -> impl Iterator<Item = Handover<Replies>> {
        self.0.drain(..).filter_map(move |(_home, (responder, mut replies))| {
            let is_worth_it = sender.is_some() && replies.len() >= FEW;
            let responder = responder.filter(|given| is_worth_it && !given.queue.is_full());
            if responder.is_none() {
                replies.send_direct(sender);
            }
            if replies.len() == 0 {
                return None;
            }
            let handover = Arc::new(Mutex::new(replies));
            if let Some(responder) = responder
                && responder.queue.push(Arc::clone(&handover))
            {
                Arena::default().send(sender, responder.pid, |inside| {
                    (&responder, atoms::handover()).encode(inside.env())
                });
            }
            Some(handover)
        })
    }
}
