//! The caller that waits for a group's reply, and the way that leads there.
//!
//! Invariant: a reply goes where `GenServer.reply/2` would send it.

use crate::arena::{self, Arena, Elements, Kept, list_of, number};
use crate::{atoms, measure};
use batcher_shell::KEPT;
use rustler::{Encoder, Env, Error, LocalPid, NifResult, Term};
use std::cell::Cell;
use std::sync::atomic::{AtomicU16, Ordering};

/// Bytes that the reference of a call takes.
const REFERENCE: u64 = 5 * measure::WORD;

/// The process that is to be answered, as its call arrives.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    route: Route,
    /// The tag is a reference that the calling process waits for, and it does nothing else meanwhile.
    pub(crate) is_own: bool,
    /// Where the process runs that will be answered: nowhere unless it makes this call.
    home: Home,
    /// The tag; for what a process sends the whole `{to, tag}`.
    tag: Term<'a>,
}

/// The way of a reply.
#[derive(Clone, Copy)]
pub(crate) enum Route {
    /// To a local process: sent by the library.
    Direct(LocalPid),
    /// To an alias of this node, which only a process can send to. `writer` is the process that is answered.
    Alias { writer: u64 },
    /// To wherever else a process can send: it may have to wait for a connection.
    Other { writer: u64 },
}

impl<'a> Caller<'a> {
    /// A reference stands for the calling process, which waits for it; `{to, tag}` for a process or an alias of this
    /// node, or a process of another one; `{:other, to, tag}` for any other destination, or one whose process did not
    /// make this call.
    pub(crate) fn of(env: Env<'a>, from: Term<'a>) -> NifResult<Self> {
        if from.is_ref() {
            let route = Route::Direct(env.pid());
            return Ok(Caller { route, is_own: true, home: Home::here(), tag: from });
        }
        let parts = Elements::of(from).ok_or(Error::BadArg)?;
        let whole = |route: Route, tag| {
            let calls =
                !matches!(route, Route::Other { .. }) && route.writer() == number(env.pid());
            let home = if calls { Home::here() } else { Home::NOWHERE };
            Ok(Caller { route, is_own: false, home, tag })
        };
        if parts.len() == 3 {
            let (to, tag) = (parts.at(1), parts.at(2));
            let writer = to.hash_internal(0);
            return whole(Route::Other { writer }, (to, tag).encode(env));
        }
        if parts.len() != 2 {
            return Err(Error::BadArg);
        }
        let (to, tag) = (parts.at(0), parts.at(1));
        match to.decode::<LocalPid>() {
            Ok(pid) if alias_of(tag).is_none() => whole(Route::Direct(pid), tag),
            Ok(pid) => whole(Route::Alias { writer: number(pid) }, from),
            Err(_) if to.is_ref() => whole(Route::Alias { writer: number(env.pid()) }, from),
            Err(_) => whole(Route::Other { writer: to.hash_internal(0) }, from),
        }
    }

    /// The number by which the engine knows the caller.
    pub(crate) fn writer(&self) -> u64 {
        self.route.writer()
    }

    /// Bytes that its tag takes, if no more than `words` are to be copied of it; takes them from `words`.
    pub(crate) fn bytes_within(&self, words: &mut u64) -> Option<u64> {
        if self.is_own { Some(REFERENCE) } else { measure::bytes_within(self.tag, words) }
    }

    /// The same caller, kept as long as it waits. A tag that takes long to copy comes `copied`.
    pub(crate) fn keep(
        self,
        tags: &mut Arena,
        copied: Option<Kept>,
        replies: u64,
        bare: bool,
    ) -> KeptCaller {
        let is_large = copied.is_some();
        let tag = copied.unwrap_or_else(|| tags.keep(self.tag));
        KeptCaller { route: self.route, home: self.home, tag, is_large, replies, bare }
    }

