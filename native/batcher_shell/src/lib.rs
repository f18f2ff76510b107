//! Where threads meet: the lock of a shard, its thread, the events between them, and the cursor
//! over the callers of a batch.
//!
//! `batcher_core` decides, this crate locks, wakes and sends what was decided, and the BEAM comes in
//! as a [`Host`]: what terms, pids and messages are stays outside. So everything that depends on
//! who comes first can be run under loom, which tries all orders: see `tests/loom`.
//!
//! Start with [`Shard`]. Clause numbers refer to `docs/contract.md`.

#![forbid(unsafe_code)]

mod callers;
mod calls;
mod committer;
mod contents;
mod failure;
mod host;
#[cfg(feature = "lock-times")]
mod lock_times;
mod outbox;
mod relay;
mod shard;
mod state;
pub mod sync;
mod thread;

pub use callers::{Callers, Expired, KEPT};
pub use committer::{Departure, Info, Seat};
pub use contents::{Contents, Held};
pub use failure::Failure;
pub use host::Host;
#[cfg(feature = "lock-times")]
pub use lock_times::clock_ns;
pub use outbox::Outbox;
pub use relay::{Finished, Inbox, Relay, finish};
pub use shard::Shard;
pub use state::State;
pub use thread::Event;
