//! The runtime of the write batcher, where threads meet: the lock of a shard, the timer that keeps the time of many,
//! the workers that take what is due, and the cursor over the callers of a batch.
//!
//! `batcher_core` decides, this crate locks, wakes and hands out what was decided, and the BEAM comes in as a [`Vm`]:
//! what terms, pids and messages are stays outside. So everything that depends on which thread comes first can be run
//! under loom, which tries all orders: see `tests/loom`.
//!
//! Start with [`Shard`], then [`Timer`]. Clause numbers refer to `docs/contract.md`; `docs/glossary.md` has the words,
//! `docs/tour.md` follows one write through all crates.
//!
//! A file imports only from those before it: `failure`, `callers`, `vm`, `sync`, `batch`, `workers`, `responders`,
//! `effects`, `lock_times`, `state`, `shard`, `look`, `take`, `turn`, `timer`.

#![forbid(unsafe_code)]

mod batch;
mod callers;
mod effects;
mod failure;
#[cfg(feature = "lock-times")]
mod lock_times;
mod look;
mod responders;
mod shard;
mod state;
pub mod sync;
mod take;
mod timer;
mod turn;
mod vm;
mod workers;

pub use batch::{Batch, Contents};
pub use callers::{Callers, Expired, KEPT};
pub use effects::{Effects, Event};
pub use failure::Failure;
#[cfg(feature = "lock-times")]
pub use lock_times::clock_ns;
pub use look::{LaneLook, SlotLook};
pub use responders::{Handover, Handovers, finish};
pub use shard::{Events, Happened, Shard};
pub use take::{Info, Taken};
pub use timer::Timer;
pub use vm::{Notice, Vm};
pub use workers::{Work, WorkerId};
