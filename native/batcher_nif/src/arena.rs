//! Memory for terms outside any process, and the messages made of it: all unsafe code stands here.
//!
//! Invariant: a [`Kept`] term is read only through the arena that holds it, while it holds it. The
//! number that both carry is compared at each reading, so that a mistake is a panic, which is
//! answered, and never a wild pointer.
#![allow(unsafe_code)]

use rustler::env::OwnedEnv;
use rustler::sys::{
    ERL_NIF_THR_DIRTY_CPU_SCHEDULER, ERL_NIF_THR_DIRTY_IO_SCHEDULER, ERL_NIF_THR_NORMAL_SCHEDULER,
    ErlNifTerm, enif_clear_env, enif_get_tuple, enif_make_list_from_array, enif_make_pid,
    enif_send, enif_thread_type,
};
use rustler::{Atom, Encoder, Env, LocalPid, Term};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT_ARENA: AtomicU64 = AtomicU64::new(0);

/// A process-independent environment.
pub(crate) struct Arena {
    env: OwnedEnv,
    number: u64,
}

/// A term that lives in an arena.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    term: ErlNifTerm,
    arena: u64,
}

/// The inside of an arena, for as long as it is entered.
#[derive(Clone, Copy)]
pub(crate) struct Inside<'a> {
    env: Env<'a>,
    number: u64,
}

impl<'a> Inside<'a> {
    pub(crate) fn env(self) -> Env<'a> {
        self.env
    }

    /// A term that was kept here.
    pub(crate) fn term(self, kept: Kept) -> Term<'a> {
        assert_eq!(kept.arena, self.number, "a kept term is read through its own arena");
        // SAFETY: the numbers agree, so the term was copied into this environment, and that has
        // been neither cleared nor sent since: either gives the arena another number.
        unsafe { Term::new(self.env, kept.term) }
    }
}

impl Inside<'_> {
    fn send_copy(self, sender: Option<Env<'_>>, to: LocalPid, message: Term<'_>) -> bool {
        // SAFETY: the message is alive. Without an environment of its own it is copied before `enif_send` returns.
        unsafe { enif_send(raw(sender), to.as_c_arg(), ptr::null_mut(), message.as_c_arg()) == 1 }
    }
}

impl Default for Arena {
    fn default() -> Self {
        Arena { env: OwnedEnv::new(), number: NEXT_ARENA.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Arena {
    /// Whether a term was kept here, and has been neither forgotten nor sent since.
    pub(crate) fn holds(&self, kept: Kept) -> bool {
        kept.arena == self.number
    }

    /// Copies a term into the arena.
    pub(crate) fn keep(&mut self, term: Term<'_>) -> Kept {
        let term = self.env.run(|env| term.in_env(env).as_c_arg());
        Kept { term, arena: self.number }
    }

    /// Builds a term in the arena.
    pub(crate) fn build(&mut self, build: impl for<'a> FnOnce(Inside<'a>) -> Term<'a>) -> Kept {
        let term = self.enter(|inside| build(inside).as_c_arg());
        Kept { term, arena: self.number }
    }

    /// Reads terms in the arena, or builds some that nobody keeps.
    pub(crate) fn enter<R>(&self, visit: impl for<'a> FnOnce(Inside<'a>) -> R) -> R {
        self.env.run(|env| visit(Inside { env, number: self.number }))
    }

    /// Forgets all terms that were kept here.
    pub(crate) fn clear(&mut self) {
        self.number = NEXT_ARENA.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the number of each term that was kept here is another one from now on, so that
        // nobody reads it; no other reference to the environment exists.
        self.env.run(|env| unsafe { enif_clear_env(env.as_c_arg()) });
    }

    /// Moves the whole arena to a process, with one message built in it: nothing is copied.
    /// `sender` is the environment of the calling process, `None` on the thread of a timer. Leaves
    /// the arena empty. False if the process is gone.
    pub(crate) fn send(
        &mut self,
        sender: Option<Env<'_>>,
        to: LocalPid,
        build: impl for<'a> FnOnce(Inside<'a>) -> Term<'a>,
    ) -> bool {
        let sent = self.env.run(|env| {
            let message = build(Inside { env, number: self.number });
            // SAFETY: the message lives in `env`, which is process-independent; the type of
            // `build` lets no term of another environment through. Afterwards the arena is
            // cleared, so that nobody reads what was in it.
            unsafe { enif_send(raw(sender), to.as_c_arg(), env.as_c_arg(), message.as_c_arg()) }
        });
        self.clear();
        sent == 1
    }

