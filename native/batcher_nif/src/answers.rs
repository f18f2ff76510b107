//! The callers of one batch and what each is told.
//!
//! Invariant: a caller that the cursor passes is answered right then, under the same lock, or its reply is kept for a
//! handover, unless it had given up. No caller is answered before the engine knows that it will be. Locks are taken in
//! this order: contents of a batch in flight, responders or state of the shard, contents of a queued slot; locks of
//! handovers, queues of responders last.

use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::beam::{Beam, Terms};
use crate::caller::{Caller, Home, KeptCaller, Route};
use crate::measure::{self, SHORT};
use crate::responder::{Answerer, Replies};
use batcher_core::LaneKey;
use batcher_shell::{Batch, Callers, Expired, Failure, Handover};
use foldhash::fast::RandomState;
use rustler::{Encoder, Env, NifResult, Term};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::time::Instant;

/// How many callers are answered in one call from the BEAM, and how much of a time slice that takes,
/// woken processes included: some 200 us.
const CHUNK: usize = 128;
pub(crate) const CHUNK_PERCENT: i32 = 40;
/// Of a slice of more replies one copy is saved by sending it from here.
const WORTH_A_HANDOVER: u64 = 32;
/// Of a batch that is done, memory for so many handovers is kept.
const KEPT_HANDOVERS: usize = 16;
/// So many callers are compared with each other.
const COMPARED: usize = 10_000;

/// What one call from the BEAM has answered, of several batches perhaps.
pub(crate) struct Chunk {
    /// How many callers.
    callers: usize,
    /// How many words of replies there may still be.
    words: u64,
}

impl Chunk {
    pub(crate) fn new() -> Self {
        Chunk { callers: 0, words: SHORT }
    }

    /// What that took of a time slice, woken processes included.
    pub(crate) fn percent(&self) -> i32 {
        CHUNK_PERCENT + measure::percent(SHORT - self.words)
    }
}

