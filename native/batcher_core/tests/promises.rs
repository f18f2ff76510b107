//! Random operations against an engine whose pacing learns (5.6). How long it holds what is not told here: each check is
//! of a promise that it keeps whatever it has learned, for each scope of commits (4.4).
//!
//! Invariant: nothing here is computed as the engine does; it is asked only for what its lanes hold.
//!
//! `PROPTEST_CASES` sets the number of runs.

mod common;
mod ops;

use batcher_core::{CommitScope, Config, Group, LaneKey, Pacing, Phase, Reason};
use common::{Departed, Driver, Event, ms, tickets};
use ops::{LANES, Op, configs, lanes, op, proptest_config};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const CASES: u32 = 3_000;
const FAILED: &str = "tests/promises.proptest-regressions";

proptest! {
    #![proptest_config(proptest_config(CASES, FAILED))]

    #[test]
    fn whatever_was_learned(
        configs in configs(prop_oneof![4 => Just(Pacing::Auto), 1 => Just(Pacing::Commit)]),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut run = Run::new(configs);
        run.apply(&Op::Open(0))?;
        for op in &ops {
            run.apply(op)?;
        }
        run.drain()?;
    }
}

type Checked<T = ()> = Result<T, TestCaseError>;

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Queued,
    InFlight,
    Over,
}

struct Commit {
    life: u64,
    parts: Vec<Departed>,
}

struct Run {
    lanes: [LaneKey; LANES],
    configs: [Config; 2],
    /// The owner's.
    config: Config,
    /// The first ticket since it has that.
    set_from: u64,
    engine: Driver,
    life: u64,
    groups: Vec<(Group, Fate)>,
    commits: Vec<Commit>,
    /// The first ticket behind the last flush.
    flushed: u64,
    /// When the last commit has ended.
    last_done: Duration,
    /// By barrier, the tickets that it waits for.
    barriers: BTreeMap<u64, Vec<u64>>,
}

impl Run {
    fn new(configs: [Config; 2]) -> Self {
        let config = configs[0].clone();
        let (engine, groups, commits) = (Driver::default(), Vec::new(), Vec::new());
        let (lanes, barriers) = (lanes(), BTreeMap::new());
        Run {
            lanes,
            configs,
            config,
            set_from: 0,
            engine,
            life: 0,
            groups,
            commits,
            flushed: 0,
            last_done: Duration::ZERO,
            barriers,
        }
    }

    fn apply(&mut self, op: &Op) -> Checked {
        let now = self.engine.now();
        match *op {
            Op::Offer { .. } => return self.offer(op),
            Op::Advance(by) => return self.advance(now + ms(by)),
            Op::Drift(by) => self.engine.drift(now + ms(by)),
            Op::Timeout => self.engine.timeout(),
            Op::Answering(nth) => {
                if let Some(lane) = self.busy(nth) {
                    self.engine.answering(self.lanes[lane].borrow());
                }
            }
            Op::CommitDone(nth) => {
                if let Some(lane) = self.busy(nth) {
                    self.last_done = self.engine.now();
                    self.done(lane)?;
                }
            }
            Op::Flush | Op::Stop => {
                let stops = matches!(op, Op::Stop);
                let waits_for = self.held_in_this_life();
                self.flushed = self.groups.len() as u64;
                let id = if stops { self.engine.stop() } else { self.engine.flush() };
                self.barriers.insert(id, waits_for);
            }
            Op::OwnerDown => self.engine.owner_down(),
            Op::Open(which) => {
                self.set(which);
                self.engine.open(self.config.clone());
            }
            Op::Configure(which) => {
                if self.engine.shard.phase() != Phase::Closed {
                    self.set(which);
                    self.engine.configure(self.config.clone());
                }
            }
            Op::Close => {
                self.engine.close();
            }
            Op::Committers(count) => self.engine.set_committers(count),
            Op::Lag(lags) => self.engine.set_lags(lags),
        }
        self.check()
    }

    fn set(&mut self, which: usize) {
        self.config = self.configs[which].clone();
        self.set_from = self.groups.len() as u64;
    }

