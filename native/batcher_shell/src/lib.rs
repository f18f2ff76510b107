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
//! A file imports only from files before it: `callers`, `counts`, `total`, `vm`, `alone`, `sync`, `distributions`,
//! `batch`, `responders`, `workers`, `lock_times`, `effects`, `flight`, `state`, `shard`, `life`, `look`, `gauges`,
//! `metrics`, `stats`, `turn`, `timer`.

#![forbid(unsafe_code)]

mod alone;
mod batch;
mod callers;
mod counts;
mod distributions;
mod effects;
mod flight;
mod gauges;
mod life;
#[cfg(feature = "lock-times")]
mod lock_times;
mod look;
mod metrics;
mod responders;
mod shard;
mod state;
mod stats;
pub mod sync;
mod timer;
mod total;
mod turn;
mod vm;
mod workers;

pub use batch::{Batch, Contents};
pub use callers::{Callers, Expired, KEPT};
pub use counts::{Counts, RefusedBy, Verdict};
pub use distributions::{Distribution, Distributions, QUANTILES, Summary};
pub use effects::{Effects, Event};
pub use flight::{Ended, Flight, Taken};
pub use gauges::{CommittedBy, Gauges};
#[cfg(feature = "lock-times")]
pub use lock_times::take_lock_times;
pub use look::LaneLook;
pub use metrics::{METRICS, Metric, Read, Unit};
pub use responders::{Handover, Handovers, Responders, Sent, finish};
pub use shard::{Happened, Shard};
pub use stats::{BusyLane, Seen, Value};
pub use timer::Timer;
pub use total::bound_total;
pub use vm::{Alone, Failure, Notice, Vm};
pub use workers::{Proxied, WorkerId};
