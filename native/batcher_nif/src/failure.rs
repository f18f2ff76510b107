//! What callers are told whose writes the backend can't answer for.

use crate::atoms;
use rustler::{Encoder, Env, Term};
use std::sync::Arc;

/// Why there is no answer from the backend.
#[derive(Clone)]
pub(crate) enum Failure {
    /// The batcher was stopped before the write left (10.3).
    ShuttingDown,
    /// The owner died, and no other came (10.4).
    OwnerDown,
    /// The committing process died with the batch (9.5).
    CommitterDown,
    /// The library itself failed (10.5).
    Crashed(Arc<str>),
}

impl Encoder for Failure {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let reason = match self {
            Failure::ShuttingDown => atoms::shutting_down().encode(env),
            Failure::OwnerDown => atoms::batcher_down().encode(env),
            // Who could tell the true reason has died as well.
            Failure::CommitterDown => (atoms::backend_exit(), atoms::killed()).encode(env),
            Failure::Crashed(text) => (atoms::batcher_crashed(), &**text).encode(env),
        };
        (atoms::error(), reason).encode(env)
    }
}
