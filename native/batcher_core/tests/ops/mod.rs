//! What the random tests draw from: inputs of a shard, and what its owners ask for.
//!
//! Invariant: all of it is small, so that what is rare in life is common here.

// Each test crate uses its part of this file.
#![allow(dead_code)]

use crate::common::{ms, namespace};
use batcher_core::{CommitScope, Config, LaneKey, Overflow, Pacing, Usage};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

pub(crate) const LANES: usize = 6;

/// Lanes from this one on have long names: they are dropped whenever they are idle.
pub(crate) const LONG_NAMES: usize = 4;

/// As long as that must be for its lane to be found by a digest.
const VERY_LONG: usize = 1_024;

/// The lanes of a run.
pub(crate) fn lanes() -> [LaneKey; LANES] {
    let long = |name: &str, length| namespace(&name.repeat(length));
    [
        LaneKey::Put,
        LaneKey::Delete,
        LaneKey::Generic,
        namespace("a"),
        long("b", 300),
        long("c", VERY_LONG),
    ]
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Offer {
        lane: usize,
        cost: u64,
        bytes: u64,
        window_ms: u64,
        writer: u64,
        usage: Usage,
        waits: bool,
        apart: bool,
    },
    /// Time passes, each deadline is handled when it comes.
    Advance(u64),
    /// Time passes and nobody looks.
    Drift(u64),
    Timeout,
    /// One of the commits in flight has ended, its callers are being answered.
    Answering(usize),
    /// They have been answered.
    CommitDone(usize),
    Flush,
    Stop,
    OwnerDown,
    /// An owner with one of the two configurations.
    Open(usize),
    /// The owner changes to one of them.
    Configure(usize),
    Close,
    /// So many commits may be in flight from here on.
    Committers(usize),
    /// Whether what is abandoned is left where it is.
    Lag(bool),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let cost = prop_oneof![1 => Just(0), 8 => 1..5_u64, 1 => 5..30_u64];
    let window_ms = prop_oneof![2 => Just(0), 5 => 1..8_u64, 2 => 8..60_u64];
    let usage = (0..3_u64, 0..3_u64, 0..6_u64);
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.1));
    let offer = (0..LANES, cost, 0..20_u64, window_ms, 0..6_u64, usage, flags);
    prop_oneof![
        40 => offer.prop_map(|(lane, cost, bytes, window_ms, writer, usage, (waits, apart))| {
            let (command_items, compound_members, visits) = usage;
            let usage = Usage { command_items, compound_members, visits };
            Op::Offer { lane, cost, bytes, window_ms, writer, usage, waits, apart }
        }),
        10 => (0..LANES).prop_map(Op::Answering),
        12 => (0..12_u64).prop_map(Op::Advance),
        3 => (0..12_u64).prop_map(Op::Drift),
        2 => Just(Op::Timeout),
        20 => (0..LANES).prop_map(Op::CommitDone),
        4 => Just(Op::Flush),
        1 => Just(Op::Stop),
        2 => Just(Op::OwnerDown),
        3 => (0..2_usize).prop_map(Op::Open),
        3 => (0..2_usize).prop_map(Op::Configure),
        1 => Just(Op::Close),
        3 => (0..=LANES).prop_map(Op::Committers),
        2 => any::<bool>().prop_map(Op::Lag),
    ]
}

/// What two owners that follow each other ask for, or one that changes it. They agree on budgets: those are not changed.
pub(crate) fn configs(
    pacing: impl Strategy<Value = Pacing> + Clone,
) -> impl Strategy<Value = [Config; 2]> {
    let max = || prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), (2..12_u64).prop_map(Some)];
    let scope = || prop_oneof![Just(CommitScope::Lane), Just(CommitScope::Shard)];
    let limits = || prop_oneof![2 => 100_000..100_001_u64, 1 => 0..60_u64];
    let max_in_flight = || prop_oneof![1 => 1..LANES, 1 => Just(LANES)];
    let overflow = || prop_oneof![2 => Just(Overflow::Queue), 1 => Just(Overflow::Refuse)];
    let habits = move || (pacing.clone(), scope(), overflow());
    let maxima = move || (max(), max(), max_in_flight());
    let own = move || (habits(), maxima(), limits(), limits(), 0..40_u64);
    let budgets = (1..8_u64, 1..8_u64, 1..16_u64);
    let budgets =
        prop::option::of(budgets.prop_map(|(command_items, compound_members, visits)| Usage {
            command_items,
            compound_members,
            visits,
        }));
    (budgets, own(), own()).prop_map(|(budgets, one, other)| {
        [one, other].map(
            |((pacing, commit_scope, overflow), maxima, max_items, max_bytes, adoption_ms)| {
                let (namespace_max, hot_max, max_in_flight) = maxima;
                let linger = ms(3);
                let adoption_timeout = ms(adoption_ms);
                Config {
                    namespace_max,
                    hot_max,
                    budgets,
                    overflow,
                    pacing,
                    commit_scope,
                    linger,
                    max_in_flight,
                    max_items,
                    max_bytes,
                    adoption_timeout,
                }
            },
        )
    })
}

/// Of as many runs as `PROPTEST_CASES` says, or else so many; `file` is where those that failed are written down.
pub(crate) fn proptest_config(cases: u32, file: &'static str) -> ProptestConfig {
    let file = FileFailurePersistence::Direct(file);
    let mut config =
        ProptestConfig { failure_persistence: Some(Box::new(file)), ..Default::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    config
}
