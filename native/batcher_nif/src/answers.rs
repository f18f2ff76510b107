//! The callers of one batch and what each is told.
//!
//! Invariant: whoever is passed by the cursor is answered right then, under the same lock, or put into a
//! relay, unless it had given up; those that only a process can answer are passed when it is about
//! to. Locks are taken in this order: contents of a batch in flight, heralds or state of the shard,
//! contents of a queued slot; those of relays, inboxes and seats last.

use crate::arena::{Arena, Elements, Kept, list_of};
use crate::atoms;
use crate::failure;
use crate::herald::{Home, Relays, Replies};
use crate::host::Beam;
use crate::measure::{self, SHORT};
use batcher_shell::{Callers, Contents, Failure, Finished, KEPT, Relay};
use rustler::{Encoder, Env, Error, LocalPid, NifResult, Term};
use std::sync::Arc;
use std::time::Instant;

/// How many callers are answered in one call from the BEAM, and how much of a time slice that takes,
/// woken processes included: some 200 us.
const CHUNK: u64 = 128;
pub(crate) const CHUNK_PERCENT: i32 = 40;
/// Of a slice of more replies one copy is saved by sending it from here.
const WORTH_A_RELAY: u64 = 32;
/// How many replies a process sends within one time slice.
const COURIERED: usize = 32;

/// Who is to be answered, as it arrives: a `GenServer.from`, or the reference that the calling
/// process waits for.
pub(crate) struct Caller<'a> {
    route: Route,
    /// The tag is a reference that the calling process waits for, and it does nothing else meanwhile.
    is_own: bool,
    /// The tag; for a courier the whole `from`.
    tag: Term<'a>,
}

impl<'a> Caller<'a> {
    pub(crate) fn of(env: Env<'a>, from: Term<'a>) -> NifResult<Self> {
        if from.is_ref() {
            return Ok(Caller { route: Route::Direct(env.pid()), is_own: true, tag: from });
        }
        let pair = Elements::of(from).filter(|pair| pair.len() == 2).ok_or(Error::BadArg)?;
        let (route, tag) = match (pair.at(0).decode(), pair.at(1)) {
            // Tags that `GenServer.reply` looks into are lists.
            (Ok(local), tag) if !tag.is_list() => (Route::Direct(local), tag),
            _ => (Route::Courier, from),
        };
        Ok(Caller { route, is_own: false, tag })
    }
}

#[derive(Clone, Copy)]
enum Route {
    /// A local pid and a plain tag: answered by the library.
    Direct(LocalPid),
    /// A remote pid, or a tag with a call alias: answered by a process, with `GenServer.reply`.
    Courier,
}

/// Who waits for a group's reply.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    route: Route,
    home: Home,
    /// The tag; for a courier the whole `from`.
    tag: Kept,
    /// How many replies of the batch are its (6.2).
    replies: u64,
    /// Gets its reply bare, not as `{:ok, slice}` (9.1).
    bare: bool,
}

impl Waiting {
    /// Its tag, or the whole `from`, copied.
    fn tag<'a>(&self, tags: &Arena, env: Env<'a>) -> Term<'a> {
        tags.enter(|inside| inside.term(self.tag).in_env(env))
    }

    /// Its reply, and the replies of those behind it; `None` if one of the items does not fit.
    fn slice<'a>(
        &self,
        env: Env<'a>,
        replies: Term<'a>,
        mut fits: impl FnMut(Term<'a>) -> bool,
    ) -> NifResult<Option<(Term<'a>, Term<'a>)>> {
        if self.bare {
            let (reply, rest) = replies.list_get_cell()?;
            return Ok(fits(reply).then_some((reply, rest)));
        }
        let mut first = Vec::with_capacity(self.replies.min(KEPT as u64) as usize);
        let mut rest = replies;
        for _ in 0..self.replies {
            let (head, tail) = rest.list_get_cell()?;
            if !fits(head) {
                return Ok(None);
            }
            first.push(head);
            rest = tail;
        }
        // A batch of one group: its slice is the list itself.
        let slice = if rest.is_empty_list() { replies } else { list_of(env, first.into_iter()) };
        Ok(Some(((atoms::ok(), slice).encode(env), rest)))
    }
}

/// The callers of one batch, in queue order. What each write changes comes first.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Answers {
    tags: Arena,
    callers: Callers<Waiting>,
    /// Some caller may have more than one reply to come: all are sent in queue order (8).
    ordered: bool,
    /// Replies that heralds have been given.
    relays: Vec<Arc<Relay<Replies>>>,
}

