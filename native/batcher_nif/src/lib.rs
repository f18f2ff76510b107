//! The write batcher as the BEAM loads it: the functions of
//! `Ferricstore.Raft.WARaftBackend.Batcher.Native`, whose documentation says what each is for.
//!
//! Nothing is decided here: windows, lanes and limits are `batcher_core`'s, the locks and the timers
//! are `batcher_shell`'s. This crate copies terms and sends messages.
//!
//! Start with the functions below: each is a door, and hardly more. Clause numbers refer to
//! `docs/contract.md`; `docs/glossary.md` has the words, `docs/tour.md` follows one write through all
//! crates.
//!
//! A file imports only from files before it: `atoms`, `arena`, `beam`, `measure`, `caller`, `responder`,
//! `writes`, `answers`, `committer`, `owner`, `watch`, `offer`, `snapshot`, `stats`, `lock`, `vm`.

#![deny(unsafe_code)]

mod answers;
mod arena;
mod atoms;
mod beam;
mod caller;
mod committer;
mod lock;
mod measure;
mod offer;
mod owner;
mod responder;
mod snapshot;
mod stats;
mod vm;
mod watch;
mod writes;

use answers::{Chunk, Progress};
use batcher_core::{BarrierId, CommitScope, Config, Overflow, Pacing};
use batcher_shell::{Alone, Read};
use beam::{Found, Shard, Terms};
use committer::Committer;
use offer::{Numbers, Offer, usage};
use responder::Responder;
use rustler::{Atom, Encoder, Env, Error, LocalPid, NifResult, ResourceArc, Term};
use std::time::Duration;
use vm::Waiter;

rustler::init!("Elixir.Ferricstore.Raft.WARaftBackend.Batcher.Native", load = load);

fn load(_env: Env<'_>, _info: Term<'_>) -> bool {
    arena::free_at_once();
    true
}

/// Options as the BEAM side has checked them; see `Options.native/2` there.
type Options =
    ((Option<u64>, Option<u64>, usize), (Atom, Atom, Atom), (u64, u64), u64, Option<Numbers>);

fn config(options: Options) -> NifResult<Config> {
    let (maxima, habits, limits, adoption_ms, budgets) = options;
    let (namespace_max, hot_max, max_in_flight) = maxima;
    let (pacing, commit_scope, overflow) = habits;
    Ok(Config {
        namespace_max,
        hot_max,
        max_in_flight,
        budgets: budgets.map(usage),
        overflow: atoms::one_of(
            overflow,
            [(atoms::queue(), Overflow::Queue), (atoms::refuse(), Overflow::Refuse)],
        )?,
        pacing: atoms::one_of(
            pacing,
            [
                (atoms::commit(), Pacing::Commit),
                (atoms::window(), Pacing::Window),
                (atoms::auto(), Pacing::Auto),
            ],
        )?,
        commit_scope: atoms::one_of(
            commit_scope,
            [(atoms::lane(), CommitScope::Lane), (atoms::shard(), CommitScope::Shard)],
        )?,
        max_items: limits.0,
        max_bytes: limits.1,
        adoption_timeout: Duration::from_millis(adoption_ms),
        ..Config::default()
    })
}

#[rustler::nif]
fn open<'a>(env: Env<'a>, shard: u64, options: Options) -> NifResult<Term<'a>> {
    Ok(match owner::open(beam::find_or_make(shard), env, config(options)?) {
        Ok(committers) => (atoms::ok(), committers).encode(env),
        Err(error) => (atoms::error(), error.to_string()).encode(env),
    })
}

#[rustler::nif]
fn bound_total(bytes: Option<u64>) -> Atom {
    batcher_shell::bound_total(bytes);
    atoms::ok()
}

#[rustler::nif]
fn configure(env: Env<'_>, shard: Found, options: Options) -> NifResult<Atom> {
    if let Some(shard) = shard.0 {
        shard.configure(env, config(options)?);
    }
    Ok(atoms::ok())
}

#[rustler::nif(name = "open?")]
fn is_open(shard: Found) -> bool {
    shard.0.is_some_and(Shard::is_open)
}

#[rustler::nif]
fn close(env: Env<'_>, shard: Found) -> Atom {
    if let Some(shard) = shard.0 {
        shard.close(env);
    }
    atoms::ok()
}

#[rustler::nif]
#[expect(clippy::too_many_arguments, reason = "a function of the BEAM's has no structs")]
fn offer<'a>(
    env: Env<'a>,
    shard: Found,
    lane: Term<'a>,
    item: Term<'a>,
    count: u64,
    window_ms: u64,
    from: Term<'a>,
    wait_ms: Option<u64>,
    usage: Option<Numbers>,
) -> NifResult<Term<'a>> {
    let offer = Offer { lane, item, count, window_ms, from, wait_ms, usage };
    shard.run_or_not(env, |shard| offer.make(env, shard))
}

