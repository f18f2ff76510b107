//! What callers are told whose writes the backend can't answer for.

use std::any::Any;
use std::sync::Arc;

/// Why there is no answer from the backend.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The batcher was stopped before the write left (10.3).
    ShuttingDown,
    /// The owner died, and no other came (10.4).
    OwnerDown,
    /// The committing process died with the batch (9.5).
    CommitterDown,
    /// The library itself failed (10.5).
    Crashed(Arc<str>),
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> Arc<str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => Arc::from(*text),
        (None, Some(text)) => Arc::from(text.as_str()),
        (None, None) => Arc::from("panic without a text"),
    }
}
