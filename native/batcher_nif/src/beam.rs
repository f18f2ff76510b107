//! The names under which the parts of the runtime are known here.

use crate::arena::{Arena, Kept};

/// The VM that the runtime is plugged into.
pub(crate) enum Beam {}

pub(crate) type Shard = batcher_shell::Shard<Beam>;
pub(crate) type Event = batcher_shell::Event<Beam>;
pub(crate) type Work = batcher_shell::Work<Beam>;

/// Replies that only a process can send, `{to, message}` each, in an arena.
#[derive(Default)]
pub(crate) struct Proxied {
    pub(crate) arena: Arena,
    pub(crate) messages: Vec<Kept>,
}