/// The same for a large item, tag or name.
#[rustler::nif(schedule = "DirtyCpu")]
#[expect(clippy::too_many_arguments, reason = "a function of the BEAM's has no structs")]
fn offer_large<'a>(
    env: Env<'a>,
    shard: Found,
    lane: Term<'a>,
    item: Term<'a>,
    count: u64,
    window_ms: u64,
    from: Term<'a>,
    wait_ms: Option<u64>,
    usage: Option<Numbers>,
) -> NifResult<Term<'a>> {
    let offer = Offer { lane, item, count, window_ms, from, wait_ms, usage };
    shard.run_or_not(env, |shard| offer.make_large(env, shard))
}

#[rustler::nif]
fn give_back(env: Env<'_>, shard: Found, permit: u64, how: Atom) -> NifResult<Atom> {
    let verdict = stats::verdict(how)?;
    if let Some(shard) = shard.0 {
        shard.give_back(Some(env), Alone(permit), verdict);
    }
    Ok(atoms::ok())
}

#[rustler::nif]
fn flush<'a>(env: Env<'a>, shard: Found, tag: Term<'a>) -> Term<'a> {
    barrier(env, shard, tag, false)
}

#[rustler::nif]
fn stop<'a>(env: Env<'a>, shard: Found, tag: Term<'a>) -> Term<'a> {
    barrier(env, shard, tag, true)
}

fn barrier<'a>(env: Env<'a>, shard: Found, tag: Term<'a>, stops: bool) -> Term<'a> {
    let waiter = Waiter::new(env.pid(), tag);
    match shard.0.and_then(|shard| shard.flush(env, waiter, stops)) {
        Some(BarrierId(number)) => number.encode(env),
        None => atoms::not_running().encode(env),
    }
}

#[rustler::nif]
fn cancel_flush(shard: Found, barrier: u64) -> Atom {
    let forgotten = shard.0.is_some_and(|shard| shard.cancel_barrier(BarrierId(barrier)));
    if forgotten { atoms::cancelled() } else { atoms::sent() }
}

#[rustler::nif]
fn join(env: Env<'_>, shard: Found) -> NifResult<Term<'_>> {
    let shard = shard.0.ok_or(Error::BadArg)?;
    Ok(committer::join(env, shard).encode(env))
}

#[rustler::nif]
fn take(env: Env<'_>, committer: ResourceArc<Committer>) -> Term<'_> {
    committer::take(env, &committer)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn take_large(env: Env<'_>, committer: ResourceArc<Committer>) -> Term<'_> {
    committer::batches(env, &committer, &committer.task.lock().flights)
}

#[rustler::nif]
fn answer<'a>(
    env: Env<'a>,
    committer: ResourceArc<Committer>,
    how: Atom,
    replies: Term<'a>,
    rests: bool,
) -> NifResult<Term<'a>> {
    let (sliced, mut chunk) = (how == atoms::slices(), Chunk::new());
    let mut task = committer.task.lock();
    task.verdict = stats::verdict(how)?;
    let progress = task.answer(env, committer.shard, replies, |batch, answerer, replies| {
        batch.lock().answers.answer(answerer, replies, sliced, &mut chunk)
    });
    if task.part().is_some() {
        measure::consume(env, chunk.percent());
    }
    if rests && progress.as_ref().is_ok_and(|&progress| atoms::done() == progress) {
        return Ok(committer::rest(env, &committer, &mut task));
    }
    progress
}

/// One caller's large reply, copied before the lock of its batch is taken, on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn answer_large<'a>(
    env: Env<'a>,
    committer: ResourceArc<Committer>,
    how: Atom,
    replies: Term<'a>,
) -> NifResult<Term<'a>> {
    let (sliced, mut is_first) = (how == atoms::slices(), true);
    let mut task = committer.task.lock();
    task.answer(env, committer.shard, replies, |batch, answerer, replies| {
        if !std::mem::take(&mut is_first) {
            return Ok(Progress::More(replies));
        }
        answers::answer_large(batch, answerer, replies, sliced)
    })
}

#[rustler::nif]
fn pass(committer: ResourceArc<Committer>) -> bool {
    let task = committer.task.lock();
    task.part().is_some_and(|flight| flight.batch.lock().answers.pass())
}

