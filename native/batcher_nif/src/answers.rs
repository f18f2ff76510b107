//! The callers of one batch and what each is told.
//!
//! Invariant: whoever is passed by the cursor is answered right then, under the same lock, or put into a
//! handover, unless it had given up; those that the committing process is to answer are claimed, so that they can't give
//! up any more, and passed when it is about to. Nobody is answered before the engine knows that it will be. Locks are
//! taken in this order: contents of a batch in flight, responders or state of the shard, contents of a queued slot; those
//! of handovers, queues of responders last.

use crate::arena::{Arena, Kept};
use crate::beam::{Beam, Proxied, Shard};
use crate::caller::{Caller, Route, Waiting};
use crate::failure;
use crate::measure::{self, SHORT};
use crate::responder::{Handed, Replies};
use batcher_core::{LaneId, LaneKey};
use batcher_shell::{Batch, Callers, Failure, Finished, Handover};
use foldhash::fast::RandomState;
use rustler::{Encoder, Env, NifResult, Term};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// How many callers are answered in one call from the BEAM, and how much of a time slice that takes,
/// woken processes included: some 200 us.
const CHUNK: usize = 128;
pub(crate) const CHUNK_PERCENT: i32 = 40;
/// Of a slice of more replies one copy is saved by sending it from here.
const WORTH_A_HANDOVER: u64 = 32;
/// So many callers are compared with each other.
const COMPARED: usize = 10_000;

/// The callers of one batch, in queue order. What each write changes comes first.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Answers {
    tags: Tags,
    callers: Callers<Waiting>,
    /// Some caller does not wait for its own call, and may have more than one reply to come.
    others: bool,
    /// Some caller has: all are sent in queue order (8). Known once the first is to be answered.
    ordered: bool,
    /// Replies that responders have been given.
    handovers: Vec<Arc<Handover<Replies>>>,
}

/// The tags of the callers.
#[derive(Default)]
struct Tags {
    small: Arena,
    /// Those that take long to copy, each in an arena of its own.
    large: Vec<Arena>,
}

impl Tags {
    fn add(&mut self, (arena, tag): (Arena, Kept)) -> Kept {
        self.large.push(arena);
        tag
    }

    /// The arena that holds this one.
    fn of(&self, tag: Kept) -> &Arena {
        let others = || self.large.iter().find(|arena| arena.holds(tag));
        if self.small.holds(tag) { &self.small } else { others().unwrap_or(&self.small) }
    }
}

impl AsMut<Callers<Waiting>> for Answers {
    fn as_mut(&mut self) -> &mut Callers<Waiting> {
        &mut self.callers
    }
}

/// How far a call to answer came.
pub(crate) enum Progress<'a> {
    Done,
    /// Done, but for what responders still send: see [`Answers::finish`].
    HandedOver,
    /// Call again, with the rest of the replies. This took so much of the time slice, in percent.
    More(Term<'a>, i32),
    /// The next caller's reply or tag is too large for a scheduler: send it with [`answer_large`].
    Large(Term<'a>),
}

/// The committer that answers.
#[derive(Clone, Copy)]
pub(crate) struct Answerer<'a> {
    pub(crate) env: Env<'a>,
    pub(crate) shard: &'static Shard,
    /// The lane of its batch.
    pub(crate) lane: LaneId,
}

/// What the calling process has to send, `{to, message}` each. Their callers are claimed, and come to be
/// [passed](Answers::pass) when it is about to do so.
#[derive(Default)]
pub(crate) struct OwnMessages<'a> {
    pub(crate) messages: Vec<Term<'a>>,
    /// The process may be suspended by the last one, and then be killed: nothing may be left to send behind that.
    is_full: bool,
}

impl Answers {
    pub(crate) fn add(
        &mut self,
        caller: Caller<'_>,
        tag: Option<(Arena, Kept)>,
        until: Option<Instant>,
        replies: u64,
        bare: bool,
    ) {
        self.others |= !caller.is_own;
        let copied = tag.map(|tag| self.tags.add(tag));
        self.callers.add(caller.keep(&mut self.tags.small, copied, replies, bare), until);
    }

    /// No callers any more.
    pub(crate) fn clear(&mut self) {
        self.tags.small.clear();
        self.tags.large.clear();
        self.callers.clear();
        self.handovers.clear();
        (self.others, self.ordered) = (false, false);
    }

    /// Sends `{tag}`: no reply will come. Only a process that waits for its own reference gives up.
    pub(crate) fn tell_late(&mut self, caller: Waiting) {
        let Route::Direct(pid) = caller.route else { return };
        self.tags.of(caller.tag).enter(|tags| {
            Arena::default().send(None, pid, |inside| {
                let env = inside.env();
                (tags.term(caller.tag).in_env(env),).encode(env)
            });
        });
    }

