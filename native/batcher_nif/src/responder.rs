//! Responders as processes of the BEAM, and the replies that they are given.
//!
//! Invariant: only callers that wait for their own call are answered through a responder: each has one
//! reply to come, so that none can overtake another (8).

use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::beam::{Proxied, Shard};
use crate::home::Home;
use batcher_shell::{Handover, Handovers};
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::sync::Arc;

/// Below this many callers a responder is not worth waking.
const FEW: usize = 3;

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
        self.shard.responder_down(|responder| responder.pid == pid);
    }
}

impl Responder {
    /// The calling process as the responder of the scheduler that it runs on, unless there is one.
    pub(crate) fn join(env: Env<'_>, shard: &'static Shard) -> Option<ResourceArc<Responder>> {
        let pid = env.pid();
        let responder = ResourceArc::new(Responder { shard, pid, queue: Handovers::default() });
        responder.monitor(Some(env), &pid);
        shard.join_responder(Home::here().index(), responder.clone()).then_some(responder)
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
    arena: Arena,
    messages: Vec<(LocalPid, Kept)>,
    /// Those that only a process can send, `{to, message}`.
    proxied: Vec<Kept>,
}

impl Replies {
    pub(crate) fn len(&self) -> usize {
        self.messages.len() + self.proxied.len()
    }

    fn add(&mut self, pid: LocalPid, tag: Term<'_>, reply: Term<'_>) {
        let message = self.arena.build(|inside| {
            let env = inside.env();
            (tag.in_env(env), reply.in_env(env)).encode(env)
        });
        self.messages.push((pid, message));
    }

    /// `build` makes `{to, message}`.
    fn add_proxied(&mut self, build: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        self.proxied.push(self.arena.build(|inside| build(inside.env())));
    }

    /// Sends what the library can send. `sender` is the calling process, `None` on the thread of a timer.
    fn send_direct(&mut self, sender: Option<Env<'_>>) {
        // Who has waited longest is sent its reply first.
        for (pid, message) in self.messages.drain(..) {
            // One that is no more need not know.
            let _ = self.arena.send_copy(sender, pid, message);
        }
    }

    /// Sends what is left, but for what the calling process is to send at once, which is returned.
    pub(crate) fn send<'a>(&mut self, sender: Env<'a>) -> Vec<Term<'a>> {
        self.send_direct(Some(sender));
        let arena = &self.arena;
        let copy = |kept| arena.enter(|inside| inside.term(kept).in_env(sender));
        let proxied = self.proxied.drain(..).map(copy).collect();
        // The responder may look at it much later.
        self.arena.clear();
        proxied
    }

    /// Sends what is left, from the thread of a timer or where the calling process has failed. What only a process can
    /// send is copied to `proxied`.
    pub(crate) fn fail(&mut self, sender: Option<Env<'_>>, proxied: &mut Proxied) {
        self.send_direct(sender);
        let arena = &self.arena;
        let copy = |kept| arena.enter(|inside| proxied.arena.keep(inside.term(kept)));
        proxied.messages.extend(self.proxied.drain(..).map(copy));
        self.arena.clear();
    }
}

/// Replies and the responder that will be given them: without one, they are left for the end of the batch.
type Given = (Option<ResourceArc<Responder>>, Replies);

/// The replies of one call of a committer that are not its own to send.
pub(crate) struct Handed<'a> {
    env: Env<'a>,
    shard: &'static Shard,
    here: Home,
    found: Vec<(Home, Given)>,
}

impl<'a> Handed<'a> {
    /// None yet, for a committer that runs here.
    pub(crate) fn new(env: Env<'a>, shard: &'static Shard) -> Self {
        Handed { env, shard, here: Home::here(), found: Vec::new() }
    }

    /// True if this reply will be sent by a responder.
    pub(crate) fn take(
        &mut self,
        home: Home,
        pid: LocalPid,
        tag: Term<'_>,
        reply: Term<'_>,
    ) -> bool {
        if home == self.here || home == Home::NOWHERE || self.here == Home::NOWHERE {
            return false;
        }
        match self.at(home) {
            (Some(_responder), replies) => replies.add(pid, tag, reply),
            (None, _) => return false,
        }
        true
    }

    /// This reply, `{to, message}`, will be sent by a process.
    pub(crate) fn take_proxied(
        &mut self,
        home: Home,
        build: impl for<'b> FnOnce(Env<'b>) -> Term<'b>,
    ) {
        self.at(home).1.add_proxied(build);
    }

    fn at(&mut self, home: Home) -> &mut Given {
        let place = self.found.iter().position(|&(found, _)| found == home);
        let place = place.unwrap_or_else(|| {
            let lives = home != Home::NOWHERE;
            let responder = lives.then(|| self.shard.responder(self.env, home.index())).flatten();
            self.found.push((home, (responder, Replies::default())));
            self.found.len() - 1
        });
        &mut self.found[place].1
    }

    /// Gives each responder what is its, and answers the handovers that have to be sent before the batch ends.
    pub(crate) fn leave(mut self) -> Vec<Arc<Handover<Replies>>> {
        let mut handovers = Vec::new();
        for (_home, (responder, mut replies)) in self.found.drain(..) {
            let responder =
                responder.filter(|responder| replies.len() >= FEW && !responder.queue.is_full());
            if responder.is_none() {
                replies.send_direct(Some(self.env));
            }
            if replies.len() == 0 {
                continue;
            }
            let handover = Arc::new(Handover::new(replies));
            if let Some(responder) = responder
                && responder.queue.push(Arc::clone(&handover))
            {
                Arena::default().send(Some(self.env), responder.pid, |inside| {
                    (&responder, atoms::handover()).encode(inside.env())
                });
            }
            handovers.push(handover);
        }
        handovers
    }
}

impl Drop for Handed<'_> {
    /// Whoever is in here counts as answered: so it is, even if the call that has put it here fails.
    fn drop(&mut self) {
        let mut proxied = Proxied::default();
        for (_home, (_responder, replies)) in &mut self.found {
            replies.fail(Some(self.env), &mut proxied);
        }
        self.shard.proxy(Some(self.env), proxied);
    }
}
