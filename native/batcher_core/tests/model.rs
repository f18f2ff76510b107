//! Random operations, run against the engine and against a naive model of the contract.
//!
//! Invariant: after each operation both have done the same and are in the same state; at the end
//! of each run everything that was accepted has been committed or abandoned, once.
//!
//! `PROPTEST_CASES` sets the number of runs.

mod common;
mod naive;

use batcher_core::{Config, Group, LaneKey, Overflow, Pacing, Phase, Reason, Usage};
use common::{Departed, Driver, Event, ms, namespace, tickets};
use naive::{Life, Naive, Place};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::time::Duration;

const CASES: u32 = 3_000;
const LANES: usize = 6;

/// Lanes from this one on have long names: they are dropped whenever they are idle.
const LONG_NAMES: usize = 4;

/// As long as that must be for its lane to be found by a digest.
const VERY_LONG: usize = 1_024;

/// The lanes of a run.
fn lanes() -> [LaneKey; LANES] {
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
enum Op {
    Offer {
        lane: usize,
        weight: u64,
        bytes: u64,
        window_ms: u64,
        writer: u64,
        usage: Usage,
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
    Close,
    /// So many commits may be in flight from here on.
    Committers(usize),
    /// Whether what is abandoned is left where it is.
    Lag(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let weight = prop_oneof![1 => Just(0), 8 => 1..5_u64, 1 => 5..30_u64];
    let window_ms = prop_oneof![2 => Just(0), 5 => 1..8_u64, 2 => 8..60_u64];
    let usage = (0..3_u64, 0..3_u64, 0..6_u64);
    let offer = (0..LANES, weight, 0..20_u64, window_ms, 0..6_u64, usage);
    prop_oneof![
        40 => offer.prop_map(|(lane, weight, bytes, window_ms, writer, usage)| {
            let (command_items, compound_members, visits) = usage;
            let usage = Usage { command_items, compound_members, visits };
            Op::Offer { lane, weight, bytes, window_ms, writer, usage }
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
        1 => Just(Op::Close),
        3 => (0..=LANES).prop_map(Op::Committers),
        2 => any::<bool>().prop_map(Op::Lag),
    ]
}

/// What two owners that follow each other ask for. They agree on the maxima: a slot that was
/// filled under another maximum is not split.
fn configs() -> impl Strategy<Value = [Config; 2]> {
    let max = || prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), (2..12_u64).prop_map(Some)];
    let pacing = || prop_oneof![Just(Pacing::Commit), Just(Pacing::Window)];
    let limits = || prop_oneof![2 => 100_000..100_001_u64, 1 => 0..60_u64];
    let max_in_flight = || prop_oneof![1 => 1..LANES, 1 => Just(LANES)];
    let own = move || (pacing(), limits(), limits(), 0..40_u64, max_in_flight());
    let overflow = || prop_oneof![2 => Just(Overflow::Queue), 1 => Just(Overflow::Refuse)];
    let budgets = (1..8_u64, 1..8_u64, 1..16_u64);
    let budgets =
        prop::option::of(budgets.prop_map(|(command_items, compound_members, visits)| Usage {
            command_items,
            compound_members,
            visits,
        }));
    let shared = (max(), max(), budgets, overflow());
    (shared, own(), own()).prop_map(|((namespace_max, hot_max, budgets, overflow), one, other)| {
        [one, other].map(|(pacing, max_items, max_bytes, adoption_ms, max_in_flight)| {
            let linger = ms(3);
            let adoption_timeout = ms(adoption_ms);
            Config {
                namespace_max,
                hot_max,
                budgets,
                overflow,
                pacing,
                linger,
                max_in_flight,
                max_items,
                max_bytes,
                adoption_timeout,
            }
        })
    })
}

fn proptest_config() -> ProptestConfig {
    let file = FileFailurePersistence::Direct("tests/model.proptest-regressions");
    let mut config =
        ProptestConfig { failure_persistence: Some(Box::new(file)), ..Default::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn the_engine_does_what_the_contract_says(
        configs in configs(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::new(configs);
        pair.apply(&Op::Open(0))?;
        for op in &ops {
            pair.apply(op)?;
        }
        pair.drain()?;
    }
}

type Checked<T = ()> = Result<T, TestCaseError>;

struct Pair {
    lanes: [LaneKey; LANES],
    configs: [Config; 2],
    engine: Driver,
    model: Naive,
    /// How often each ticket left, by ticket.
    left: Vec<u32>,
}

impl Pair {
    fn new(configs: [Config; 2]) -> Self {
        let (engine, model) = (Driver::default(), Naive::new());
        Pair { lanes: lanes(), configs, engine, model, left: Vec::new() }
    }

    fn apply(&mut self, op: &Op) -> Checked {
        let now = self.engine.now();
        match *op {
            Op::Offer { lane, weight, bytes, window_ms, writer, usage } => {
                let (group, window) = (Group { weight, bytes, writer, usage }, ms(window_ms));
                let engine = self.engine.offer(self.lanes[lane].borrow(), group, window);
                let model = self.model.offer(now, lane, self.is_hot(lane), group, window);
                prop_assert_eq!(engine, model);
                if let Ok(ticket) = engine {
                    self.times_left(ticket);
                }
            }
            Op::Advance(by) => return self.advance(now + ms(by)),
            Op::Drift(by) => self.engine.drift(now + ms(by)),
            Op::Timeout => {
                self.engine.timeout();
                self.model.timeout(now);
            }
            Op::Answering(nth) => {
                if let Some(lane) = self.busy(nth) {
                    prop_assert!(self.engine.answering(self.lanes[lane].borrow()));
                    self.model.answering(lane);
                }
            }
            Op::CommitDone(nth) => {
                if let Some(lane) = self.busy(nth) {
                    let engine = self.engine.done(self.lanes[lane].borrow());
                    let model = self.model.commit_done(now, lane, lane < LONG_NAMES);
                    prop_assert_eq!(engine, Some(self.model.slots[model].tickets()));
                }
            }
            Op::Flush => prop_assert_eq!(self.engine.flush(), self.model.flush(now)),
            Op::Stop => prop_assert_eq!(self.engine.stop(), self.model.stop(now)),
            Op::OwnerDown => {
                self.engine.owner_down();
                self.model.owner_down(now);
            }
            Op::Open(which) => {
                self.engine.open(self.configs[which].clone());
                self.model.open(self.configs[which].clone());
            }
            Op::Close => {
                self.engine.close();
                self.model.close();
            }
            Op::Committers(count) => self.engine.set_committers(count),
            Op::Lag(lags) => self.engine.set_lags(lags),
        }
        self.compare()
    }

    fn advance(&mut self, to: Duration) -> Checked {
        while self.engine.step(to) {
            self.model.timeout(self.engine.now());
            self.compare()?;
        }
        self.engine.drift(to);
        self.compare()
    }

    /// Whatever the state, an owner that stops gets everything out.
    fn drain(&mut self) -> Checked {
        self.apply(&Op::Committers(2))?;
        self.apply(&Op::Lag(false))?;
        if matches!(self.model.life, Life::Orphaned(_)) {
            self.apply(&Op::Open(1))?;
        }
        self.apply(&Op::Stop)?;
        for _ in 0..=self.left.len() {
            self.apply(&Op::CommitDone(0))?;
        }
        prop_assert_eq!(self.engine.shard.in_flight(), 0);
        let held: Vec<u32> = self.left.iter().copied().filter(|&times| times != 1).collect();
        prop_assert_eq!(held, Vec::<u32>::new(), "lost or doubled");

        // Nothing is counted any more: an empty shard takes any one group, and only one.
        let most = self.configs.iter().map(|config| config.max_items.max(config.max_bytes)).max();
        let huge = most.unwrap_or_default() + 1;
        let (lane, usage) = (LONG_NAMES - 1, Usage::default());
        let huge = Op::Offer { lane, weight: huge, bytes: huge, window_ms: 0, writer: 0, usage };
        for op in [Op::Close, Op::Open(0), huge.clone(), huge, Op::CommitDone(0)] {
            self.apply(&op)?;
        }
        Ok(())
    }

    /// One of the lanes with a commit in flight.
    fn busy(&self, nth: usize) -> Option<usize> {
        let busy: Vec<usize> =
            (0..LANES).filter(|&lane| self.model.in_flight(lane).is_some()).collect();
        busy.get(nth % busy.len().max(1)).copied()
    }

    fn is_hot(&self, lane: usize) -> bool {
        !matches!(self.lanes[lane], LaneKey::Prefix(_))
    }

    fn max(&self, lane: usize) -> Option<u64> {
        let [config, _] = &self.configs;
        if self.is_hot(lane) { config.hot_max } else { config.namespace_max }
    }

    fn compare(&mut self) -> Checked {
        self.compare_events()?;
        self.compare_state()?;
        (0..LANES).try_for_each(|lane| self.compare_lane(lane))
    }

    fn compare_events(&mut self) -> Checked {
        let mut passed = Vec::new();
        for (at, event) in self.engine.take_happened() {
            prop_assert_eq!(at, self.engine.now());
            match event {
                Event::Commit(departed) => self.check_commit(departed)?,
                Event::Abandoned { tickets } => self.check_abandoned(tickets)?,
                Event::Barrier { id } => passed.push(id),
            }
        }
        let left_behind = self.model.slots.iter().find(|slot| slot.place == Place::Abandoned);
        let told = left_behind.is_none() || self.engine.lags();
        prop_assert!(told, "abandoned and not told: {left_behind:?}");
        passed.sort_unstable();
        prop_assert_eq!(passed, self.model.passed(), "barriers");
        Ok(())
    }

    fn check_commit(&mut self, departed: Departed) -> Checked {
        let lane = self.lanes.iter().position(|lane| *lane == departed.lane);
        let lane = lane.expect("the engine names lanes that were written to");
        let next = self.model.next_to_leave();
        let slot = next.iter().copied().find(|&slot| self.model.slots[slot].lane == lane);
        let Some(slot) = slot else {
            let next: Vec<_> = next.iter().map(|&slot| &self.model.slots[slot]).collect();
            return Err(TestCaseError::fail(format!("{departed:?} left instead of {next:?}")));
        };
        let max = self.max(lane);
        let within = max.is_none_or(|max| departed.weight <= max || departed.tickets.len() == 1);
        prop_assert!(within, "{departed:?} is above {max:?}");
        let reasons: Vec<Reason> = self.model.leave(slot);
        prop_assert!(reasons.contains(&departed.reason), "{departed:?} left for {reasons:?}");
        self.count(&departed.tickets);
        let slot = &self.model.slots[slot];
        prop_assert_eq!(departed.tickets, slot.tickets());
        prop_assert_eq!(departed.weight, slot.weight());
        prop_assert_eq!((departed.opened, departed.window), (slot.opened, slot.window));
        Ok(())
    }

    fn check_abandoned(&mut self, tickets: Vec<u64>) -> Checked {
        self.count(&tickets);
        let mut slots = self.model.slots.iter_mut();
        let slot = slots.find(|slot| slot.place == Place::Abandoned && slot.tickets() == tickets);
        prop_assert!(slot.is_some(), "abandoned for no reason: {tickets:?}");
        slot.expect("just seen").place = Place::Answered;
        Ok(())
    }

    fn count(&mut self, tickets: &[u64]) {
        for &ticket in tickets {
            *self.times_left(ticket) += 1;
        }
    }

    /// A commit may leave before its offer has returned: whoever comes first makes the entry.
    fn times_left(&mut self, ticket: u64) -> &mut u32 {
        let ticket = usize::try_from(ticket).expect("there are few");
        self.left.resize(self.left.len().max(ticket + 1), 0);
        &mut self.left[ticket]
    }

    fn compare_state(&self) -> Checked {
        let shard = &self.engine.shard;
        let life = match shard.phase() {
            Phase::Closed => Life::Closed,
            Phase::Running => Life::Running,
            Phase::Stopping => Life::Stopping,
            Phase::Orphaned(until) => Life::Orphaned(self.engine.since_start(until)),
        };
        prop_assert_eq!(life, self.model.life);
        prop_assert_eq!(self.engine.next_deadline(), self.model.next_deadline(), "deadline");
        prop_assert_eq!(shard.wanted(), self.model.wanted(), "wanted");
        prop_assert!(shard.wanted() == 0 || self.engine.free_committers() == 0, "held back");
        let in_flight = (0..LANES).filter(|&lane| self.model.in_flight(lane).is_some()).count();
        prop_assert_eq!(shard.in_flight(), in_flight, "in flight");
        Ok(())
    }

    fn compare_lane(&mut self, lane: usize) -> Checked {
        let name = &self.lanes[lane];
        let slots = &self.model.slots;
        let queued: Vec<_> =
            self.model.queued(lane).iter().map(|&slot| slots[slot].tickets()).collect();
        let in_flight = self.model.in_flight(lane).map(|slot| slots[slot].tickets());
        let view = self.engine.shard.lanes().find(|view| view.key() == name);
        if let Some(view) = view {
            let here: Vec<_> = view.queue().map(|slot| tickets(&slot.contents)).collect();
            prop_assert_eq!(&here, &queued, "queue of lane {}", lane);
            let here = view.in_flight().map(|slot| tickets(&slot.contents));
            prop_assert_eq!(&here, &in_flight, "in flight in lane {}", lane);
        } else {
            prop_assert!(queued.is_empty() && in_flight.is_none(), "lane {} is forgotten", lane);
        }
        Ok(())
    }
}