    /// Sends a copy of a message that was kept here. False if the process is gone.
    pub(crate) fn send_copy(&self, sender: Option<Env<'_>>, to: LocalPid, message: Kept) -> bool {
        self.enter(|inside| inside.send_copy(sender, to, inside.term(message)))
    }

    /// Sends `{tag, reply}`, as a `GenServer` replies. The reply may live anywhere: it is copied. False if the process
    /// is gone.
    pub(crate) fn reply(
        &self,
        sender: Option<Env<'_>>,
        to: LocalPid,
        tag: Kept,
        reply: Term<'_>,
    ) -> bool {
        self.enter(|inside| {
            let message = (inside.term(tag), reply.in_env(inside.env())).encode(inside.env());
            inside.send_copy(sender, to, message)
        })
    }
}

/// Sends an atom: a message that takes no memory. One to a process that is gone is lost.
pub(crate) fn send_atom(sender: Option<Env<'_>>, to: LocalPid, atom: Atom) {
    // SAFETY: an atom is a transparent word and lives in no environment.
    let _ = unsafe { enif_send(raw(sender), to.as_c_arg(), ptr::null_mut(), atom.as_c_arg()) };
}

/// A process as a number, which no other living one has.
pub(crate) fn number(pid: LocalPid) -> u64 {
    // SAFETY: no environment is looked at.
    let term = unsafe { enif_make_pid(ptr::null_mut(), *pid.as_c_arg()) };
    // SAFETY: a term is a transparent word, and the term of a pid leads nowhere.
    unsafe { std::mem::transmute::<ErlNifTerm, usize>(term) as u64 }
}

/// Has the C library put small pieces of memory together as they are given back. Otherwise it does so with all of them
/// at a stretch, in whichever call asks it for a large piece: 50 ms, under the lock of a shard with 100 000 lanes.
pub(crate) fn free_at_once() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time; other threads that are inside the allocator notice nothing but the new limit.
    unsafe {
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

/// Whether this is a scheduler's thread, and not the thread of a dirty one or one of our own.
pub(crate) fn on_scheduler() -> bool {
    thread_kind() == ERL_NIF_THR_NORMAL_SCHEDULER
}

/// Whether the calling process runs on a dirty scheduler, where it may be killed during the call:
/// from then on it can't send.
pub(crate) fn on_dirty_scheduler() -> bool {
    let kind = thread_kind();
    kind == ERL_NIF_THR_DIRTY_CPU_SCHEDULER || kind == ERL_NIF_THR_DIRTY_IO_SCHEDULER
}

fn thread_kind() -> i32 {
    // SAFETY: has no arguments and no preconditions.
    unsafe { enif_thread_type() }
}

fn raw(env: Option<Env<'_>>) -> *mut rustler::sys::ErlNifEnv {
    env.map_or(ptr::null_mut(), Env::as_c_arg)
}

/// The elements of a tuple, without a vector in between.
#[derive(Clone, Copy)]
pub(crate) struct Elements<'a> {
    env: Env<'a>,
    terms: &'a [ErlNifTerm],
}

impl<'a> Elements<'a> {
    pub(crate) fn of(tuple: Term<'a>) -> Option<Self> {
        let env = tuple.get_env();
        let mut arity = 0;
        let mut terms = MaybeUninit::uninit();
        // SAFETY: both out-pointers are valid for writing; they are read only on success.
        let is_tuple = unsafe {
            enif_get_tuple(env.as_c_arg(), tuple.as_c_arg(), &mut arity, terms.as_mut_ptr()) == 1
        };
        is_tuple.then(|| {
            // SAFETY: on success it has been written.
            let terms = unsafe { terms.assume_init() };
            // SAFETY: it leads to `arity` terms inside the tuple, which stays where it is as long as its environment
            // is borrowed.
            let terms = unsafe { std::slice::from_raw_parts(terms, arity as usize) };
            Elements { env, terms }
        })
    }

    pub(crate) fn len(self) -> usize {
        self.terms.len()
    }

    pub(crate) fn at(self, index: usize) -> Term<'a> {
        // SAFETY: an element lives in the environment of its tuple.
        unsafe { Term::new(self.env, self.terms[index]) }
    }
}

/// A list of terms of one environment.
pub(crate) fn list_of<'a>(env: Env<'a>, terms: impl Iterator<Item = Term<'a>>) -> Term<'a> {
    let terms: Vec<ErlNifTerm> = terms.map(|term| term.as_c_arg()).collect();
    let count = u32::try_from(terms.len()).expect("a list of 2^32 terms fits no memory");
    // SAFETY: the lifetime says that all terms belong to `env`.
    let list = unsafe { enif_make_list_from_array(env.as_c_arg(), terms.as_ptr(), count) };
    // SAFETY: it was just made there.
    unsafe { Term::new(env, list) }
}
