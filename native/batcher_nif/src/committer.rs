//! Committers as processes of the BEAM, and what each sends itself.
//!
//! Invariant: a committer that has died is told of, whatever it was doing: its monitor is set before it can be woken.

use crate::answers::{CHUNK_PERCENT, Progress};
use crate::arena::list_of;
use crate::beam::{Beam, Shard, Terms};
use crate::responder::Answerer;
use crate::writes::{Writes, commit_function, entries};
use crate::{atoms, measure};
use batcher_core::{LaneKey, Tally};
use batcher_shell::sync::{micros, millis, now};
use batcher_shell::{Batch, Ended, Event, Failure, Flight, Proxied, Taken, Verdict, WorkerId};
use parking_lot::Mutex;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A committing process.
pub(crate) struct Committer {
    pub(crate) shard: &'static Shard,
    pub(crate) id: WorkerId,
    pub(crate) pid: LocalPid,
    /// What it has taken together and not given back. Only its own process looks here.
    pub(crate) task: Mutex<Task>,
}

/// What a committer has taken together. Callers are answered, and their replies finished, part by part.
#[derive(Default)]
pub(crate) struct Task {
    pub(crate) flights: Vec<Flight<Beam>>,
    /// Replies that only a process can send, instead of these.
    sending: Option<Proxied<Beam>>,
    /// How many parts have been answered, callers of the next one perhaps.
    answered_parts: usize,
    /// The engine has heard all that it wants to know of the callers that are answered.
    is_known: bool,
    /// Something was handed over: it may be left to [finish](Self::finish).
    hands_over: bool,
    /// What the committer says of the commit.
    pub(crate) verdict: Verdict,
    /// When its callers began to be answered, which is when the backend had returned, and when all of them had been.
    returned: Option<Instant>,
    answered: Option<Instant>,
}

impl Task {
    /// The part whose callers are to be answered, if any are left.
    pub(crate) fn part(&self) -> Option<&Flight<Beam>> {
        self.flights.get(self.answered_parts)
    }

    /// Answers callers, part by part, until `answer` is not done with one. What there is to say to the calling process:
    ///
    /// - `:done`, or `:handed_over` if something is left to [finish](Self::finish)
    /// - `{:more, rest}`, `{:large, rest}`, `{:own, {to, message}, rest}`: see [`Progress`]
    pub(crate) fn answer<'a>(
        &mut self,
        env: Env<'a>,
        shard: &'static Shard,
        mut replies: Term<'a>,
        mut answer: impl FnMut(&Batch<Beam>, &mut Answerer<'_, 'a>, Term<'a>) -> NifResult<Progress<'a>>,
    ) -> NifResult<Term<'a>> {
        self.returned.get_or_insert_with(now);
        let Some(first) = self.flights.first() else { return Ok(atoms::done().encode(env)) };
        let mut answerer =
            Answerer::new(env, shard, first, &mut self.is_known, &mut self.hands_over);
        while let Some(flight) = self.flights.get(self.answered_parts) {
            answerer.lane = flight.lane;
            match answer(&flight.batch, &mut answerer, replies)? {
                Progress::Done(rest) => replies = rest,
                Progress::Failed => break,
                Progress::More(rest) => return Ok((atoms::more(), rest).encode(env)),
                Progress::Large(rest) => return Ok((atoms::large(), rest).encode(env)),
                Progress::Own(own, rest) => return Ok((atoms::own(), own, rest).encode(env)),
            }
            self.answered_parts += 1;
        }
        drop(answerer);
        self.answered = Some(now());
        Ok(if self.hands_over { atoms::handed_over() } else { atoms::done() }.encode(env))
    }

    /// Sends what was handed over and has not been sent by now, one handover at a time. True: nothing was left. And copies
    /// of what only the calling process can send: it does when it has [passed](Self::pass_finish) that.
    pub(crate) fn finish<'a>(&self, env: Env<'a>) -> (bool, Vec<Term<'a>>) {
        if let Some(sending) = &self.sending {
            let next = sending.lock().copies(env, 1);
            return (next.is_empty(), next);
        }
        let first = self.flights.first();
        first.map_or((true, Vec::new()), |first| first.batch.lock().answers.finish(env))
    }

    /// The calling process is about to send what it has got a copy of. False: others have.
    pub(crate) fn pass_finish(&self) -> bool {
        if let Some(sending) = &self.sending {
            return sending.lock().forget(1);
        }
        let first = self.flights.first();
        first.is_some_and(|first| first.batch.lock().answers.pass_finish())
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Batches of more groups are put together on a dirty scheduler.
const LONG_BATCH: u64 = 2_000;
/// Of more groups than this each may be a message of its own.
const MANY_GROUPS: u64 = 500;
/// Batches of so few groups and bytes for each lane are copied: to move memory costs more.
const SMALL_BATCH: u64 = 8;
const SMALL_BYTES: u64 = 2_048;
/// And of so few in all lanes.
const SMALL_BATCHES: u64 = 512;
const SMALL_BATCHES_BYTES: u64 = 65_536;

impl Committer {
    /// Nothing of the batch that was answered is left here when the shard hears of that.
    fn give_back<R>(&self, task: &mut Task, tell: impl FnOnce(Ended) -> R) -> R {
        let Task { flights, verdict, returned, answered, .. } = std::mem::take(task);
        let mut ended = Ended { verdict, returned, answered, late_replies: 0 };
        let long_names = flights.into_iter().filter_map(|Flight { key, batch, .. }| {
            ended.late_replies += batch.lock().answers.clear();
            measure::is_long(name_len(&key)).then_some(key)
        });
        let long_names: Vec<_> = long_names.collect();
        let told = tell(ended);
        long_names.into_iter().for_each(|name| self.shard.notify(Event::Free(name)));
        told
    }
}

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
    let committer = ResourceArc::new(Committer { shard, id, pid, task: Mutex::default() });
    committer.monitor(Some(env), &pid);
    shard.join(env, id, committer.clone());
    committer
}