/// How far the callers of a batch have been answered.
pub(crate) enum Progress<'a> {
    /// All of them have been; these replies are for other batches.
    Done(Term<'a>),
    /// Callers that were left have been told of a failure, which is what callers of other batches are told too: to
    /// which callers the next replies belong is not known.
    Failed,
    /// Some are left for another call, with the rest of the replies.
    More(Term<'a>),
    /// The next caller's reply or tag is too large for a scheduler, and is to be sent with [`answer_large`], when what
    /// was handed over has been sent.
    Large(Term<'a>),
    /// The calling process has to send this, `{to, message}`, when it has [passed](Answers::pass) the next caller, and
    /// within the same time slice, since it may be killed between two of them; then it goes on with the rest.
    Own(Term<'a>, Term<'a>),
}

/// The callers of one batch, in queue order. What each write changes comes first.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Answers {
    tags: Tags,
    callers: Callers<KeptCaller>,
    /// Some caller does not wait for its own call, and may have more than one reply to come.
    others: bool,
    /// Some caller has: all are sent in queue order (8). Known once the first is to be answered.
    ordered: bool,
    /// Some reply waits for a process to send it: in queue order, replies behind it do too.
    waits: bool,
    /// All callers that were left have been told of a failure.
    failed: bool,
    /// Replies that wait for a responder, or for a process to send them. Replies of all parts of a commit are with
    /// the first part.
    pub(crate) handovers: VecDeque<Handover<Replies>>,
}

/// The tags of the callers.
#[derive(Default)]
struct Tags {
    small: Arena,
    /// Tags that take long to copy, each in an arena of its own.
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

    /// No callers any more. Answers how many of them had given up before they could be answered.
    pub(crate) fn clear(&mut self) -> u64 {
        let late = self.callers.late();
        self.tags.small.clear();
        self.tags.large.clear();
        self.callers.clear();
        self.handovers.clear();
        self.handovers.shrink_to(KEPT_HANDOVERS);
        (self.others, self.ordered, self.waits, self.failed) = (false, false, false, false);
        late
    }

    /// Tells some callers, from this one on, that they have waited too long: each is sent `{tag}`. No reply will come.
    pub(crate) fn expire(&mut self, now: Instant, from: usize) -> Expired {
        let tags = &self.tags;
        self.callers.expire(now, from, |&KeptCaller { route, tag, .. }| {
            // Only a process that waits for its own reference gives up.
            let Route::Direct(pid) = route else { return };
            tags.of(tag).enter(|inside| {
                Arena::default().send(None, pid, |message| {
                    let env = message.env();
                    (inside.term(tag).in_env(env),).encode(env)
                })
            });
        })
    }

    /// The next callers get their slices of `replies`, which must be as many as all callers that are left need
    /// together; or, if it is not `sliced`, this very term.
    pub(crate) fn answer<'a>(
        &mut self,
        answerer: &mut Answerer<'_, 'a>,
        mut replies: Term<'a>,
        sliced: bool,
        chunk: &mut Chunk,
    ) -> NifResult<Progress<'a>> {
        if self.failed {
            return Ok(Progress::Failed);
        }
        let each = if sliced { Some(0) } else { measure::words_within(replies, SHORT) };
        self.begin(answerer);
        loop {
            let next = self.callers.remaining().next().copied();
            let Some(caller) = next else { break };
            let slice = match each {
                _ if chunk.callers == CHUNK => None,
                Some(_) if sliced && !caller.is_large => {
                    let fits = |item| measure::item_within(item, &mut chunk.words).is_some();
                    caller.slice(answerer.env, replies, fits)?
                }
                Some(each) if !caller.is_large => chunk.words.checked_sub(each).map(|words| {
                    chunk.words = words;
                    (replies, replies)
                }),
                _ => None,
            };
            let Some((reply, rest)) = slice else { break };
            chunk.callers += 1;
            self.answer_next(answerer, caller, reply);
            replies = rest;
        }
        Ok(match self.callers.remaining().len() {
            0 => Progress::Done(replies),
            _ if chunk.callers == 0 => Progress::Large(replies),
            _ => Progress::More(replies),
        })
    }

    /// The calling process answers the next caller now, unless it has been told of a failure.
    pub(crate) fn pass(&mut self) -> bool {
        self.callers.pass().is_some_and(|(_, waits)| waits)
    }

    /// The next caller gets a reply that was copied, unless the calling process is being killed.
    fn pass_on(&mut self, sender: Env<'_>, mut arena: Arena, copy: Kept) {
        let Some((&KeptCaller { route: Route::Direct(pid), tag, .. }, true)) = self.callers.pass()
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
    pub(crate) fn fail(&mut self, failure: &Failure, proxied: &mut Option<Terms>) {
        self.failed = true;
        self.handovers.drain(..).for_each(|handover| handover.lock().fail(proxied));
        let mut failed = Arena::default();
        let reply = failed.build(|inside| atoms::failure(inside.env(), failure));
        failed.enter(|failed| {
            while let Some((caller, waits)) = self.callers.pass() {
                let (tags, reply) = (self.tags.of(caller.tag), failed.term(reply));
                match caller.route {
                    _ if !waits => {}
                    Route::Direct(pid) => drop(tags.reply(None, pid, caller.tag, reply)),
                    Route::Alias { .. } | Route::Other { .. } => proxied
                        .get_or_insert_default()
                        .add(|env| caller.message(tags, env, reply.in_env(env))),
                }
            }
        });
    }

    /// What the writes of these callers count against the maximum of their lane (6.1).
    pub(crate) fn cost(&self, lane: &LaneKey) -> u64 {
        match lane {
            LaneKey::Prefix(_) => self.callers.all().len() as u64,
            LaneKey::Generic | LaneKey::Put | LaneKey::Delete => {
                self.callers.all().map(|caller| caller.replies).sum()
            }
        }
    }

    /// How many callers there are, answered or not.
    pub(crate) fn len(&self) -> usize {
        self.callers.all().len()
    }

    /// The `from`s of these callers in queue order, for a look from outside.
    pub(crate) fn froms<'a>(
        &self,
        env: Env<'a>,
        callers: Range<usize>,
    ) -> impl Iterator<Item = Term<'a>> {
        let callers = self.callers.all().skip(callers.start).take(callers.len());
        callers.map(move |caller| caller.from(self.tags.of(caller.tag), env))
    }

    /// A chunk begins: the engine hears which callers the chunk may answer, before they can.
    fn begin(&mut self, answerer: &mut Answerer<'_, '_>) {
        if self.others && self.callers.remaining().len() == self.callers.all().len() {
            self.ordered = !self.are_different();
        }
        let next = self.callers.remaining().take(CHUNK);
        answerer.begin(next.map(KeptCaller::writer));
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

    /// Sends what was handed over and has not been sent by now, one handover at a time. True: nothing was left. And copies
    /// of what only the calling process can send: it does when it has [passed](Self::pass_finish) that.
    pub(crate) fn finish<'a>(&mut self, sender: Env<'a>) -> (bool, Vec<Term<'a>>) {
        let mut proxied = Vec::new();
        let finished = batcher_shell::finish(&mut self.handovers, |replies| {
            replies.send(sender, &mut proxied)
        });
        (finished, proxied)
    }

    /// The calling process is about to send what it has got a copy of. False: others have.
    pub(crate) fn pass_finish(&mut self) -> bool {
        self.handovers.front().is_some_and(|first| first.lock().pass())
    }

    fn answer_next<'a>(
        &mut self,
        answerer: &mut Answerer<'_, 'a>,
        caller: KeptCaller,
        reply: Term<'a>,
    ) {
        let Some((_, true)) = self.callers.pass() else { return };
        let tags = self.tags.of(caller.tag);
        // What is sent from here would overtake what is sent later (8).
        let behind = self.ordered && self.waits;
        match caller.route {
            Route::Direct(pid) if !behind => {
                let handed_over = !self.ordered
                    && caller.replies <= WORTH_A_HANDOVER
                    && tags.enter(|inside| {
                        let tag = inside.term(caller.tag);
                        answerer.take(caller.home, pid, tag, reply)
                    });
                if !handed_over {
                    // One that is no more need not know.
                    let _ = tags.reply(Some(answerer.env), pid, caller.tag, reply);
                }
            }
            route => {
                let home = if self.ordered { Home::NOWHERE } else { caller.home };
                self.waits = true;
                answerer.take_proxied(home, |env| caller.message(tags, env, reply.in_env(env)));
                // The process that sends may have to wait, and may be killed then: it has nothing to send behind that.
                if matches!(route, Route::Other { .. }) {
                    answerer.hand_over();
                }
            }
        }
    }
}

