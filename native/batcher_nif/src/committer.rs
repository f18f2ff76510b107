//! Committers as processes of the BEAM, and what they are sent.
//!
//! Invariant: a committer that has died is told of, whatever it was doing: its monitor is set before
//! it can be chosen for a batch.

use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::contents::{Writes, commit_function, entries};
use crate::host::{Beam, Event, Shard};
use batcher_core::LaneKey;
use batcher_shell::{Departure, Seat};
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::sync::atomic::{AtomicU64, Ordering};

/// A committing process.
pub(crate) struct Committer {
    pub(crate) shard: &'static Shard,
    pub(crate) seat: Seat<Beam>,
    /// Which load of the library it joined: to a later one its reference means nothing.
    loaded: u64,
}

/// How often the library was loaded into this VM.
static LOADED: AtomicU64 = AtomicU64::new(0);

/// The library is being loaded.
pub(crate) fn count_load() {
    LOADED.fetch_add(1, Ordering::Relaxed);
}

#[rustler::resource_impl(name = "batcher_committer")]
impl Resource for Committer {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        self.shard.notify(Event::CommitterDown(pid));
    }
}

impl Committer {
    pub(crate) fn is_current(&self) -> bool {
        self.loaded == LOADED.load(Ordering::Relaxed)
    }

    /// The calling process as a committer, watched.
    pub(crate) fn new(env: Env<'_>, shard: &'static Shard) -> ResourceArc<Committer> {
        let pid = env.pid();
        let committer = ResourceArc::new(Committer {
            shard,
            seat: Seat::new(pid),
            loaded: LOADED.load(Ordering::Relaxed),
        });
        committer.monitor(Some(env), &pid);
        committer
    }
}

/// Sends `{committer, word, term}`: with `:deliver` replies that need a process to send them, with
/// `:answer` what the callers of a dead committer's batch get. The term lives in the arena.
pub(crate) fn tell(
    committer: &ResourceArc<Committer>,
    sender: Option<Env<'_>>,
    word: Atom,
    (mut arena, term): (Arena, Kept),
) {
    arena.send(sender, committer.seat.pid, |inside| {
        (committer, word, inside.term(term)).encode(inside.env())
    });
}

/// Sends `{committer, :exit}`, from a thread of our own.
pub(crate) fn dismiss(committer: &ResourceArc<Committer>) {
    Arena::default()
        .send(None, committer.seat.pid, |inside| (committer, atoms::exit()).encode(inside.env()));
}

/// Sends `{committer, :part, entries, bytes}` for all parts but the last, then
/// `{{committer, :commit, lane, function}, entries, info}`. If the committer has died, its owner
/// hears of that and answers the batch. Returns what held the writes, empty.
pub(crate) fn depart(
    departure: &Departure<Beam>,
    mut writes: Writes,
    sender: Option<Env<'_>>,
) -> Writes {
    let Departure { committer, lane, info, .. } = departure;
    let (shape, replies, bytes) = (writes.shape, writes.replies, writes.bytes);
    let pid = committer.seat.pid;
    let wait_us = info.waited.as_micros() as u64;
    let (last, parts) = writes.parts();
    for part in parts.iter_mut().filter(|part| !part.is_empty()) {
        let bytes = part.bytes;
        part.send(sender, pid, |inside, items| {
            let entries = entries(inside, items, lane, shape);
            (committer, atoms::part(), entries, bytes).encode(inside.env())
        });
    }
    last.send(sender, pid, |inside, items| {
        let env = inside.env();
        let function = commit_function(lane, shape);
        let entries = entries(inside, items, lane, shape);
        let head = (committer, atoms::commit(), lane_term(env, lane), function);
        let counts = (replies, info.weight, info.groups, bytes);
        let info = (counts, info.window_ms, wait_us, atoms::reason(info.reason));
        (head, entries, info).encode(env)
    });
    writes.emptied()
}

/// The prefix of a namespace lane, the name of a hot one.
pub(crate) fn lane_term<'a>(env: Env<'a>, lane: &LaneKey) -> Term<'a> {
    match (lane, atoms::hot_lane(lane)) {
        (LaneKey::Prefix(prefix), _) => {
            let mut binary = rustler::NewBinary::new(env, prefix.len());
            binary.as_mut_slice().copy_from_slice(prefix);
            binary.into()
        }
        (_, name) => name.encode(env),
    }
}
