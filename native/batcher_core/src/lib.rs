//! The engine of the write batcher: windows, lanes and limits, and nothing else.
//!
//! Plain Rust without a thread, a lock, a clock or I/O: every input takes the time at which it
//! happens, every output is polled. What a write *is* stays outside; the engine keeps it in a
//! contents value of the caller's choice, one per slot, so that a test can use a `Vec<u32>` and
//! the shared library an arena of terms.
//!
//! Start with [`Engine`], whose documentation gives the order of driving. Clause numbers refer to
//! `docs/contract.md`; `docs/glossary.md` has the words, `docs/tour.md` follows one write through all
//! crates.
//!
//! A file imports only from files before it: `name`, `offer`, `phase`, `answered`, `barrier`, `config`,
//! `commit`, `auto`, `pace`, `slot`, `slots`, `lane`, `due`, `cause`, `gate`, `schedule`, `prefixes`, `lanes`, `spares`,
//! `engine`, `life`, `flight`, `gauges`.

#![forbid(unsafe_code)]

mod answered;
mod auto;
mod barrier;
mod cause;
mod commit;
mod config;
mod due;
mod engine;
mod flight;
mod gate;
mod gauges;
mod lane;
mod lanes;
mod life;
mod name;
mod offer;
mod pace;
mod phase;
mod prefixes;
mod schedule;
mod slot;
mod slots;
mod spares;

pub use barrier::BarrierId;
pub use config::{CommitScope, Config, Overflow, Pacing};
pub use engine::Engine;
pub use lane::{LaneView, Tally};
pub use name::{LONG_PREFIX, LaneId, LaneKey, LaneKind, LaneRef, LongPrefix};
pub use offer::{Accepted, Bound, Group, Held, Refused, Usage};
pub use phase::Phase;
pub use slot::{Commit, Reason, Slot};
