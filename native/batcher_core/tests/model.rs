//! Random operations, run against the engine and against a naive model of the contract.
//!
//! Invariant: after each operation both have done the same and are in the same state; at the end
//! of each run everything that was accepted has been committed or abandoned, once.
//!
//! `PROPTEST_CASES` sets the number of runs.

mod common;
mod naive;
mod ops;

use batcher_core::{Config, Group, LaneKey, Pacing, Phase, Reason, Usage};
use common::{Departed, Driver, Event, ms, tickets};
use naive::{Life, Naive, Place};
use ops::{LANES, LONG_NAMES, Op, configs, lanes, op, proptest_config};
use proptest::prelude::*;
use std::time::Duration;

const CASES: u32 = 3_000;
const FAILED: &str = "tests/model.proptest-regressions";

proptest! {
    #![proptest_config(proptest_config(CASES, FAILED))]

    #[test]
    fn the_engine_does_what_the_contract_says(
        configs in configs(prop_oneof![Just(Pacing::Commit), Just(Pacing::Window)]),
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
    /// Why the last commit left.
    reason: Reason,
}

impl Pair {
    fn new(configs: [Config; 2]) -> Self {
        let (engine, model) = (Driver::default(), Naive::new());
        Pair { lanes: lanes(), configs, engine, model, left: Vec::new(), reason: Reason::Stop }
    }

    fn apply(&mut self, op: &Op) -> Checked {
        let now = self.engine.now();
        match *op {
            Op::Offer { lane, cost, bytes, window_ms, writer, usage, waits, apart } => {
                let group = Group { cost, bytes, writer, usage, waits, apart };
                let window = ms(window_ms);
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
                    let model = self.model.commit_done(now, lane, |lane| lane < LONG_NAMES);
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
                self.model.open(now, self.configs[which].clone());
            }
            Op::Configure(which) => {
                self.engine.configure(self.configs[which].clone());
                self.model.configure(now, self.configs[which].clone());
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
        let (lane, usage, cost, bytes) = (LONG_NAMES - 1, Usage::default(), huge, huge);
        let (window_ms, writer, waits, apart) = (0, 0, true, false);
        let huge = Op::Offer { lane, cost, bytes, window_ms, writer, usage, waits, apart };
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

    /// The larger one: a slot that was filled under another maximum is not split.
    fn max(&self, lane: usize) -> Option<u64> {
        let max = |config: &Config| match self.is_hot(lane) {
            true => config.hot_max,
            false => config.namespace_max,
        };
        let [one, other] = self.configs.each_ref().map(max);
        Some(one?.max(other?))
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
        self.check_complete()?;
        let left_behind = self.model.slots.iter().find(|slot| slot.place == Place::Abandoned);
        let told = left_behind.is_none() || self.engine.lags();
        prop_assert!(told, "abandoned and not told: {left_behind:?}");
        passed.sort_unstable();
        prop_assert_eq!(passed, self.model.passed(), "barriers");
        Ok(())
    }

    fn check_commit(&mut self, departed: Departed) -> Checked {
        if !departed.is_part {
            self.check_complete()?;
        }
        let lane = self.lanes.iter().position(|lane| *lane == departed.lane);
        let lane = lane.expect("the engine names lanes that were written to");
        let next = if departed.is_part { self.model.parts() } else { self.model.next_to_leave() };
        let slot = next.iter().copied().find(|&slot| self.model.slots[slot].lane == lane);
        let Some(slot) = slot else {
            let next: Vec<_> = next.iter().map(|&slot| &self.model.slots[slot]).collect();
            return Err(TestCaseError::fail(format!("{departed:?} left instead of {next:?}")));
        };
        let max = self.max(lane);
        let within = max.is_none_or(|max| departed.cost <= max || departed.tickets.len() == 1);
        prop_assert!(within, "{departed:?} is above {max:?}");
        let reasons: Vec<Reason> = if departed.is_part {
            prop_assert!(self.model.fits(slot), "{departed:?} does not fit");
            self.model.leave_too(slot);
            vec![self.reason]
        } else {
            self.reason = departed.reason;
            self.model.leave(slot)
        };
        prop_assert!(reasons.contains(&departed.reason), "{departed:?} left for {reasons:?}");
        self.count(&departed.tickets);
        let slot = &self.model.slots[slot];
        prop_assert_eq!(departed.tickets, slot.tickets());
        prop_assert_eq!(departed.cost, slot.cost());
        prop_assert_eq!((departed.opened, departed.window), (slot.opened, slot.window));
        Ok(())
    }

    /// All parts of a commit have left.
    fn check_complete(&mut self) -> Checked {
        let next = self.model.parts();
        let may_end = next.is_empty() || next.iter().any(|&slot| !self.model.fits(slot));
        prop_assert!(may_end, "{:?} was left behind", self.model.slots[next[0]]);
        self.model.complete();
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
