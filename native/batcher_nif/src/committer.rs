//! Committers as processes of the BEAM, and what each sends itself.
//!
//! Invariant: a committer that has died is told of, whatever it was doing: its monitor is set before it can be woken.

use crate::arena::list_of;
use crate::beam::{Beam, Shard, Terms};
use crate::writes::{commit_function, entries};
use crate::{atoms, measure};
use batcher_core::LaneKey;
use batcher_shell::sync::{micros, millis};
use batcher_shell::{Event, Failure, Flight, Taken, WorkerId};
use parking_lot::Mutex;
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::sync::atomic::{AtomicU64, Ordering};

/// A committing process.
pub(crate) struct Committer {
    pub(crate) shard: &'static Shard,
    pub(crate) id: WorkerId,
    pub(crate) pid: LocalPid,
    /// What it has taken and not given back. Only its own process looks here.
    pub(crate) flight: Mutex<Option<Flight<Beam>>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Batches of more groups are put together on a dirty scheduler.
const LONG_BATCH: u64 = 2_000;
/// Of more groups than this each may be a message of its own.
const MANY_GROUPS: u64 = 500;
/// Batches of so few groups and bytes are copied: to move memory costs more.
const SMALL_BATCH: u64 = 8;
const SMALL_BYTES: u64 = 2_048;

#[rustler::resource_impl(name = "batcher_committer")]
impl Resource for Committer {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.shard.notify(Event::WorkerDown(self.id));
    }
}

/// The calling process becomes a committer.
pub(crate) fn join(env: Env<'_>, shard: &'static Shard) -> ResourceArc<Committer> {
    let (pid, id) = (env.pid(), WorkerId(NEXT_ID.fetch_add(1, Ordering::Relaxed)));
    let committer = ResourceArc::new(Committer { shard, id, pid, flight: Mutex::new(None) });
    committer.monitor(Some(env), &pid);
    shard.join(env, id, committer.clone());
    committer
}

/// The calling committer has answered its batch, if it had one, and takes what is next: a [`batch`], which is to be
/// asked for where that takes long (`:large`), or something that it sends itself (`:sent`); or it rests, or leaves.
pub(crate) fn take<'a>(env: Env<'a>, committer: &ResourceArc<Committer>) -> Term<'a> {
    let mut flight = committer.flight.lock();
    let long_name = flight.take().and_then(|Flight { key, slot, .. }| {
        slot.contents.lock().answers.clear();
        measure::is_long(name_len(&key)).then_some(key)
    });
    let taken = committer.shard.take(env, committer.id);
    if let Some(name) = long_name {
        committer.shard.notify(Event::Free(name));
    }
    let (mut terms, name) = match taken {
        Taken::Rest => return atoms::rest().encode(env),
        Taken::Leave => return atoms::leave().encode(env),
        Taken::Commit(taken) => {
            let taken = flight.insert(taken);
            let long = is_long(taken);
            return if long { atoms::large().encode(env) } else { batch(env, committer, taken) };
        }
        Taken::Answer(taken, reply) => {
            *flight = Some(taken);
            let reply = reply.unwrap_or_else(|| {
                let mut terms = Terms::default();
                terms.add(|env| atoms::failure(env, &Failure::CommitterDown));
                terms
            });
            (reply, atoms::answer())
        }
        Taken::Send(proxied) => (proxied, atoms::deliver()),
    };
    terms.arena.send(Some(env), committer.pid, |inside| {
        let list = list_of(inside.env(), terms.kept.iter().map(|&kept| inside.term(kept)));
        (committer, name, list).encode(inside.env())
    });
    atoms::sent().encode(env)
}

/// Whether it takes too long for a scheduler.
fn is_long(flight: &Flight<Beam>) -> bool {
    let groups = flight.slot.groups;
    let many = || flight.slot.contents.lock().writes.messages() as u64 > MANY_GROUPS;
    let is_long_name = measure::is_long(name_len(&flight.key));
    is_long_name || groups > LONG_BATCH || groups > MANY_GROUPS && many()
}

/// The calling committer gets its batch. A small one is copied: `{:commit, lane, function, entries, info}`. Of any other
/// it sends itself all parts, moved, `{committer, :part, entries, bytes}`, and then
/// `{{committer, :commit, lane, function}, entries, info}`: `:sent`.
pub(crate) fn batch<'a>(
    env: Env<'a>,
    committer: &ResourceArc<Committer>,
    flight: &Flight<Beam>,
) -> Term<'a> {
    let Flight { key: lane, slot, reason, .. } = flight;
    let mut writes = slot.contents.take_writes();
    let (shape, replies, bytes) = (writes.shape, writes.replies, writes.bytes);
    let is_small = slot.groups <= SMALL_BATCH && writes.messages() == 1 && bytes <= SMALL_BYTES;
    let function = commit_function(lane, shape);
    let counts = (replies, slot.weight, slot.groups, bytes);
    let waited_us = micros(slot.opened.elapsed());
    let info = (counts, millis(slot.window), waited_us, atoms::reason(*reason));
    let (last, parts) = writes.parts();
    let taken = if is_small {
        let entries = entries(env, last.copy(env).into_iter(), lane, shape);
        (atoms::commit(), lane_term(env, lane), function, entries, info).encode(env)
    } else {
        for part in parts.iter_mut().filter(|part| !part.is_empty()) {
            let bytes = part.bytes;
            part.send(env, committer.pid, |env, terms| {
                (committer, atoms::part(), entries(env, terms, lane, shape), bytes).encode(env)
            });
        }
        last.send(env, committer.pid, |env, terms| {
            let head = (committer, atoms::commit(), lane_term(env, lane), function);
            (head, entries(env, terms, lane, shape), info).encode(env)
        });
        atoms::sent().encode(env)
    };
    slot.contents.put_back(writes.emptied());
    taken
}

fn name_len(lane: &LaneKey) -> usize {
    if let LaneKey::Prefix(prefix) = lane { prefix.len() } else { 0 }
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