#[rustler::nif]
fn finish(env: Env<'_>, committer: ResourceArc<Committer>) -> Term<'_> {
    committer::finish(env, &committer)
}

#[rustler::nif]
fn pass_finish(committer: ResourceArc<Committer>) -> bool {
    committer.task.lock().pass_finish()
}

#[rustler::nif]
fn join_responder(env: Env<'_>, shard: Found) -> NifResult<Term<'_>> {
    let shard = shard.0.ok_or(Error::BadArg)?;
    Ok(Responder::join(env, shard).encode(env))
}

#[rustler::nif]
fn respond(env: Env<'_>, responder: ResourceArc<Responder>) -> Term<'_> {
    let (more, proxied) = responder.send_first(env);
    committer::sent(env, more, proxied)
}

#[rustler::nif]
fn pass_respond(responder: ResourceArc<Responder>) -> bool {
    responder.pass()
}

#[rustler::nif]
fn gathered(committer: ResourceArc<Committer>) -> Option<u64> {
    let lane = committer.task.lock().flights.first()?.lane;
    committer.shard.gathered(lane)
}

#[rustler::nif]
fn retire(committer: ResourceArc<Committer>, keep: usize) -> bool {
    committer.shard.retire(committer.id, keep)
}

#[rustler::nif]
fn leave(env: Env<'_>, committer: ResourceArc<Committer>) -> Atom {
    committer::leave(env, &committer);
    atoms::ok()
}

#[rustler::nif]
fn committer_down<'a>(env: Env<'a>, shard: Found, pid: LocalPid, reply: Term<'a>) -> Atom {
    if let Some(shard) = shard.0 {
        let mut terms = Terms::default();
        terms.add(|env| reply.in_env(env));
        shard.explain_death(env, |committer| committer.pid == pid, terms);
    }
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn lanes<'a>(env: Env<'a>, shard: Found) -> NifResult<Term<'a>> {
    shard.run_or_not(env, |shard| Ok(snapshot::lanes(env, shard)))
}

#[rustler::nif]
fn metrics(env: Env<'_>) -> NifResult<Term<'_>> {
    stats::metrics(env)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn stats<'a>(env: Env<'a>, shard: Found) -> NifResult<Term<'a>> {
    shard.run_or_not(env, |shard| stats::stats(env, shard, |_all| true))
}

#[rustler::nif]
fn numbers<'a>(env: Env<'a>, shard: Found) -> NifResult<Term<'a>> {
    shard.run_or_not(env, |shard| stats::stats(env, shard, Read::is_quick))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn forget_stats(shard: Found) -> Atom {
    if let Some(shard) = shard.0 {
        shard.forget_stats();
    }
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn busiest_lanes<'a>(env: Env<'a>, shard: Found, count: u64) -> NifResult<Term<'a>> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    shard.run_or_not(env, |shard| Ok(stats::busiest(env, shard, count)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn shards() -> Vec<u64> {
    beam::all().filter(|shard| shard.is_open()).map(|shard| shard.index).collect()
}

#[rustler::nif]
fn take_refused(env: Env<'_>, shard: Found) -> NifResult<Vec<(Atom, u64)>> {
    shard.0.map_or(Ok(vec![]), |shard| stats::take_refused(env, shard))
}

#[rustler::nif]
fn refused(shard: Found, cause: Atom) -> NifResult<Atom> {
    let cause = stats::cause(cause)?;
    if let Some(shard) = shard.0 {
        shard.refuse(cause);
    }
    Ok(atoms::ok())
}

#[rustler::nif]
fn directly(shard: Found) -> Atom {
    if let Some(shard) = shard.0 {
        shard.commit_directly();
    }
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyIo")]
fn lock_file(env: Env<'_>, path: String) -> Term<'_> {
    match lock::take(path) {
        Ok(()) => atoms::ok().encode(env),
        Err(why) => (atoms::error(), why).encode(env),
    }
}

#[rustler::nif(schedule = "DirtyIo")]
fn unlock_file(path: &str) -> Atom {
    lock::give_back(path);
    atoms::ok()
}

/// Makes the timer of the shard panic while it serves that.
#[cfg(feature = "seams")]
#[rustler::nif]
fn panic_thread(shard: Found) -> Atom {
    if let Some(shard) = shard.0 {
        shard.notify(batcher_shell::Event::Panic);
    }
    atoms::ok()
}

/// How long calls have held the locks of shards: `{[{ns, count}], cost of a look at the clock}`.
#[cfg(feature = "lock-times")]
#[rustler::nif(schedule = "DirtyCpu")]
fn lock_times() -> (Vec<(u64, u64)>, u64) {
    batcher_shell::take_lock_times()
}