    fn offer(&mut self, op: &Op) -> Checked {
        let Op::Offer { lane, cost, bytes, window_ms, writer, usage, waits, apart } = *op else {
            unreachable!("only called for offers");
        };
        let group = Group { cost, bytes, writer, usage, waits, apart };
        let is_empty = self.is_empty(lane);
        let may_be_alone = is_empty && waits && self.room() > 0 && self.is_auto();
        let runs = self.engine.shard.phase() == Phase::Running;
        let offered = self.engine.offer(self.lanes[lane].borrow(), group, ms(window_ms));
        let Ok(ticket) = offered else { return self.check() };
        self.groups.push((group, Fate::Queued));
        prop_assert_eq!(ticket + 1, self.groups.len() as u64);
        let happened = self.engine.take_happened();
        for (_, event) in &happened {
            if let Event::Commit(departed) = event
                && departed.reason == Reason::Alone
            {
                prop_assert!(may_be_alone && runs, "{departed:?} is not alone");
                prop_assert_eq!(&departed.tickets, &vec![ticket]);
            }
        }
        happened.into_iter().try_for_each(|(_, event)| self.note(event))?;
        self.check()?;
        // 5.3
        let view = self.engine.shard.lanes().find(|view| *view.key() == self.lanes[lane]);
        let waits = view.is_some_and(|view| view.queue().count() > 0 && view.in_flight().is_none());
        prop_assert!(!(waits && window_ms == 0 && self.could_leave()), "window 0 waits");
        Ok(())
    }

    fn advance(&mut self, to: Duration) -> Checked {
        while self.engine.step(to) {
            self.check()?;
        }
        self.engine.drift(to);
        self.check()
    }

    fn done(&mut self, lane: usize) -> Checked {
        let key = self.lanes[lane].clone();
        prop_assert!(self.engine.done(key.borrow()).is_some());
        let here = |commit: &Commit| commit.parts.iter().any(|part| part.lane == key);
        let index = self.commits.iter().position(here).expect("it is in flight");
        for part in self.commits.remove(index).parts {
            self.turn(&part.tickets, Fate::InFlight, Fate::Over)?;
        }
        Ok(())
    }

    /// First time alone gets everything out, and then a stop.
    fn drain(&mut self) -> Checked {
        for op in [Op::Committers(usize::MAX), Op::Lag(false)] {
            self.apply(&op)?;
        }
        if matches!(self.engine.shard.phase(), Phase::Orphaned(_)) {
            self.apply(&Op::Open(1))?;
        }
        for _ in 0..2 * self.groups.len() + 2 {
            self.advance(self.engine.now() + ms(60))?;
            self.apply(&Op::CommitDone(0))?;
        }
        let left = self.groups.iter().position(|&(_, fate)| fate != Fate::Over);
        prop_assert_eq!(left, None, "lost");
        self.apply(&Op::Stop)?;
        prop_assert!(self.barriers.is_empty(), "barriers that never pass: {:?}", self.barriers);
        Ok(())
    }

    fn check(&mut self) -> Checked {
        for (_, event) in self.engine.take_happened() {
            let is_alone = matches!(&event, Event::Commit(it) if it.reason == Reason::Alone);
            prop_assert!(!is_alone, "alone without a write: {event:?}");
            self.note(event)?;
        }
        if self.engine.shard.phase() == Phase::Closed {
            self.life += 1;
        }
        if self.could_leave() {
            self.check_what_waits()?;
        }
        Ok(())
    }

    /// Nothing stays that has a reason to leave, and somebody looks before any window has ended.
    fn check_what_waits(&self) -> Checked {
        let deadline = self.engine.next_deadline();
        for view in self.engine.shard.lanes().filter(|view| view.in_flight().is_none()) {
            let Some(slot) = view.queue().next() else { continue };
            let first = tickets(&slot.contents)[0];
            let max = match view.key() {
                LaneKey::Prefix(_) => self.config.namespace_max,
                _ => self.config.hot_max,
            };
            prop_assert!(first >= self.flushed, "{slot:?} was flushed");
            prop_assert!(view.queue().count() == 1, "{slot:?} is followed by another");
            // One that was filled under another maximum may be above this one.
            let is_full = first >= self.set_from && max.is_some_and(|max| slot.cost >= max);
            prop_assert!(!is_full, "{slot:?} is full");
            // Behind a commit the window counts from the end of that.
            let since = self.engine.since_start(slot.opened).max(self.last_done);
            let end = since + slot.window;
            prop_assert!(deadline.is_some_and(|at| at <= end), "{slot:?} until {deadline:?}");
        }
        Ok(())
    }

