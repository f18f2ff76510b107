//! Committers as processes of the BEAM, and what each sends itself.
//!
//! Invariant: a committer that has died is told of, whatever it was doing: its monitor is set before it can be woken.

use crate::arena::Arena;
use crate::atoms;
use crate::beam::{Event, Shard, Work};
use crate::failure;
use crate::measure;
use crate::writes::{commit_function, entries};
use batcher_core::LaneKey;
use batcher_shell::{Failure, Info, Taken, WorkerId};
use parking_lot::Mutex;
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::sync::atomic::{AtomicU64, Ordering};

/// A committing process.
pub(crate) struct Committer {
    pub(crate) shard: &'static Shard,
    pub(crate) id: WorkerId,
    pid: LocalPid,
    /// What it has taken and not given back. Only its own process looks here.
    task: Mutex<Option<Task>>,
}

/// A batch, and what is to be told of it, if it is to be committed.
struct Task {
    work: Work,
    info: Option<Info>,
}

impl Task {
    /// The batch, and the name of its lane if that takes long to free.
    fn split(self) -> (Work, Option<LaneKey>) {
        let name = self.info.map(|info| info.lane);
        (self.work, name.filter(|name| measure::is_long(name_len(name))))
    }
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
    let committer = ResourceArc::new(Committer { shard, id, pid, task: Mutex::new(None) });
    committer.monitor(Some(env), &pid);
    shard.join(env, id, pid, committer.clone());
    committer
}

/// Sends `{committer, :work}`.
pub(crate) fn wake(committer: &ResourceArc<Committer>, sender: Option<Env<'_>>) {
    Arena::default()
        .send(sender, committer.pid, |inside| (committer, atoms::work()).encode(inside.env()));
}

/// The calling committer has answered its batch, if it had one, and takes what is next: a [`batch`], which is to be
/// asked for where that takes long (`:large`), or something that it sends itself (`:sent`); or it rests, or leaves.
pub(crate) fn take<'a>(env: Env<'a>, committer: &ResourceArc<Committer>) -> Term<'a> {
    let task = committer.task.lock().take();
    let (done, long_name) = task.map(Task::split).unzip();
    let taken = committer.shard.take(env, committer.id, done);
    if let Some(name) = long_name.flatten() {
        committer.shard.notify(Event::Free(name));
    }
    match taken {
        Taken::Rest => return atoms::rest().encode(env),
        Taken::Leave => return atoms::leave().encode(env),
        Taken::Commit(work, info) => {
            let long = is_long(&work, &info);
            *committer.task.lock() = Some(Task { work, info: Some(info) });
            return if long { atoms::large().encode(env) } else { batch(env, committer) };
        }
        Taken::Answer(work, reply) => {
            *committer.task.lock() = Some(Task { work, info: None });
            let (mut arena, reply) = reply.unwrap_or_else(|| {
                let mut arena = Arena::default();
                let reply =
                    arena.build(|inside| failure::term(inside.env(), &Failure::CommitterDown));
                (arena, reply)
            });
            arena.send(Some(env), committer.pid, |inside| {
                (committer, atoms::answer(), inside.term(reply)).encode(inside.env())
            });
        }
        Taken::Send(mut proxied) => {
            let messages = proxied.messages;
            proxied.arena.send(Some(env), committer.pid, |inside| {
                let list = inside.list(messages.iter().copied());
                (committer, atoms::deliver(), list).encode(inside.env())
            });
        }
    }
    atoms::sent().encode(env)
}

/// Whether it takes too long for a scheduler.
fn is_long(work: &Work, info: &Info) -> bool {
    let many = || work.batch.lock().writes.messages() as u64 > MANY_GROUPS;
    let is_long_name = measure::is_long(name_len(&info.lane));
    is_long_name || info.groups > LONG_BATCH || info.groups > MANY_GROUPS && many()
}

/// The calling committer gets its batch. A small one is copied: `{:commit, lane, function, entries, info}`. Of any other
/// it sends itself all parts, moved, `{committer, :part, entries, bytes}`, and then
/// `{{committer, :commit, lane, function}, entries, info}`: `:sent`.
pub(crate) fn batch<'a>(env: Env<'a>, committer: &ResourceArc<Committer>) -> Term<'a> {
    let Some((work, Some(info))) = committer.taken() else { return atoms::rest().encode(env) };
    let mut writes = work.batch.take_writes();
    let (shape, replies, bytes) = (writes.shape, writes.replies, writes.bytes);
    let is_small = info.groups <= SMALL_BATCH && writes.messages() == 1 && bytes <= SMALL_BYTES;
    let lane = &info.lane;
    let function = commit_function(lane, shape);
    let counts = (replies, info.weight, info.groups, bytes);
    let told = (counts, info.window_ms, info.waited_us, atoms::reason(info.reason));
    let (last, parts) = writes.parts();
    let taken = if is_small {
        let entries = entries(env, last.copy(env).into_iter(), lane, shape);
        (atoms::commit(), lane_term(env, lane), function, entries, told).encode(env)
    } else {
        for part in parts.iter_mut().filter(|part| !part.is_empty()) {
            let bytes = part.bytes;
            part.send(env, committer.pid, |env, terms| {
                (committer, atoms::part(), entries(env, terms, lane, shape), bytes).encode(env)
            });
        }
        last.send(env, committer.pid, |env, terms| {
            let head = (committer, atoms::commit(), lane_term(env, lane), function);
            (head, entries(env, terms, lane, shape), told).encode(env)
        });
        atoms::sent().encode(env)
    };
    work.batch.put_back(writes.emptied());
    taken
}

impl Committer {
    /// The batch that it has taken.
    pub(crate) fn work(&self) -> Option<Work> {
        self.task.lock().as_ref().map(|task| task.work.clone())
    }

    fn taken(&self) -> Option<(Work, Option<Info>)> {
        self.task.lock().as_ref().map(|task| (task.work.clone(), task.info.clone()))
    }
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