/// The calling committer has answered its batch, if it had one, and takes what is next: [`batches`], which are to be
/// asked for where that takes long (`:large`), what the callers of a dead one get, which it sends itself (`:sent`),
/// replies that it is to [finish](Task::finish) (`:deliver`); or it rests, or leaves.
pub(crate) fn take<'a>(env: Env<'a>, committer: &ResourceArc<Committer>) -> Term<'a> {
    let mut task = committer.task.lock();
    let taken =
        committer.give_back(&mut task, |ended| committer.shard.take(env, committer.id, ended));
    match taken {
        Taken::Rest => atoms::rest().encode(env),
        Taken::Leave => atoms::leave().encode(env),
        Taken::Commit(taken) => {
            task.flights = taken;
            if is_long(&task.flights) {
                return atoms::large().encode(env);
            }
            batches(env, committer, &task.flights)
        }
        Taken::Answer(taken, reply) => {
            task.flights = taken;
            // By the one that has died, perhaps.
            task.hands_over = true;
            let Terms { mut arena, kept } = reply.unwrap_or_else(|| {
                let mut terms = Terms::default();
                terms.add(|env| atoms::failure(env, &Failure::CommitterDown));
                terms
            });
            arena.send(Some(env), committer.pid, |inside| {
                let reply = list_of(inside.env(), kept.iter().map(|&kept| inside.term(kept)));
                (committer, atoms::answer(), reply).encode(inside.env())
            });
            atoms::sent().encode(env)
        }
        Taken::Send(proxied) => {
            task.sending = Some(proxied);
            atoms::deliver().encode(env)
        }
    }
}

/// The calling committer has answered its batch, and rests if there is nothing to take: `:rest`. Otherwise it is to ask.
pub(crate) fn rest<'a>(env: Env<'a>, committer: &Committer, task: &mut Task) -> Term<'a> {
    let rests = committer.give_back(task, |ended| committer.shard.rest(env, committer.id, ended));
    if rests { atoms::rest() } else { atoms::done() }.encode(env)
}

/// The calling committer has answered its batch, if it had one, and takes nothing more: it is one no longer.
pub(crate) fn leave(env: Env<'_>, committer: &Committer) {
    let mut task = committer.task.lock();
    committer.give_back(&mut task, |ended| committer.shard.leave(env, committer.id, ended));
}

/// The calling committer sends replies that were handed over.
pub(crate) fn finish<'a>(env: Env<'a>, committer: &Committer) -> Term<'a> {
    let (finished, proxied) = committer.task.lock().finish(env);
    // A call that finds nothing left has sent nothing.
    if !finished && proxied.is_empty() {
        measure::consume(env, CHUNK_PERCENT);
    }
    sent(env, !finished, proxied)
}

/// What a process is told that has asked for replies to be sent: `:done`, `:more`, or `{:own, proxied}`.
pub(crate) fn sent<'a>(env: Env<'a>, more: bool, proxied: Vec<Term<'a>>) -> Term<'a> {
    if !proxied.is_empty() {
        return (atoms::own(), proxied).encode(env);
    }
    if more { atoms::more() } else { atoms::done() }.encode(env)
}

