//! Committers as the library sees them, and batches on their way to one.
//!
//! Invariant: a committer serves one lane at most, from the moment a batch is chosen for it until
//! it has answered that batch and asks for the next.

use crate::answers::Answers;
use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::contents::{Part, Shape, commit_function, entries};
use crate::shard::Shard;
use crate::thread::Event;
use batcher_core::{LaneId, LaneKey, Reason};
use parking_lot::Mutex;
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::sync::Arc;

/// A committing process.
pub(crate) struct Committer {
    pub(crate) pid: LocalPid,
    pub(crate) shard: &'static Shard,
    pub(crate) serving: Mutex<Option<Serving>>,
}

/// The batch that a committer has.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) lane: LaneId,
    pub(crate) answers: Arc<Mutex<Answers>>,
}

#[rustler::resource_impl(name = "batcher_committer")]
impl Resource for Committer {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        self.shard.notify(Event::CommitterDown(pid));
    }
}

impl Committer {
    /// The calling process as a committer, watched.
    pub(crate) fn new(env: Env<'_>, shard: &'static Shard) -> ResourceArc<Committer> {
        let pid = env.pid();
        let committer = ResourceArc::new(Committer { pid, shard, serving: Mutex::new(None) });
        committer.monitor(Some(env), &pid);
        committer
    }

    pub(crate) fn answers(&self) -> Option<Arc<Mutex<Answers>>> {
        self.serving.lock().as_ref().map(|serving| Arc::clone(&serving.answers))
    }
}

/// Sends `{committer, :deliver, [{from, reply}]}`: replies that need a process to send them. The
/// list lives in the arena.
pub(crate) fn deliver(
    committer: &ResourceArc<Committer>,
    sender: Option<Env<'_>>,
    arena: Arena,
    list: Kept,
) {
    arena.send(sender, committer.pid, |inside| {
        (committer, atoms::deliver(), inside.term(list)).encode(inside.env())
    });
}

/// Sends `{committer, :exit}`, from a thread of our own.
pub(crate) fn dismiss(committer: &ResourceArc<Committer>) {
    Arena::default()
        .send(None, committer.pid, |inside| (committer, atoms::exit()).encode(inside.env()));
}

/// A batch on its way to its committer.
pub(crate) struct Departure {
    pub(crate) committer: ResourceArc<Committer>,
    pub(crate) lane: LaneKey,
    pub(crate) parts: Vec<Part>,
    pub(crate) shape: Shape,
    pub(crate) info: Info,
}

/// What telemetry wants to know of a batch (13).
#[derive(Clone, Copy)]
pub(crate) struct Info {
    pub(crate) replies: u64,
    pub(crate) weight: u64,
    pub(crate) groups: u64,
    pub(crate) window_ms: u64,
    pub(crate) wait_us: u64,
    pub(crate) bytes: u64,
    pub(crate) reason: Reason,
}

impl Departure {
    /// Sends `{committer, :part, entries}` for all parts but the last, then
    /// `{committer, :commit, lane, function, entries, info}`. If the committer has died, its
    /// owner hears of that and answers the batch.
    pub(crate) fn send(self, sender: Option<Env<'_>>) {
        let Departure { committer, lane, mut parts, shape, info } = self;
        let (arena, items) = parts.pop().unwrap_or_default().into_parts();
        for part in parts {
            let (arena, items) = part.into_parts();
            arena.send(sender, committer.pid, |inside| {
                let entries = entries(inside, &items, &lane, shape);
                (&committer, atoms::part(), entries).encode(inside.env())
            });
        }
        arena.send(sender, committer.pid, |inside| {
            let env = inside.env();
            let function = commit_function(&lane, shape);
            let entries = entries(inside, &items, &lane, shape);
            let head = (&committer, atoms::commit(), lane_term(env, &lane), function);
            (head, entries, info).encode(env)
        });
    }
}

impl Encoder for Info {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let reason = atoms::reason(self.reason);
        let counts = (self.replies, self.weight, self.groups, self.bytes);
        (counts, self.window_ms, self.wait_us, reason).encode(env)
    }
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
