//! Atoms, and the words of the engine and the runtime turned into them: the one place where this is done.

use batcher_core::{LaneKey, Reason, Refused};
use batcher_shell::Failure;
use rustler::{Atom, Encoder, Env, Error, NifResult, Term};

rustler::atoms! {
    alias,
    alone,
    answer,
    auto,
    backend_exit,
    batch,
    buckets,
    budget,
    batch_command_apply_budget_exceeded,
    batcher_crashed,
    batcher_down,
    batcher_overloaded,
    cancelled,
    commit,
    count,
    compound_member_apply_budget_exceeded,
    delete,
    delete_batch,
    deliver,
    done,
    eacces,
    eio,
    eisdir,
    enoent,
    enospc,
    enotsup,
    erofs,
    error,
    exit,
    flush,
    immediate,
    in_use,
    infinity,
    invalid,
    killed,
    lane,
    handed_over,
    handover,
    large,
    leave,
    max,
    mean,
    measure,
    min,
    mismatch,
    more,
    not_running,
    ok,
    oldest_commit_pid,
    own,
    part,
    put,
    put_batch,
    queue,
    queued,
    refuse,
    rest,
    sent,
    shard,
    shutting_down,
    single,
    size,
    slices,
    spawn_committers,
    spawn_responders,
    stop,
    sum,
    window,
    with,
    work,
    commit_batch = "__commit_batch_direct__",
    commit_put_batch = "__commit_put_batch_direct__",
    commit_delete_batch = "__commit_delete_batch_direct__",
}

/// What an atom stands for.
pub(crate) fn one_of<T, const N: usize>(atom: Atom, known: [(Atom, T); N]) -> NifResult<T> {
    let found = known.into_iter().find(|(name, _)| *name == atom);
    found.map(|(_, value)| value).ok_or(Error::BadArg)
}

/// What the caller hears of a refused offer.
pub(crate) fn refused(refused: Refused) -> Atom {
    match refused {
        Refused::NotRunning => not_running(),
        Refused::ShuttingDown => shutting_down(),
        Refused::Overloaded(_) => batcher_overloaded(),
        Refused::CommandBudget => batch_command_apply_budget_exceeded(),
        Refused::CompoundBudget => compound_member_apply_budget_exceeded(),
    }
}

/// What callers are told of a failure: `{:error, reason}`.
pub(crate) fn failure<'a>(env: Env<'a>, failure: &Failure) -> Term<'a> {
    let reason = match failure {
        Failure::ShuttingDown => shutting_down().encode(env),
        Failure::OwnerDown => batcher_down().encode(env),
        // The process that could tell the true reason has died as well.
        Failure::CommitterDown => (backend_exit(), killed()).encode(env),
        Failure::Crashed(text) => (batcher_crashed(), &**text).encode(env),
    };
    (error(), reason).encode(env)
}

/// Why a batch left (13.5).
pub(crate) fn reason(reason: Reason) -> Atom {
    match reason {
        Reason::Window => window(),
        Reason::Size => size(),
        Reason::Commit => commit(),
        Reason::Immediate => immediate(),
        Reason::Alone => alone(),
        Reason::Flush => flush(),
        Reason::Stop => stop(),
    }
}

/// The name of a hot lane.
pub(crate) fn hot_lane(key: &LaneKey) -> Option<Atom> {
    match key {
        LaneKey::Prefix(_) => None,
        LaneKey::Generic => Some(batch()),
        LaneKey::Put => Some(put_batch()),
        LaneKey::Delete => Some(delete_batch()),
    }
}
