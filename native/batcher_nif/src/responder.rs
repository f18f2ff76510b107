//! Responders as processes of the BEAM, and the replies that they are given.
//!
//! Invariant: only callers with one reply of their batch to come are answered through a responder, so that none can
//! overtake another of its lane (8).

use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::beam::{Beam, Shard, Terms};
use crate::caller::Home;
use crate::measure;
use batcher_core::LaneId;
use batcher_shell::{Batch, Flight, Handover, Handovers, Sent, sync, sync::Mutex};
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::sync::Arc;

/// Below this many callers a responder is not worth waking.
const FEW: usize = 3;
/// How much of a time slice it takes at least to send what was handed over, woken processes included: a responder sends
/// several handovers before these run. Otherwise the last ones would wait for it until the committer has sent them, which
/// is to fight for the run queue of the responder's scheduler.
const HANDOVER_PERCENT: i32 = 10;

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

    /// Sends the replies of one handover. True: there are more. And copies of what only the process itself can send: it
    /// does when it has [passed](Self::pass) that.
    pub(crate) fn send_first<'a>(&self, env: Env<'a>) -> (bool, Vec<Term<'a>>) {
        let (mut proxied, started) = (Vec::new(), sync::now());
        let more = self.queue.send_first(|replies| replies.send(env, &mut proxied));
        if proxied.is_empty() {
            measure::consume(env, measure::percent_since(started).max(HANDOVER_PERCENT));
        }
        (more, proxied)
    }

    /// The process is about to send what it has got a copy of. False: others have.
    pub(crate) fn pass(&self) -> bool {
        self.queue.first().is_some_and(|first| first.lock().pass())
    }
}

/// Replies for callers of one scheduler, as messages that are ready to be sent.
#[derive(Default)]
pub(crate) struct Replies {
    messages: Vec<(LocalPid, Kept)>,
    /// The arena of all messages, and the messages that only a process can send, `{to, message}`.
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
        // The caller that has waited longest is sent its reply first.
        for (pid, message) in self.messages.drain(..) {
            // One that is no more need not know.
            let _ = self.terms.arena.send_copy(sender, pid, message);
        }
    }

    /// Sends what is left. What only the calling process can send is copied to `proxied`, and stays here until that is
    /// about to send it: see [`pass`](Self::pass).
    pub(crate) fn send<'a>(&mut self, sender: Env<'a>, proxied: &mut Vec<Term<'a>>) -> Sent {
        let was_empty = self.messages.is_empty();
        self.send_direct(Some(sender));
        *proxied = self.terms.copies(sender, usize::MAX);
        if !proxied.is_empty() {
            return Sent::AllButProxied;
        }
        self.terms.forget(usize::MAX);
        if was_empty { Sent::Nothing } else { Sent::All }
    }

    /// The calling process is about to send what it has got a copy of. False: others have.
    pub(crate) fn pass(&mut self) -> bool {
        self.terms.forget(usize::MAX)
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

/// A call of a committer that answers callers, of one part of its commit or of several. However it ends, the replies that
/// it does not send itself are left with the first part, to be sent before the commit ends.
pub(crate) struct Answerer<'b, 'a> {
    pub(crate) env: Env<'a>,
    pub(crate) shard: &'static Shard,
    /// The lane of the part whose callers are answered.
    pub(crate) lane: LaneId,
    /// The engine need not be told which callers are answered.
    is_known: &'b mut bool,
    /// Something was handed over.
    hands_over: &'b mut bool,
    first: &'b Batch<Beam>,
    /// Replies, by the schedulers of their callers.
    given: Vec<(Home, Given)>,
    handovers: Vec<Handover<Replies>>,
}

/// Replies and the responder that will be given them: without one, they are left for the end of the commit.
type Given = (Option<ResourceArc<Responder>>, Replies);

impl<'b, 'a> Answerer<'b, 'a> {
    /// `first`: the part that the commit begins with.
    pub(crate) fn new(
        env: Env<'a>,
        shard: &'static Shard,
        first: &'b Flight<Beam>,
        is_known: &'b mut bool,
        hands_over: &'b mut bool,
    ) -> Self {
        let Flight { lane, batch, .. } = first;
        let (given, handovers) = (Vec::new(), Vec::new());
        Answerer { env, shard, lane: *lane, is_known, hands_over, first: batch, given, handovers }
    }

    /// These are about to be answered.
    pub(crate) fn begin(&mut self, writers: impl Iterator<Item = u64>) {
        if !*self.is_known {
            *self.is_known = !self.shard.answering(self.lane, writers);
        }
    }

    /// True if this reply, to a caller at home there, will be sent by a responder.
    pub(crate) fn take(
        &mut self,
        home: Home,
        pid: LocalPid,
        tag: Term<'_>,
        reply: Term<'_>,
    ) -> bool {
        let here = Home::here();
        if home == here || home == Home::NOWHERE || here == Home::NOWHERE {
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
        build: impl for<'t> FnOnce(Env<'t>) -> Term<'t>,
    ) {
        self.at(home).1.terms.add(build);
    }

    fn at(&mut self, home: Home) -> &mut Given {
        let place = self.given.iter().position(|&(found, _)| found == home);
        let place = place.unwrap_or_else(|| {
            let lives = home != Home::NOWHERE;
            let responder = lives.then(|| self.shard.responder(self.env, home.index())).flatten();
            self.given.push((home, (responder, Replies::default())));
            self.given.len() - 1
        });
        &mut self.given[place].1
    }

    /// Gives each responder what is its. What comes after that is handed over apart.
    pub(crate) fn hand_over(&mut self) {
        for (_home, (responder, mut replies)) in self.given.drain(..) {
            let is_worth_it = replies.len() >= FEW;
            let responder = responder.filter(|given| is_worth_it && !given.queue.is_full());
            if responder.is_none() {
                replies.send_direct(Some(self.env));
            }
            if replies.len() == 0 {
                continue;
            }
            let handover = Arc::new(Mutex::new(replies));
            if let Some(responder) = responder
                && responder.queue.push(Arc::clone(&handover))
            {
                Arena::default().send(Some(self.env), responder.pid, |inside| {
                    (&responder, atoms::handover()).encode(inside.env())
                });
            }
            self.handovers.push(handover);
        }
    }

    fn end(&mut self) {
        self.hand_over();
        if !self.handovers.is_empty() {
            *self.hands_over = true;
            self.first.lock().answers.handovers.extend(self.handovers.drain(..));
        }
    }
}

impl Drop for Answerer<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic that got out of here would end the VM.
            drop(sync::catch(|| self.end()));
        } else {
            self.end();
        }
    }
}