/// The next caller gets its reply, however large: it is copied while the lock is free, so that nobody
/// waits for that on a scheduler. `sliced`: its slice of `replies`, otherwise this very term.
pub(crate) fn answer_large<'a>(
    batch: &Batch<Beam>,
    answerer: &mut Answerer<'_, 'a>,
    replies: Term<'a>,
    sliced: bool,
) -> NifResult<Progress<'a>> {
    let (next, remaining) = {
        let answers = &mut batch.lock().answers;
        if answers.failed {
            return Ok(Progress::Failed);
        }
        answers.begin(answerer);
        let mut callers = answers.callers.remaining();
        let remaining = callers.len();
        let Some(next) = callers.next().copied() else { return Ok(Progress::Done(replies)) };
        (next, remaining)
    };
    let slice = if sliced { next.slice(answerer.env, replies, |_item| true)? } else { None };
    let (reply, rest) = slice.unwrap_or((replies, replies));
    let mut arena = Arena::default();
    let copy = matches!(next.route, Route::Direct(_)).then(|| arena.keep(reply));
    let answers = &mut batch.lock().answers;
    // Or this process is being killed, and another has gone on with its batch by now.
    if answers.failed || answers.callers.remaining().len() != remaining {
        return Ok(Progress::Failed);
    }
    let Some(copy) = copy else {
        let message = next.message(answers.tags.of(next.tag), answerer.env, reply);
        return Ok(Progress::Own(message, rest));
    };
    answers.pass_on(answerer.env, arena, copy);
    Ok(if answers.callers.remaining().len() == 0 {
        Progress::Done(rest)
    } else {
        Progress::More(rest)
    })
}