    /// The next callers get their slices of `replies`, which must be as many as all callers that
    /// are left need together.
    pub(crate) fn slices<'a>(
        &mut self,
        answerer: Answerer<'a>,
        mut replies: Term<'a>,
        own: &mut OwnMessages<'a>,
    ) -> NifResult<Progress<'a>> {
        let mut handed = self.begin(answerer);
        let mut words = SHORT;
        for passed in 0..CHUNK {
            let Some(caller) = self.next(own) else { break };
            let fits = |item| measure::item_within(item, &mut words).is_some();
            let slice = match caller.is_large {
                false => caller.slice(answerer.env, replies, fits)?,
                true => None,
            };
            match slice {
                Some((reply, rest)) => {
                    self.answer_next(answerer.env, caller, reply, &mut handed, own);
                    replies = rest;
                }
                None if passed == 0 => return Ok(Progress::Large(replies)),
                None => break,
            }
        }
        self.handovers.extend(handed.leave());
        Ok(self.progress(replies, SHORT - words))
    }

    /// The next callers get this very term.
    pub(crate) fn each<'a>(
        &mut self,
        answerer: Answerer<'a>,
        reply: Term<'a>,
        own: &mut OwnMessages<'a>,
    ) -> Progress<'a> {
        let mut words = SHORT;
        if measure::bytes_within(reply, &mut words).is_none() {
            return Progress::Large(reply);
        }
        let mut handed = self.begin(answerer);
        let each = SHORT - words;
        // So many that they get no more than that together.
        let callers = usize::try_from(SHORT / each.max(1)).map_or(CHUNK, |fit| fit.min(CHUNK));
        for passed in 0..callers {
            let Some(caller) = self.next(own) else { break };
            match caller.is_large {
                true if passed == 0 => return Progress::Large(reply),
                true => break,
                false => {}
            }
            self.answer_next(answerer.env, caller, reply, &mut handed, own);
        }
        self.handovers.extend(handed.leave());
        self.progress(reply, each * callers as u64)
    }

    /// The calling process answers those that are claimed now.
    pub(crate) fn pass(&mut self) {
        for _ in 0..self.callers.claimed() {
            self.callers.pass();
        }
    }

    /// The next caller gets a reply that was copied, unless the calling process is being killed.
    fn pass_on(&mut self, sender: Env<'_>, mut arena: Arena, copy: Kept) {
        let Some((&Waiting { route: Route::Direct(pid), tag, .. }, true)) = self.callers.pass()
        else {
            return;
        };
        let tag = self.tags.of(tag).enter(|inside| arena.keep(inside.term(tag)));
        let sent = arena.send(Some(sender), pid, |inside| {
            (inside.term(tag), inside.term(copy)).encode(inside.env())
        });
        if !sent && pid.is_alive(sender) {
            self.callers.take_back();
        }
    }

    /// All callers that are left are told of a failure, from the thread of a timer. What only a process can send is
    /// added to `proxied`.
    pub(crate) fn fail(&mut self, failure: &Failure, proxied: &mut Proxied) {
        for handover in self.handovers.drain(..) {
            handover.send(|replies| replies.fail(None, proxied));
        }
        let left = &mut proxied.arena;
        let reply = left.build(|inside| failure::term(inside.env(), failure));
        while let Some((caller, waits)) = self.callers.pass() {
            if !waits {
                continue;
            }
            let tags = self.tags.of(caller.tag);
            match caller.route {
                Route::Direct(pid) => {
                    left.enter(|inside| tags.reply(None, pid, caller.tag, inside.term(reply)));
                }
                Route::Alias { .. } | Route::Other { .. } => {
                    proxied.messages.push(
                        left.build(|inside| caller.message(tags, inside.env(), inside.term(reply))),
                    );
                }
            }
        }
    }

    /// What the writes of these callers count against the maximum of their lane (6.1).
    pub(crate) fn weight(&self, lane: &LaneKey) -> u64 {
        match lane {
            LaneKey::Prefix(_) => self.callers.all().len() as u64,
            LaneKey::Generic | LaneKey::Put | LaneKey::Delete => {
                self.callers.all().map(|caller| caller.replies).sum()
            }
        }
    }

    /// The `from`s in queue order, for a look from outside.
    pub(crate) fn froms<'a>(&self, env: Env<'a>) -> Vec<Term<'a>> {
        self.callers.all().map(|caller| caller.from(self.tags.of(caller.tag), env)).collect()
    }

    /// A chunk begins: the engine hears whom it may answer, before they can.
    fn begin<'a>(&mut self, answerer: Answerer<'a>) -> Handed<'a> {
        self.callers.unclaim();
        if self.others && self.callers.left().len() == self.callers.all().len() {
            self.ordered = !self.are_different();
        }
        let next = self.callers.left().take(CHUNK);
        answerer.shard.answering(answerer.lane, next.map(Waiting::writer));
        Handed::new(answerer.env, answerer.shard)
    }

    /// Whether each caller has one reply to come, for as many as can be compared in a fraction of a millisecond.
    fn are_different(&self) -> bool {
        let mut callers = self.callers.all();
        if callers.len() > COMPARED {
            return false;
        }
        let mut seen = HashSet::with_capacity_and_hasher(callers.len(), RandomState::default());
        callers.all(|caller| caller.is_known() && seen.insert(caller.writer()))
    }

    /// The caller behind those that the process is to answer.
    fn next(&self, own: &OwnMessages<'_>) -> Option<Waiting> {
        let next = self.callers.left().nth(self.callers.claimed()).copied();
        next.filter(|_| !own.is_full)
    }

    /// After a chunk of replies of so many words.
    fn progress<'a>(&self, rest: Term<'a>, words: u64) -> Progress<'a> {
        match self.callers.left().len() - self.callers.claimed() {
            0 if self.handovers.is_empty() => Progress::Done,
            0 => Progress::HandedOver,
            _ => Progress::More(rest, CHUNK_PERCENT + measure::percent(words)),
        }
    }

    /// Sends what responders have not sent by now, but for what the calling process is to send at once.
    pub(crate) fn finish<'a>(&mut self, sender: Env<'a>) -> (Finished, Vec<Term<'a>>) {
        let proxied = RefCell::new(Vec::new());
        let finished = batcher_shell::finish(&mut self.handovers, |replies| {
            let sent = replies.len();
            proxied.borrow_mut().extend(replies.send(sender));
            sent
        });
        (finished, proxied.into_inner())
    }

    fn answer_next<'a>(
        &mut self,
        sender: Env<'a>,
        caller: Waiting,
        reply: Term<'a>,
        handed: &mut Handed<'a>,
        own: &mut OwnMessages<'a>,
    ) {
        match caller.route {
            // What is sent from here would overtake what the process sends later (8).
            Route::Direct(pid) if self.callers.claimed() == 0 => {
                let Some((_, true)) = self.callers.pass() else { return };
                let handed_over = !self.ordered
                    && caller.replies <= WORTH_A_HANDOVER
                    && self.tags.of(caller.tag).enter(|inside| {
                        handed.take(caller.home, pid, inside.term(caller.tag), reply)
                    });
                if !handed_over {
                    // One that is no more need not know.
                    let _ = self.tags.of(caller.tag).reply(Some(sender), pid, caller.tag, reply);
                }
            }
            Route::Alias { .. }
                if !self.ordered
                    && self.callers.claimed() == 0
                    && caller.replies <= WORTH_A_HANDOVER =>
            {
                self.callers.pass();
                let tags = self.tags.of(caller.tag);
                handed
                    .take_proxied(caller.home, |env| caller.message(tags, env, reply.in_env(env)));
            }
            _ => self.leave_to_process(sender, caller, reply, own),
        }
    }

    fn leave_to_process<'a>(
        &mut self,
        sender: Env<'a>,
        caller: Waiting,
        reply: Term<'a>,
        own: &mut OwnMessages<'a>,
    ) {
        if let Some((_, true)) = self.callers.claim() {
            own.messages.push(caller.message(self.tags.of(caller.tag), sender, reply));
        }
        own.is_full = matches!(caller.route, Route::Other { .. });
    }
}

