//! Lanes come and go with the prefixes that are written to (4.1), and so do their numbers.
//!
//! Invariant: a lane that holds something is there and keeps its number; of those that hold
//! nothing only so many are kept, however many prefixes ever came.

mod common;

use batcher_core::{Config, Group, LaneId, LaneKey, Reason, Usage};
use common::{Departed, Driver, Event, ms, namespace};
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// As many idle lanes as a shard keeps.
const KEPT: usize = 1024;
const NOT_MEASURED: Usage = Usage { command_items: 0, compound_members: 0, visits: 0 };
const ONE: Group =
    Group { cost: 1, bytes: 1, writer: 0, usage: NOT_MEASURED, waits: true, apart: false };

fn all_at_once() -> Config {
    Config { max_in_flight: usize::MAX, ..Config::default() }
}

fn running() -> Driver {
    let mut driver = Driver::default();
    driver.open(all_at_once());
    driver
}

fn many(count: usize) -> Vec<LaneKey> {
    (0..count).map(|number| namespace(&format!("prefix {number}"))).collect()
}

fn offer(driver: &mut Driver, lane: &LaneKey, window: Duration) -> u64 {
    driver.offer(lane.borrow(), ONE, window).expect("a shard that runs takes it")
}

fn count(driver: &Driver) -> usize {
    driver.shard.lanes().count()
}

fn numbers(driver: &Driver) -> BTreeSet<LaneId> {
    driver.shard.lanes().map(|lane| lane.id()).collect()
}

fn commits(driver: &mut Driver) -> Vec<Departed> {
    let happened = driver.take_happened().into_iter();
    let commit =
        |(_, event)| if let Event::Commit(departed) = event { Some(departed) } else { None };
    happened.filter_map(commit).collect()
}

#[test]
fn prefixes_that_come_once_cost_nothing_later() {
    let mut driver = running();
    for lane in many(5 * KEPT) {
        offer(&mut driver, &lane, Duration::ZERO);
        assert!(driver.done(lane.borrow()).is_some());
        assert!(count(&driver) <= KEPT + 1, "{} lanes are kept", count(&driver));
    }
    assert_eq!(commits(&mut driver).len(), 5 * KEPT);
}

#[test]
fn more_busy_lanes_than_are_kept_idle() {
    let mut driver = running();
    let lanes = many(2 * KEPT);
    for lane in &lanes {
        offer(&mut driver, lane, Duration::ZERO);
    }
    assert_eq!(driver.shard.in_flight(), 2 * KEPT);
    for lane in &lanes {
        assert!(driver.done(lane.borrow()).is_some());
    }
    assert_eq!(driver.shard.in_flight(), 0);
    assert!(count(&driver) <= KEPT, "{} idle lanes are kept", count(&driver));
}

#[test]
fn nothing_of_a_dropped_lane_is_left_to_the_next_one() {
    let mut driver = running();
    let lanes = many(2 * KEPT);
    for lane in &lanes {
        offer(&mut driver, lane, Duration::ZERO);
    }
    let used = numbers(&driver);
    for lane in &lanes {
        driver.done(lane.borrow());
    }
    let kept = numbers(&driver);
    commits(&mut driver);

    for number in 0..KEPT {
        offer(&mut driver, &namespace(&format!("later {number}")), ms(5));
    }
    let dropped = &used - &kept;
    assert!(numbers(&driver).is_disjoint(&dropped), "the number of a dropped lane names another");
    assert!(kept.is_subset(&numbers(&driver)), "a lane changed its number");
    // Each new one sits out its window.
    assert_eq!(commits(&mut driver), []);
    assert_eq!(driver.next_deadline(), Some(ms(5)));
    driver.advance(ms(5));
    let left = commits(&mut driver);
    assert_eq!(left.len(), KEPT);
    assert!(left.iter().all(|departed| departed.reason == Reason::Window));
    let names: HashSet<_> = left.iter().map(|departed| departed.lane.clone()).collect();
    assert_eq!(names.len(), KEPT, "a lane left twice");
}

#[test]
fn a_lane_that_holds_something_is_never_dropped() {
    let mut driver = running();
    let (queued, busy) = (namespace("queued"), namespace("busy"));
    let waiting = offer(&mut driver, &queued, ms(50));
    let in_flight = offer(&mut driver, &busy, Duration::ZERO);
    let behind = offer(&mut driver, &busy, ms(50));
    for lane in many(2 * KEPT) {
        offer(&mut driver, &lane, Duration::ZERO);
        driver.done(lane.borrow());
    }
    commits(&mut driver);
    assert_eq!(driver.done(busy.borrow()), Some(vec![in_flight]));
    assert_eq!(commits(&mut driver)[0].tickets, [behind]);
    driver.advance(ms(50));
    assert_eq!(commits(&mut driver)[0].tickets, [waiting]);
}

#[test]
fn a_lane_with_a_long_name_is_dropped_when_it_is_idle() {
    let mut driver = running();
    let (one, other) = (namespace(&"a".repeat(5_000)), namespace(&"b".repeat(5_000)));
    offer(&mut driver, &one, Duration::ZERO);
    let number = numbers(&driver);
    offer(&mut driver, &one, ms(9));
    driver.flush();
    driver.done(one.borrow());
    assert_eq!(count(&driver), 1, "it still holds what was behind its commit");
    driver.done(one.borrow());
    assert_eq!(count(&driver), 0);
    commits(&mut driver);

    // The next one gets neither the number nor the flush nor the window of the one before.
    offer(&mut driver, &other, ms(20));
    assert_ne!(numbers(&driver), number);
    driver.advance(ms(19));
    assert_eq!(commits(&mut driver), []);
    driver.advance(ms(20));
    assert_eq!(commits(&mut driver)[0].lane, other);
}

#[test]
fn close_drops_idle_lanes_and_keeps_busy_ones() {
    let mut driver = running();
    let busy = namespace(&"busy".repeat(100));
    let in_flight = offer(&mut driver, &busy, Duration::ZERO);
    let number = numbers(&driver);
    for lane in many(2 * KEPT) {
        offer(&mut driver, &lane, ms(5));
    }
    driver.take_happened();
    driver.close();
    let abandoned = driver.take_happened();
    assert_eq!(abandoned.len(), 2 * KEPT);
    assert!(abandoned.iter().all(|(_, event)| matches!(event, Event::Abandoned { .. })));
    assert!(count(&driver) <= KEPT, "{} idle lanes are kept", count(&driver));

    driver.open(Config::default());
    assert!(number.is_subset(&numbers(&driver)), "the busy lane lost its number");
    offer(&mut driver, &busy, Duration::ZERO);
    assert_eq!(commits(&mut driver), [], "the lane has a commit in flight from before");
    assert_eq!(driver.done(busy.borrow()), Some(vec![in_flight]));
    assert_eq!(commits(&mut driver).len(), 1);
}

#[test]
fn flush_and_stop_reach_every_lane_of_a_crowd() {
    let mut driver = running();
    let lanes = many(2 * KEPT);
    for lane in &lanes {
        offer(&mut driver, lane, ms(5));
    }
    let flush = driver.flush();
    assert_eq!(commits(&mut driver).len(), 2 * KEPT);
    let stop = driver.stop();
    for lane in &lanes {
        assert_eq!(driver.take_happened(), []);
        driver.done(lane.borrow());
    }
    let barrier = |id| (Duration::ZERO, Event::Barrier { id });
    assert_eq!(driver.take_happened(), [barrier(flush), barrier(stop)]);
}