    fn note(&mut self, event: Event) -> Checked {
        match event {
            Event::Commit(departed) => {
                self.turn(&departed.tickets, Fate::Queued, Fate::InFlight)?;
                let key = &departed.lane;
                let view = self.engine.shard.lanes().find(|view| view.key() == key);
                let behind = view.into_iter().flat_map(|view| view.queue());
                let next = behind.flat_map(|slot| tickets(&slot.contents)).next();
                let last = departed.tickets.iter().max().copied();
                prop_assert!(departed.tickets.is_sorted(), "out of order: {departed:?}");
                prop_assert!(next.is_none_or(|next| Some(next) > last), "{next:?} was passed");
                if departed.is_part {
                    let commit = self.commits.last_mut().expect("it has a first part");
                    commit.parts.push(departed);
                    self.check_parts()?;
                } else {
                    self.commits.push(Commit { life: self.life, parts: vec![departed] });
                    let count = self.in_flight();
                    prop_assert!(count <= self.config.max_in_flight, "{count} in flight");
                }
            }
            Event::Abandoned { tickets } => self.turn(&tickets, Fate::Queued, Fate::Over)?,
            Event::Barrier { id } => {
                let waited = self.barriers.remove(&id);
                prop_assert!(waited.is_some(), "barrier {id} has passed twice");
                let open = waited.iter().flatten().find(|&&ticket| self.fate(ticket) != Fate::Over);
                prop_assert_eq!(open, None, "barrier {} has passed too early", id);
            }
        }
        Ok(())
    }

    /// Several parts are no more than a commit may be, and none of them goes by itself.
    fn check_parts(&self) -> Checked {
        let parts = &self.commits.last().expect("there is one").parts;
        let cost: u64 = parts.iter().map(|part| part.cost).sum();
        prop_assert_eq!(self.config.commit_scope, CommitScope::Shard);
        prop_assert!(self.config.hot_max.is_none_or(|max| cost <= max), "{parts:?}");
        let mut all = parts.iter().flat_map(|part| &part.tickets);
        prop_assert!(!all.any(|&ticket| self.group(ticket).0.apart), "{parts:?}");
        prop_assert!(parts.iter().all(|part| part.reason == parts[0].reason), "{parts:?}");
        Ok(())
    }

    fn turn(&mut self, tickets: &[u64], from: Fate, to: Fate) -> Checked {
        for &ticket in tickets {
            prop_assert_eq!(self.fate(ticket), from, "ticket {} is {:?} twice", ticket, to);
            self.groups[usize::try_from(ticket).expect("there are few")].1 = to;
        }
        Ok(())
    }

    fn group(&self, ticket: u64) -> (Group, Fate) {
        self.groups[usize::try_from(ticket).expect("there are few")]
    }

    fn fate(&self, ticket: u64) -> Fate {
        self.group(ticket).1
    }

    /// What is queued or in flight, and not of a closed life.
    fn held_in_this_life(&self) -> Vec<u64> {
        let queued = self.engine.shard.lanes().flat_map(|view| view.queue());
        let here = self.commits.iter().filter(|commit| commit.life == self.life);
        let in_flight = here.flat_map(|commit| &commit.parts).flat_map(|part| &part.tickets);
        queued.flat_map(|slot| tickets(&slot.contents)).chain(in_flight.copied()).collect()
    }

    /// Nothing that has anything to do with a write to this lane is queued or in flight.
    fn is_empty(&self, lane: usize) -> bool {
        let key = &self.lanes[lane];
        let holds = |of_lane: bool| {
            let mut lanes = self.engine.shard.lanes().filter(|view| !of_lane || view.key() == key);
            lanes.any(|view| view.queue().count() > 0)
        };
        let lane_in_flight =
            self.commits.iter().any(|commit| commit.parts.iter().any(|part| part.lane == *key));
        match self.config.commit_scope {
            CommitScope::Lane => !holds(true) && !lane_in_flight,
            CommitScope::Shard => !holds(false) && !lane_in_flight && self.in_flight() == 0,
        }
    }

    fn is_auto(&self) -> bool {
        self.config.pacing == Pacing::Auto
    }

    /// Commits of this life.
    fn in_flight(&self) -> usize {
        self.commits.iter().filter(|commit| commit.life == self.life).count()
    }

    fn room(&self) -> usize {
        self.config.max_in_flight.saturating_sub(self.in_flight())
    }

    /// An owner is there, and nothing waits for a committer.
    fn could_leave(&self) -> bool {
        let runs = matches!(self.engine.shard.phase(), Phase::Running | Phase::Stopping);
        runs && self.room() > 0 && self.engine.shard.wanted() == 0
    }

    /// One of the lanes with a commit in flight.
    fn busy(&self, nth: usize) -> Option<usize> {
        let parts = || self.commits.iter().flat_map(|commit| &commit.parts);
        let is_busy = |lane: &usize| parts().any(|part| part.lane == self.lanes[*lane]);
        let busy: Vec<usize> = (0..LANES).filter(is_busy).collect();
        busy.get(nth % busy.len().max(1)).copied()
    }
}
