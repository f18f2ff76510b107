//! The callers of one batch and what each is told.
//!
//! Invariant: whoever is passed by the cursor is answered right then, under the same lock, unless it
//! had given up.

use crate::arena::{Arena, Elements, Kept, list_of};
use crate::atoms;
use crate::failure;
use batcher_shell::{Callers, Failure};
use rustler::{Encoder, Env, Error, LocalPid, NifResult, Term};
use std::time::Instant;

/// How many callers are answered in one call from the BEAM: some 50 us.
const CHUNK: usize = 256;
/// A reply of more items is sent from a dirty scheduler, since it is copied in one go.
const LARGE: u64 = 2_000;

/// Who is to be answered, as it arrives: a `GenServer.from`, or the reference that the calling
/// process waits for.
#[derive(Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// A local pid and a plain tag: answered by the library.
    Direct(LocalPid, Term<'a>),
    /// A remote pid, or a tag with a call alias: answered by a process, with `GenServer.reply`.
    Courier(Term<'a>),
}

impl<'a> Caller<'a> {
    pub(crate) fn of(env: Env<'a>, from: Term<'a>) -> NifResult<Self> {
        if from.is_ref() {
            return Ok(Caller::Direct(env.pid(), from));
        }
        let pair = Elements::of(from).filter(|pair| pair.len() == 2).ok_or(Error::BadArg)?;
        Ok(match (pair.at(0).decode(), pair.at(1)) {
            // Tags that `GenServer.reply` looks into are lists.
            (Ok(local), tag) if !tag.is_list() => Caller::Direct(local, tag),
            _ => Caller::Courier(from),
        })
    }
}

#[derive(Clone, Copy)]
enum Route {
    Direct(LocalPid),
    Courier,
}

/// Who waits for a group's reply.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    route: Route,
    /// The tag; for a courier the whole `from`.
    tag: Kept,
    /// How many replies of the batch are its (6.2).
    replies: u64,
    /// Gets its reply bare, not as `{:ok, slice}` (9.1).
    bare: bool,
}

/// The callers of one batch, in queue order.
#[derive(Default)]
pub(crate) struct Answers {
    tags: Arena,
    callers: Callers<Waiting>,
}

impl AsMut<Callers<Waiting>> for Answers {
    fn as_mut(&mut self) -> &mut Callers<Waiting> {
        &mut self.callers
    }
}

/// How far a call to answer came.
pub(crate) enum Progress<'a> {
    Done,
    /// Call again, with the rest of the replies.
    More(Term<'a>),
    /// The next caller's slice is this long: answer it with [`Answers::one`].
    Large(u64, Term<'a>),
}

/// Replies that the calling process has to send: `[{from, reply}]`.
pub(crate) type Couriered<'a> = Vec<Term<'a>>;

impl Answers {
    pub(crate) fn add(
        &mut self,
        caller: Caller<'_>,
        until: Option<Instant>,
        replies: u64,
        bare: bool,
    ) {
        let (route, tag) = match caller {
            Caller::Direct(pid, tag) => (Route::Direct(pid), self.tags.keep(tag)),
            Caller::Courier(from) => (Route::Courier, self.tags.keep(from)),
        };
        self.callers.add(Waiting { route, tag, replies, bare }, until);
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
        couriered: &mut Couriered<'a>,
    ) -> NifResult<Progress<'a>> {
        let mut items = 0;
        for _ in 0..CHUNK {
            let Some(caller) = self.next_in_order(couriered).filter(|_| items < LARGE) else {
                break;
            };
            if caller.replies > LARGE {
                return Ok(Progress::Large(caller.replies, replies));
            }
            items += caller.replies;
            let reply;
            if caller.bare {
                (reply, replies) = replies.list_get_cell()?;
            } else {
                let slice;
                (slice, replies) = split(sender, replies, caller.replies)?;
                reply = (atoms::ok(), slice).encode(sender);
            }
            self.answer_next(sender, reply, couriered);
        }
        Ok(self.progress(replies))
    }

    /// The next callers get this very term.
    pub(crate) fn each<'a>(
        &mut self,
        sender: Env<'a>,
        reply: Term<'a>,
        couriered: &mut Couriered<'a>,
    ) -> Progress<'a> {
        for _ in 0..CHUNK {
            if self.next_in_order(couriered).is_none() {
                break;
            }
            self.answer_next(sender, reply, couriered);
        }
        self.progress(reply)
    }

    /// The next caller gets this slice, unless the calling process is being killed.
    pub(crate) fn one<'a>(
        &mut self,
        sender: Env<'a>,
        slice: Term<'a>,
        couriered: &mut Couriered<'a>,
    ) {
        let next = self.callers.left().next().copied();
        let sent = self.answer_next(sender, (atoms::ok(), slice).encode(sender), couriered);
        if let (false, Some(Waiting { route: Route::Direct(pid), .. })) = (sent, next)
            && pid.is_alive(sender)
        {
            self.callers.take_back();
        }
    }

    /// All who are left are told of a failure, from a thread of our own. What only a process can
    /// send is put into `left`, as `{from, reply}`.
    pub(crate) fn fail(&mut self, failure: &Failure, left: &mut Arena, couriered: &mut Vec<Kept>) {
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
            let tag = self.tags.enter(|inside| inside.term(caller.tag).in_env(env));
            match caller.route {
                Route::Direct(pid) => (pid, tag).encode(env),
                Route::Courier => tag,
            }
        };
        self.callers.all().map(from).collect()
    }

    /// The next caller, unless a reply from here would overtake those that are still to be sent by
    /// the process (8).
    fn next_in_order(&self, couriered: &Couriered<'_>) -> Option<Waiting> {
        let next = self.callers.left().next().copied();
        next.filter(|next| couriered.is_empty() || matches!(next.route, Route::Courier))
    }

    fn progress<'a>(&self, rest: Term<'a>) -> Progress<'a> {
        if self.callers.left().len() == 0 { Progress::Done } else { Progress::More(rest) }
    }

    /// False if the reply could not be sent: the caller or the sender is no more.
    fn answer_next<'a>(
        &mut self,
        sender: Env<'a>,
        reply: Term<'a>,
        couriered: &mut Couriered<'a>,
    ) -> bool {
        let Some((caller, true)) = self.callers.pass() else { return true };
        match caller.route {
            Route::Direct(pid) => self.tags.reply(Some(sender), pid, caller.tag, reply),
            Route::Courier => {
                let from = self.tags.enter(|inside| inside.term(caller.tag).in_env(sender));
                couriered.push((from, reply).encode(sender));
                true
            }
        }
    }
}

/// The first `count` elements of a list and the rest of it.
fn split<'a>(env: Env<'a>, list: Term<'a>, count: u64) -> NifResult<(Term<'a>, Term<'a>)> {
    let mut first = Vec::with_capacity(count as usize);
    let mut rest = list;
    for _ in 0..count {
        let (head, tail) = rest.list_get_cell()?;
        first.push(head);
        rest = tail;
    }
    // A batch of one group: its slice is the list itself.
    let slice = if rest.is_empty_list() { list } else { list_of(env, first.into_iter()) };
    Ok((slice, rest))
}
