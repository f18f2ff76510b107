//! Failures as callers are told of them.

use crate::atoms;
use batcher_shell::Failure;
use rustler::{Encoder, Env, Term};

/// `{:error, reason}`
pub(crate) fn term<'a>(env: Env<'a>, failure: &Failure) -> Term<'a> {
    let reason = match failure {
        Failure::ShuttingDown => atoms::shutting_down().encode(env),
        Failure::OwnerDown => atoms::batcher_down().encode(env),
        // Who could tell the true reason has died as well.
        Failure::CommitterDown => (atoms::backend_exit(), atoms::killed()).encode(env),
        Failure::Crashed(text) => (atoms::batcher_crashed(), &**text).encode(env),
    };
    (atoms::error(), reason).encode(env)
}