impl AsMut<Callers<Waiting>> for Answers {
    fn as_mut(&mut self) -> &mut Callers<Waiting> {
        &mut self.callers
    }
}

/// How far a call to answer came.
pub(crate) enum Progress<'a> {
    Done,
    /// Done, but for what heralds still send: see [`Answers::finish`].
    Relayed,
    /// Call again, with the rest of the replies. This took so much of the time slice, in percent.
    More(Term<'a>, i32),
    /// The next caller's reply is too large for a scheduler: send it with [`answer_large`].
    Large(Term<'a>),
}

/// Replies that the calling process has to send: `[{from, reply}]`. Their callers come next, and
/// are [passed](Answers::pass) then.
pub(crate) type Couriered<'a> = Vec<Term<'a>>;

impl Answers {
    pub(crate) fn add(
        &mut self,
        caller: Caller<'_>,
        until: Option<Instant>,
        replies: u64,
        bare: bool,
    ) {
        let Caller { route, is_own, tag } = caller;
        let home = if is_own { Home::here() } else { Home::NOWHERE };
        self.ordered |= !is_own;
        let tag = self.tags.keep(tag);
        self.callers.add(Waiting { route, home, tag, replies, bare }, until);
    }

    /// No callers any more.
    pub(crate) fn clear(&mut self) {
        self.tags.clear();
        self.callers.clear();
        self.relays.clear();
        self.ordered = false;
    }

    /// Sends `{tag}`: no reply will come. Only a process that waits for its own reference gives up.
    pub(crate) fn tell_late(&mut self, caller: Waiting) {
        let Route::Direct(pid) = caller.route else { return };
        self.tags.enter(|tags| {
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
        sender: Env<'a>,
        mut replies: Term<'a>,
        mut relays: Relays<'a>,
        couriered: &mut Couriered<'a>,
    ) -> NifResult<Progress<'a>> {
        let mut words = SHORT;
        for passed in 0..CHUNK {
            let Some(caller) = self.next_in_order(couriered) else { break };
            let fits = |item| measure::item_within(item, &mut words).is_some();
            match caller.slice(sender, replies, fits)? {
                Some((reply, rest)) => {
                    self.answer_next(sender, caller, reply, &mut relays, couriered);
                    replies = rest;
                }
                None if passed == 0 => return Ok(Progress::Large(replies)),
                None => break,
            }
        }
        self.relays.extend(relays.leave());
        Ok(self.progress(replies, SHORT - words, couriered))
    }

    /// The next callers get this very term.
    pub(crate) fn each<'a>(
        &mut self,
        sender: Env<'a>,
        reply: Term<'a>,
        mut relays: Relays<'a>,
        couriered: &mut Couriered<'a>,
    ) -> Progress<'a> {
        let mut words = SHORT;
        if measure::bytes_within(reply, &mut words).is_none() {
            return Progress::Large(reply);
        }
        let each = SHORT - words;
        // So many that they get no more than that together.
        let callers = CHUNK.min(SHORT / each.max(1));
        for _ in 0..callers {
            let Some(caller) = self.next_in_order(couriered) else { break };
            self.answer_next(sender, caller, reply, &mut relays, couriered);
        }
        self.relays.extend(relays.leave());
        self.progress(reply, each * callers, couriered)
    }

    /// The calling process sends the replies of so many callers now.
    pub(crate) fn pass(&mut self, count: usize) {
        for _ in 0..count {
            self.callers.pass();
        }
    }

    /// The next caller gets a reply that was copied, unless the calling process is being killed.
    fn pass_on(&mut self, sender: Env<'_>, mut arena: Arena, copy: Kept) {
        let Some((&Waiting { route: Route::Direct(pid), tag, .. }, true)) = self.callers.pass()
        else {
            return;
        };
        let tag = self.tags.enter(|inside| arena.keep(inside.term(tag)));
        let sent = arena.send(Some(sender), pid, |inside| {
            (inside.term(tag), inside.term(copy)).encode(inside.env())
        });
        if !sent && pid.is_alive(sender) {
            self.callers.take_back();
        }
    }

    /// All who are left are told of a failure, from a thread of our own. What only a process can
    /// send is put into `left`, as `{from, reply}`.
    pub(crate) fn fail(&mut self, failure: &Failure, left: &mut Arena, couriered: &mut Vec<Kept>) {
        for relay in self.relays.drain(..) {
            relay.send(|replies| replies.send(None));
        }
        let reply = left.build(|inside| failure::term(inside.env(), failure));
        let tags = &mut self.tags;
        while let Some((caller, waits)) = self.callers.pass() {
            if !waits {
                continue;
            }
            match caller.route {
                Route::Direct(pid) => {
                    left.enter(|inside| tags.reply(None, pid, caller.tag, inside.term(reply)));
                }
                Route::Courier => {
                    let from = tags.enter(|inside| left.keep(inside.term(caller.tag)));
                    couriered.push(left.build(|inside| {
                        (inside.term(from), inside.term(reply)).encode(inside.env())
                    }));
                }
            }
        }
    }

    /// The `from`s in queue order, for a look from outside.
    pub(crate) fn froms<'a>(&self, env: Env<'a>) -> Vec<Term<'a>> {
        let from = |caller: &Waiting| {
            let tag = caller.tag(&self.tags, env);
            match caller.route {
                Route::Direct(pid) => (pid, tag).encode(env),
                Route::Courier => tag,
            }
        };
        self.callers.all().map(from).collect()
    }

    /// The caller behind those that the process is to answer, unless a reply from here would overtake
    /// theirs (8).
    fn next_in_order(&self, couriered: &Couriered<'_>) -> Option<Waiting> {
        if couriered.len() == COURIERED {
            return None;
        }
        let next = self.callers.left().nth(couriered.len()).copied();
        next.filter(|next| couriered.is_empty() || matches!(next.route, Route::Courier))
    }

    /// After a chunk of replies of so many words.
    fn progress<'a>(&self, rest: Term<'a>, words: u64, couriered: &Couriered<'_>) -> Progress<'a> {
        match self.callers.left().len() - couriered.len() {
            0 if self.relays.is_empty() => Progress::Done,
            0 => Progress::Relayed,
            _ => Progress::More(rest, CHUNK_PERCENT + measure::percent(words)),
        }
    }

    /// Sends what heralds have not sent by now.
    pub(crate) fn finish(&mut self, sender: Env<'_>) -> Finished {
        batcher_shell::finish(&mut self.relays, |replies| replies.send(Some(sender)))
    }

    fn answer_next<'a>(
        &mut self,
        sender: Env<'a>,
        caller: Waiting,
        reply: Term<'a>,
        relays: &mut Relays<'a>,
        couriered: &mut Couriered<'a>,
    ) {
        match caller.route {
            Route::Direct(pid) => {
                let Some((_, true)) = self.callers.pass() else { return };
                let relayed = !self.ordered
                    && caller.replies <= WORTH_A_RELAY
                    && self.tags.enter(|inside| {
                        relays.take(caller.home, pid, inside.term(caller.tag), reply)
                    });
                if !relayed {
                    // One that is no more need not know.
                    let _ = self.tags.reply(Some(sender), pid, caller.tag, reply);
                }
            }
            Route::Courier => {
                couriered.push((caller.tag(&self.tags, sender), reply).encode(sender));
            }
        }
    }
}

