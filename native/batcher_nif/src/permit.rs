//! What a process holds while it commits a write of its own (5.6).
//!
//! Invariant: the lane of the write goes on when the permit is given back, or when it is no more: as a term of a process
//! that has died is none any more, nobody need watch that process.

use crate::beam::Shard;
use batcher_shell::{Alone, Event};
use rustler::{Env, Resource, ResourceArc};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) struct Permit {
    shard: &'static Shard,
    alone: Alone,
    bytes: u64,
    is_given: AtomicBool,
}

#[rustler::resource_impl(name = "batcher_permit")]
impl Resource for Permit {}

impl Permit {
    /// `bytes` is what the write takes.
    pub(crate) fn new(shard: &'static Shard, alone: Alone, bytes: u64) -> ResourceArc<Self> {
        ResourceArc::new(Permit { shard, alone, bytes, is_given: AtomicBool::new(false) })
    }

    /// The calling process has committed the write. Answers how many bytes that takes.
    pub(crate) fn give_back(&self, env: Env<'_>) -> u64 {
        if !self.is_given.swap(true, Ordering::Relaxed) {
            self.shard.give_back(Some(env), self.alone);
        }
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !*self.is_given.get_mut() {
            self.shard.notify(Event::AloneDown(self.alone));
        }
    }
}
