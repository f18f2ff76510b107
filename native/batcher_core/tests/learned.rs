//! What pacing learns from callers that come back again and again (5.6): the engine under a host of a few closed loops,
//! on a virtual clock.
//!
//! Invariant: nothing here depends on how much is learned from one commit: each test looks at the end of a long run.

mod common;

use batcher_core::{CommitScope, Config, Group, LaneKey, Pacing, Reason, Usage};
use common::{Departed, Driver, Event, ms, namespace};
use std::time::Duration;

const COMMIT: Duration = Duration::from_millis(100);
/// A window that does not end while a commit is in flight.
const LONG: Duration = Duration::from_millis(500);
/// After so many commits what there is to learn has been learned.
const LEARNING: usize = 60;
const LOOKED_AT: usize = 20;

/// A commit: when it left, and its parts.
type Left = (Duration, Vec<Departed>);

/// Callers that write again so long after each answer.
struct Host {
    driver: Driver,
    config: Config,
    thinks: Vec<Duration>,
    window: Duration,
    waits: bool,
    /// When who writes next.
    next: Vec<(Duration, usize)>,
    /// When what is in flight in this lane ends.
    ends: Vec<(Duration, LaneKey)>,
    /// By ticket, who wrote it.
    writers: Vec<usize>,
    left: Vec<Left>,
}

impl Host {
    fn new(config: Config, thinks: &[Duration], window: Duration) -> Self {
        let mut driver = Driver::default();
        let config = Config { pacing: Pacing::Auto, ..config };
        driver.open(config.clone());
        let next = thinks.iter().copied().zip(0..).collect();
        let (ends, writers, left) = (Vec::new(), Vec::new(), Vec::new());
        let thinks = thinks.to_vec();
        Host { driver, config, thinks, window, waits: true, next, ends, writers, left }
    }

    /// Commits until so many have left; the last of them.
    fn run(&mut self) -> &[Left] {
        while self.left.len() < LEARNING + LOOKED_AT {
            self.step();
        }
        &self.left[LEARNING..]
    }

    /// Something happens: the end of a commit, or else a write. Before that, whatever the engine does by itself.
    fn step(&mut self) {
        self.next.sort_unstable();
        let end = self.ends.iter().map(|&(at, _)| at).min();
        let write = self.next.first().map(|&(at, _)| at);
        let at =
            end.into_iter().chain(write).min().expect("somebody writes, or waits for an answer");
        self.driver.advance(at);
        self.note();
        if end == Some(at) {
            let ended = self.ends.iter().position(|&(end, _)| end == at).expect("one ends now");
            let (_, lane) = self.ends.remove(ended);
            let commit = self.left.iter().rev().find(|(_, parts)| parts[0].lane == lane);
            let tickets = commit.into_iter().flat_map(|(_, parts)| parts);
            let tickets: Vec<u64> = tickets.flat_map(|part| part.tickets.clone()).collect();
            assert!(self.driver.done(lane.borrow()).is_some());
            for ticket in tickets {
                let writer = self.writers[usize::try_from(ticket).expect("there are few")];
                self.next.push((at + self.thinks[writer], writer));
            }
        } else if write == Some(at) {
            let (_, writer) = self.next.remove(0);
            self.write(writer);
        }
        self.note();
    }

    fn write(&mut self, writer: usize) {
        // Each has a lane of its own where that makes no difference.
        let lane = match self.config.commit_scope {
            CommitScope::Lane => LaneKey::Put,
            CommitScope::Shard => namespace(&format!("of {writer}")),
        };
        let (usage, waits) = (Usage::default(), self.waits);
        let group = Group { cost: 1, bytes: 1, writer: writer as u64, usage, waits, apart: false };
        self.driver.offer(lane.borrow(), group, self.window).expect("there is room");
        self.writers.push(writer);
    }

    fn note(&mut self) {
        for (at, event) in self.driver.take_happened() {
            let Event::Commit(departed) = event else { continue };
            if departed.is_part {
                self.left.last_mut().expect("it has a first part").1.push(departed);
            } else {
                self.ends.push((at + COMMIT, departed.lane.clone()));
                self.left.push((at, vec![departed]));
            }
        }
    }

    /// All write, close behind each other, when nobody has for a while, until their commits have ended.
    fn burst(&mut self) {
        let start = self.driver.now() + LONG;
        for (think, writer) in self.thinks.clone().into_iter().zip(0..) {
            self.driver.advance(start + think);
            self.write(writer);
            self.note();
        }
        while !self.ends.is_empty() {
            let (at, lane) = self.ends.remove(0);
            self.driver.advance(at);
            self.driver.done(lane.borrow());
            self.note();
        }
    }

    /// Goes on until somebody is held.
    fn run_until_held(&mut self) {
        self.run();
        let most = 1_000;
        for _ in 0..most {
            self.step();
            let queued = self.driver.shard.lanes().any(|view| view.queue().count() > 0);
            if queued && self.driver.shard.commits() == 0 {
                return;
            }
        }
        panic!("nothing was held in {most} steps");
    }
}

fn scopes() -> [Config; 2] {
    let lane = Config::default();
    [Config { commit_scope: CommitScope::Shard, max_in_flight: 1, ..lane.clone() }, lane]
}

fn groups(parts: &[Departed]) -> usize {
    parts.iter().map(|part| part.tickets.len()).sum()
}

fn four() -> [Duration; 4] {
    [ms(1), ms(2), ms(3), ms(4)]
}