/// The next caller gets its reply, however large: it is copied while the lock is free, so that nobody
/// waits for that on a scheduler. `sliced`: its slice of `replies`, otherwise this very term.
pub(crate) fn answer_large<'a>(
    contents: &Contents<Beam>,
    sender: Env<'a>,
    replies: Term<'a>,
    sliced: bool,
    couriered: &mut Couriered<'a>,
) -> NifResult<Progress<'a>> {
    let (next, left) = {
        let held = contents.lock();
        let mut callers = held.answers.callers.left();
        let left = callers.len();
        (callers.next().copied(), left)
    };
    let Some(next) = next else { return Ok(Progress::Done) };
    let slice = if sliced { next.slice(sender, replies, |_item| true)? } else { None };
    let (reply, rest) = slice.unwrap_or((replies, replies));
    if matches!(next.route, Route::Courier) {
        let answers = &contents.lock().answers;
        couriered.push((next.tag(&answers.tags, sender), reply).encode(sender));
        return Ok(answers.progress(rest, 0, couriered));
    }
    let mut arena = Arena::default();
    let copy = arena.keep(reply);
    let answers = &mut contents.lock().answers;
    // If this process is being killed, another may have gone on with its batch by now.
    if answers.callers.left().len() == left {
        answers.pass_on(sender, arena, copy);
    }
    Ok(answers.progress(rest, 0, couriered))
}