    /// A copy of its tag in an arena of its own.
    pub(crate) fn copy_tag(&self) -> (Arena, Kept) {
        let mut arena = Arena::default();
        let tag = arena.keep(self.tag);
        (arena, tag)
    }
}

impl Route {
    fn writer(self) -> u64 {
        match self {
            Route::Direct(pid) => number(pid),
            Route::Alias { writer } | Route::Other { writer } => writer,
        }
    }
}

/// The alias that `GenServer.call/3` puts into its tag: `[:alias | alias]`, or that as the head of a list.
fn alias_of(tag: Term<'_>) -> Option<Term<'_>> {
    let (head, tail) = tag.list_get_cell().ok()?;
    let (name, alias) = head.list_get_cell().unwrap_or((head, tail));
    (atoms::alias() == name && alias.is_ref()).then_some(alias)
}

/// A caller that waits for a group's reply.
#[derive(Clone, Copy)]
pub(crate) struct KeptCaller {
    pub(crate) route: Route,
    pub(crate) home: Home,
    /// The tag; for what a process sends the whole `{to, tag}`.
    pub(crate) tag: Kept,
    /// That takes long to copy.
    pub(crate) is_large: bool,
    /// How many replies of the batch are its (6.2).
    pub(crate) replies: u64,
    /// Gets its reply bare, not as `{:ok, slice}` (9.1).
    bare: bool,
}

impl KeptCaller {
    /// The number by which the engine knows the caller.
    pub(crate) fn writer(&self) -> u64 {
        self.route.writer()
    }

    /// Whether its writer is a process of this node, and not just a number.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.route, Route::Other { .. })
    }

    /// Its `{to, tag}`, copied.
    pub(crate) fn from<'a>(&self, tags: &Arena, env: Env<'a>) -> Term<'a> {
        let tag = tags.enter(|inside| inside.term(self.tag).in_env(env));
        match self.route {
            Route::Direct(pid) => (pid, tag).encode(env),
            Route::Alias { .. } | Route::Other { .. } => tag,
        }
    }

    /// What a process is to send, and where: `{to, {tag, reply}}`. All of `reply` is in `env`.
    pub(crate) fn message<'a>(&self, tags: &Arena, env: Env<'a>, reply: Term<'a>) -> Term<'a> {
        let from = self.from(tags, env);
        let pair = Elements::of(from).expect("it is a pair");
        let (to, tag) = (pair.at(0), pair.at(1));
        (alias_of(tag).unwrap_or(to), (tag, reply)).encode(env)
    }

    /// Its reply, and the replies of the callers behind it; `None` if one of the items does not fit.
    pub(crate) fn slice<'a>(
        &self,
        env: Env<'a>,
        replies: Term<'a>,
        mut fits: impl FnMut(Term<'a>) -> bool,
    ) -> NifResult<Option<(Term<'a>, Term<'a>)>> {
        if self.bare {
            let (reply, rest) = replies.list_get_cell()?;
            return Ok(fits(reply).then_some((reply, rest)));
        }
        let mut first = Vec::with_capacity(
            usize::try_from(self.replies).map_or(KEPT, |replies| replies.min(KEPT)),
        );
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

/// The scheduler on which a process calls, numbered in the order in which their processes came here first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u16);

static SCHEDULERS: AtomicU16 = AtomicU16::new(0);

thread_local! {
    static HERE: Cell<Option<Home>> = const { Cell::new(None) };
}

impl Home {
    /// No scheduler, or one where nobody lives: a dirty one.
    pub(crate) const NOWHERE: Home = Home(u16::MAX);

    /// The home of the calling process.
    pub(crate) fn here() -> Home {
        HERE.get().unwrap_or_else(|| {
            let home = match arena::on_scheduler() {
                true => Home(SCHEDULERS.fetch_add(1, Ordering::Relaxed)),
                false => Home::NOWHERE,
            };
            HERE.set(Some(home));
            home
        })
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}