/// Whether it takes too long for a scheduler.
fn is_long(flights: &[Flight<Beam>]) -> bool {
    let groups: u64 = flights.iter().map(|flight| flight.tally.writes).sum();
    let many = |flight: &Flight<Beam>| flight.batch.lock().writes.messages() as u64;
    let many = || flights.iter().map(many).sum::<u64>() > MANY_GROUPS;
    let names = flights.iter().map(|flight| name_len(&flight.key)).sum();
    groups > LONG_BATCH || groups > MANY_GROUPS && many() || measure::is_long(names)
}

/// The calling committer gets what it has taken. Small batches are copied: `{:commit, [{lane, function, entries, info}]}`.
/// Of any other it sends itself all parts, moved, `{committer, :part, entries, bytes}`, and then
/// `{{committer, :commit, lane, function}, entries, info}`, `:with` instead of `:commit` for all but the last: `:sent`.
pub(crate) fn batches<'a>(
    env: Env<'a>,
    committer: &ResourceArc<Committer>,
    flights: &[Flight<Beam>],
) -> Term<'a> {
    if let Some(copies) = copies(env, flights) {
        return (atoms::commit(), copies).encode(env);
    }
    let last = flights.len() - 1;
    for (place, flight) in flights.iter().enumerate() {
        let name = if place == last { atoms::commit() } else { atoms::with() };
        send(env, committer, flight, name);
    }
    atoms::sent().encode(env)
}

/// Copies of all of them, if they are small together.
fn copies<'a>(env: Env<'a>, flights: &[Flight<Beam>]) -> Option<Vec<Term<'a>>> {
    let is_copied = |flight: &Flight<Beam>| flight.batch.lock().writes.came_copied;
    // None is copied unless all are; one by itself says so when it is.
    if !is_small(flights) || flights.len() > 1 && flights.iter().any(is_copied) {
        return None;
    }
    flights.iter().map(|flight| copy(env, flight)).collect()
}

/// As the engine counts them, with their tags and the names of their lanes.
fn is_small(flights: &[Flight<Beam>]) -> bool {
    let Tally { writes, bytes, .. } =
        flights.iter().fold(Tally::default(), |sum, flight| sum.plus(flight.tally));
    let lanes = flights.len() as u64;
    writes <= (lanes * SMALL_BATCH).min(SMALL_BATCHES)
        && bytes <= (lanes * SMALL_BYTES).min(SMALL_BATCHES_BYTES)
}

/// `None` if some of its writes came as copies: these are moved.
fn copy<'a>(env: Env<'a>, flight: &Flight<Beam>) -> Option<Term<'a>> {
    flight.batch.empty_writes(|writes| {
        if writes.came_copied {
            return None;
        }
        let (function, info) = told(flight, writes);
        let entries = entries(env, writes.copy(env).into_iter(), &flight.key, writes.shape);
        writes.clear();
        Some((lane_term(env, &flight.key), function, entries, info).encode(env))
    })
}

fn send(env: Env<'_>, committer: &ResourceArc<Committer>, flight: &Flight<Beam>, name: Atom) {
    let mut writes = flight.batch.take_writes();
    let (function, info) = told(flight, &writes);
    let (key, shape) = (&flight.key, writes.shape);
    let (last, parts) = writes.parts();
    for part in parts.iter_mut().filter(|part| !part.is_empty()) {
        let bytes = part.bytes;
        part.send(env, committer.pid, |env, terms| {
            (committer, atoms::part(), entries(env, terms, key, shape), bytes).encode(env)
        });
    }
    last.send(env, committer.pid, |env, terms| {
        let head = (committer, name, lane_term(env, key), function);
        (head, entries(env, terms, key, shape), info).encode(env)
    });
    writes.clear();
    flight.batch.put_back(writes);
}

/// `{{replies, cost, groups, bytes}, window_ms, waited_us, reason}`.
type Info = ((u64, u64, u64, u64), u64, u64, Atom);

/// What a committer is told of a lane in its commit: the function that fits it, and the rest.
fn told(flight: &Flight<Beam>, writes: &Writes) -> (Atom, Info) {
    let Flight { cost, tally, window, waited, reason, .. } = *flight;
    let counts = (writes.replies, cost, tally.writes, writes.bytes);
    let info = (counts, millis(window), micros(waited), atoms::reason(reason));
    let function = commit_function(flight.key.borrow(), writes.shape);
    (function, info)
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