/// The next caller gets its reply, however large: it is copied while the lock is free, so that nobody
/// waits for that on a scheduler. `sliced`: its slice of `replies`, otherwise this very term.
pub(crate) fn answer_large<'a>(
    batch: &Batch<Beam>,
    answerer: Answerer<'a>,
    replies: Term<'a>,
    sliced: bool,
    own: &mut OwnMessages<'a>,
) -> NifResult<Progress<'a>> {
    let (next, left) = {
        let answers = &mut batch.lock().answers;
        drop(answers.begin(answerer));
        let mut callers = answers.callers.left();
        let left = callers.len();
        (callers.next().copied(), left)
    };
    let Some(next) = next else { return Ok(Progress::Done) };
    let slice = if sliced { next.slice(answerer.env, replies, |_item| true)? } else { None };
    let (reply, rest) = slice.unwrap_or((replies, replies));
    let Route::Direct(_) = next.route else {
        let answers = &mut batch.lock().answers;
        answers.leave_to_process(answerer.env, next, reply, own);
        return Ok(answers.progress(rest, 0));
    };
    let mut arena = Arena::default();
    let copy = arena.keep(reply);
    let answers = &mut batch.lock().answers;
    // If this process is being killed, another may have gone on with its batch by now.
    if answers.callers.left().len() == left {
        answers.pass_on(answerer.env, arena, copy);
    }
    Ok(answers.progress(rest, 0))
}