#[test]
fn those_that_come_back_are_waited_for_and_no_longer() {
    for config in scopes() {
        let mut host = Host::new(config.clone(), &four(), LONG);
        let mut last = None;
        for (at, parts) in host.run() {
            assert_eq!(groups(parts), 4, "at {at:?} with {:?}", config.commit_scope);
            // The last of them is back 4 ms after a commit.
            let period = last.map(|last| *at - last);
            assert!(period.is_none_or(|period| period == COMMIT + ms(4)), "held for {period:?}");
            last = Some(*at);
        }
    }
}

#[test]
fn many_are_not_held_for_one() {
    for config in scopes() {
        let mut thinks = vec![ms(1); 50];
        thinks.push(ms(20));
        let mut host = Host::new(config, &thinks, LONG);
        for commits in host.run().windows(2) {
            let [(before, _), (at, parts)] = commits else { unreachable!("windows of two") };
            let held = *at - (*before + COMMIT);
            assert!(held < ms(10), "{} were held for {held:?}", groups(parts));
        }
    }
}

#[test]
fn one_that_comes_late_is_alone() {
    for config in scopes() {
        let mut host = Host::new(config, &[ms(300)], LONG);
        let mut reasons = host.run().iter().flat_map(|(_, parts)| parts).map(|part| part.reason);
        assert!(reasons.all(|reason| reason == Reason::Alone));
        let mut host = Host { waits: false, ..Host::new(host.config, &[ms(300)], LONG) };
        let mut reasons = host.run().iter().flat_map(|(_, parts)| parts).map(|part| part.reason);
        assert!(reasons.all(|reason| reason == Reason::Commit));
    }
}

#[test]
fn nothing_is_held_longer_than_its_window() {
    for config in scopes() {
        for window in [0, 1, 2] {
            let mut host = Host::new(config.clone(), &four(), ms(window));
            for commits in host.run().windows(2) {
                let [(before, _), (at, parts)] = commits else { unreachable!("windows of two") };
                // Behind a commit the window counts from the end of that.
                let opened = parts.iter().map(|part| part.opened).min().expect("one at least");
                let end = opened.max(*before + COMMIT) + ms(window);
                assert!(*at <= end, "{parts:?} left at {at:?}, not until {end:?}");
            }
        }
    }
}

#[test]
fn nothing_is_held_that_is_full() {
    for config in scopes() {
        let maxima = Config { hot_max: Some(1), namespace_max: Some(1), ..config };
        let mut host = Host::new(maxima, &four(), LONG);
        for commits in host.run().windows(2) {
            let [(before, _), (at, parts)] = commits else { unreachable!("windows of two") };
            assert_eq!(groups(parts), 1);
            assert_eq!(*at, parts[0].opened.max(*before + COMMIT));
        }
    }
}

#[test]
fn a_flush_and_a_stop_end_a_hold() {
    for config in scopes() {
        for stops in [false, true] {
            let mut host = Host::new(config.clone(), &four(), LONG);
            host.run_until_held();
            let (now, before) = (host.driver.now(), host.left.len());
            if stops {
                host.driver.stop()
            } else {
                host.driver.flush()
            };
            host.note();
            assert_eq!(host.left.len(), before + 1);
            let (at, parts) = &host.left[before];
            let reason = if stops { Reason::Stop } else { Reason::Flush };
            assert_eq!((*at, parts[0].reason), (now, reason));
        }
    }
}

#[test]
fn a_hold_ends_if_nobody_comes() {
    for config in scopes() {
        let mut host = Host::new(config, &four(), LONG);
        host.run_until_held();
        let (now, before) = (host.driver.now(), host.left.len());
        // Another owner changes nothing of it.
        host.driver.owner_down();
        host.driver.open(host.config.clone());
        host.driver.advance(now + LONG);
        host.note();
        let (at, parts) = &host.left[before];
        assert_eq!(parts[0].reason, Reason::Window);
        assert!(*at - now <= COMMIT / 4, "held for {:?}", *at - now);
    }
}

#[test]
fn what_is_learned_outlives_an_owner_and_ends_with_its_life() {
    for config in scopes() {
        for closes in [false, true] {
            let mut host = Host::new(config.clone(), &four(), LONG);
            for _ in 0..LEARNING {
                host.burst();
            }
            if closes {
                host.driver.close();
            } else {
                host.driver.owner_down();
            }
            host.driver.open(host.config.clone());
            let now = host.driver.now();
            host.driver.advance(now + LONG);
            host.write(0);
            host.note();
            let (left, parts) = host.left.last().expect("there were bursts");
            let is_alone = *left == now + LONG && parts[0].reason == Reason::Alone;
            assert_eq!(is_alone, closes, "{:?}", config.commit_scope);
        }
    }
}

#[test]
fn a_hold_outlives_what_else_comes_back() {
    // With two commits at once the parts of one come back while what others wrote is held.
    let config = Config { commit_scope: CommitScope::Shard, max_in_flight: 2, ..Config::default() };
    let mut host = Host::new(config, &[ms(1), ms(2), ms(3), ms(4), ms(60)], ms(500));
    for (at, parts) in host.run() {
        let opened = parts.iter().map(|part| part.opened).min().expect("one at least");
        assert!(*at - opened <= 2 * COMMIT, "{parts:?} left at {at:?}");
    }
}

#[test]
fn a_commit_of_a_closed_life_ends_no_hold() {
    let [config, _] = scopes();
    let mut host = Host::new(config, &four(), LONG);
    let group = Group { cost: 1, bytes: 1, ..Group::default() };
    host.driver.offer(LaneKey::Put.borrow(), group, Duration::ZERO).expect("there is room");
    host.driver.take_happened();
    host.writers.push(0);
    host.driver.close();
    host.driver.open(host.config.clone());
    host.run_until_held();
    assert!(host.driver.done(LaneKey::Put.borrow()).is_some());
    assert!(host.driver.take_happened().is_empty(), "what is held goes on being held");
}
