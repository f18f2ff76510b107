//! The BEAM as the runtime knows it, and its shards, found by their index with the timers that keep their time.
//!
//! Invariant: a shard that was once opened stays at its place for as long as the VM lives, closed
//! or not. So a lookup takes no lock and counts no reference, and cores do not meet in it.

use crate::arena::{Arena, Kept};
use crate::atoms;
use batcher_shell::Timer;
use once_cell::sync::{Lazy, OnceCell};
use parking_lot::RwLock;
use rustler::{Decoder, Encoder, Env, NifResult, Term};
use std::collections::{HashMap, VecDeque};

/// The VM that the runtime is plugged into.
#[derive(Clone, Default)]
pub(crate) struct Beam;

pub(crate) type Shard = batcher_shell::Shard<Beam>;

/// Terms that belong to no process, and the arena that holds them.
#[derive(Default)]
pub(crate) struct Terms {
    pub(crate) arena: Arena,
    pub(crate) kept: VecDeque<Kept>,
}

impl Terms {
    pub(crate) fn add(&mut self, build: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        self.kept.push_back(self.arena.build(|inside| build(inside.env())));
    }

    /// Copies of the first of them, so many at most.
    pub(crate) fn copies<'a>(&self, env: Env<'a>, most: usize) -> Vec<Term<'a>> {
        let copy = |&kept| self.arena.enter(|inside| inside.term(kept).in_env(env));
        self.kept.iter().take(most).map(copy).collect()
    }

    /// These are forgotten. False: they have been before.
    pub(crate) fn forget(&mut self, most: usize) -> bool {
        let forgotten = self.kept.drain(..most.min(self.kept.len())).count();
        if self.kept.is_empty() {
            // Whoever holds it may look at it much later.
            self.arena.clear();
        }
        forgotten > 0
    }
}

/// Indexes below this are looked up without a lock.
const NEAR: usize = 4096;

static NEAR_SHARDS: [OnceCell<&'static Shard>; NEAR] = [const { OnceCell::new() }; NEAR];
static FAR_SHARDS: Lazy<RwLock<HashMap<u64, &'static Shard>>> = Lazy::new(Default::default);

/// The shard of this index, if it was ever opened.
pub(crate) fn find(index: u64) -> Option<&'static Shard> {
    match usize::try_from(index).ok().and_then(|near| NEAR_SHARDS.get(near)) {
        Some(cell) => cell.get().copied(),
        None => FAR_SHARDS.read().get(&index).copied(),
    }
}

/// The shard of an index, if it was ever opened. Any other term is the index of none.
#[derive(Clone, Copy)]
pub(crate) struct Found(pub(crate) Option<&'static Shard>);

impl Found {
    /// What `run` says of the shard, `:not_running` where there is none.
    pub(crate) fn run_or_not<'a>(
        self,
        env: Env<'a>,
        run: impl FnOnce(&'static Shard) -> NifResult<Term<'a>>,
    ) -> NifResult<Term<'a>> {
        self.0.map_or_else(|| Ok(atoms::not_running().encode(env)), run)
    }
}

impl<'a> Decoder<'a> for Found {
    fn decode(index: Term<'a>) -> NifResult<Self> {
        Ok(Found(index.decode().ok().and_then(find)))
    }
}

/// One timer for two cores: a batch is put together elsewhere.
static TIMERS: Lazy<Vec<Timer<Beam>>> = Lazy::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (0..cores.div_ceil(2)).map(|_| Timer::default()).collect()
});

/// The timer of the shard of this index, and its number.
pub(crate) fn timer(index: u64) -> (usize, &'static Timer<Beam>) {
    let timers = &*TIMERS;
    let number = usize::try_from(index % timers.len() as u64).unwrap_or(0);
    (number, &timers[number])
}

/// All shards that were ever opened.
pub(crate) fn all() -> impl Iterator<Item = &'static Shard> {
    let far: Vec<_> = FAR_SHARDS.read().values().copied().collect();
    NEAR_SHARDS.iter().filter_map(|cell| cell.get().copied()).chain(far)
}

/// The shard of this index, made if need be.
pub(crate) fn find_or_make(index: u64) -> &'static Shard {
    let make = || -> &'static Shard {
        let (_number, timer) = timer(index);
        Box::leak(Box::new(Shard::new(index, timer.events())))
    };
    match usize::try_from(index).ok().and_then(|near| NEAR_SHARDS.get(near)) {
        Some(cell) => cell.get_or_init(make),
        None => FAR_SHARDS.write().entry(index).or_insert_with(make),
    }
}
