//! What can be seen of a shard from outside, and what it keeps.
//!
//! Invariant: each figure is checked where it is reached and one before.

use batcher_core::{Config, Engine, Group, LaneRef, Usage};
use std::ops::Range;
use std::time::{Duration, Instant};

const NOT_MEASURED: Usage = Usage { command_items: 0, compound_members: 0, visits: 0 };
const ONE: Group =
    Group { cost: 1, bytes: 1, writer: 0, usage: NOT_MEASURED, waits: true, apart: false };
const WINDOW: Duration = Duration::from_millis(5);

fn running(config: Config) -> (Engine<Vec<u32>>, Instant) {
    let (mut engine, now) = (Engine::default(), Instant::now());
    engine.open(now, config);
    (engine, now)
}

/// So many lanes of this name's length have come and are idle; how many are still there.
fn kept(lanes: usize, length: usize) -> usize {
    let (mut engine, now) = running(Config { max_in_flight: lanes, ..Config::default() });
    for number in 0..lanes {
        let name = format!("{number:0>length$}");
        engine.offer(now, LaneRef::Prefix(name.as_bytes()), ONE, Duration::ZERO).expect("room");
    }
    let in_flight: Vec<_> =
        std::iter::from_fn(|| engine.poll_commit(now).map(|it| it.lane)).collect();
    assert_eq!(in_flight.len(), lanes);
    for lane in in_flight {
        assert!(engine.handle_commit_done(now, lane).is_some());
    }
    engine.lanes().count()
}

#[test]
fn a_queue_of_many_slots_is_seen_and_leaves_in_order() {
    let (mut engine, now) = running(Config { hot_max: Some(1), ..Config::default() });
    let mut next = 0;
    let mut left = 0;
    // It grows, shrinks and grows again.
    for (come, go) in [(100, 90), (80, 40), (3, 53)] {
        for _ in 0..come {
            engine.offer(now, LaneRef::Put, ONE, WINDOW).expect("room").contents.push(next);
            next += 1;
        }
        for _ in 0..go {
            let commit = engine.poll_commit(now).expect("it is full");
            assert_eq!(commit.slot.contents, [left]);
            let id = commit.lane;
            left += 1;
            let lane = engine.lane(id).expect("a hot lane stays");
            let queued: Vec<u32> = lane.queue().flat_map(|slot| slot.contents.clone()).collect();
            assert_eq!(queued, Vec::from_iter(left..next));
            engine.handle_commit_done(now, id);
        }
    }
    assert_eq!(left, next);
}

#[test]
fn a_lane_shows_what_it_holds() {
    let (mut engine, now) = running(Config { hot_max: Some(3), ..Config::default() });
    engine.offer(now, LaneRef::Put, ONE, Duration::ZERO).expect("room").contents.push(0);
    let id = engine.poll_commit(now).expect("window 0").lane;
    let view = |engine: &Engine<Vec<u32>>| {
        let lane = engine.lane(id).expect("a hot lane stays");
        assert_eq!((lane.id(), lane.key().borrow()), (id, LaneRef::Put));
        let in_flight = lane.in_flight().map(|slot| slot.contents.clone());
        (lane.gathered(), lane.queue().count(), in_flight)
    };
    assert_eq!(view(&engine), (Some(0), 0, Some(vec![0])));
    for (queued, gathered) in [(1, Some(1)), (2, Some(2)), (3, None)] {
        engine.offer(now, LaneRef::Put, ONE, WINDOW).expect("room");
        assert_eq!(view(&engine), (gathered, 1, Some(vec![0])), "{queued} groups behind it");
    }
    engine.handle_commit_done(now, id);
    engine.poll_commit(now).expect("it follows");
    engine.offer(now, LaneRef::Put, ONE, WINDOW).expect("room");
    assert_eq!(view(&engine).0, Some(1));
    engine.handle_flush(now);
    assert_eq!(view(&engine).0, None, "nothing joins what a flush sends off");
}

#[test]
fn so_many_idle_lanes_are_kept() {
    assert_eq!(kept(1_024, 8), 1_024);
    assert_eq!(kept(1_025, 8), 1_024);
}

#[test]
fn names_so_long_are_kept() {
    assert_eq!(kept(4, 256), 4);
    assert_eq!(kept(4, 257), 0);
}

/// Gives memory for so many groups back, until no more of it is kept, each piece with a mark of its own.
fn give_back(engine: &mut Engine<Vec<u32>>, groups: u64, marks: Range<u32>) -> Option<u32> {
    marks.into_iter().find(|&mark| engine.recycle(vec![mark], groups).is_some())
}

fn used_next(engine: &mut Engine<Vec<u32>>, now: Instant, lane: LaneRef<'_>) -> u32 {
    engine.handle_flush(now);
    engine.offer(now, lane, ONE, WINDOW).expect("room").contents[0]
}

#[test]
fn what_was_emptied_is_used_again() {
    let (mut engine, now) = running(Config::default());
    assert_eq!(give_back(&mut engine, 33, 1..9), Some(5), "enough are kept that have held many");
    assert_eq!(give_back(&mut engine, 32, 11..255), Some(139), "and that have held few");
    assert_eq!(used_next(&mut engine, now, LaneRef::Put), 138);
    assert_eq!(give_back(&mut engine, 1, 140..141), None, "there is room again");
}

#[test]
fn a_lane_gets_memory_for_as_many_as_left_it_last() {
    let (mut engine, now) = running(Config::default());
    for _ in 0..33 {
        engine.offer(now, LaneRef::Put, ONE, WINDOW).expect("room");
    }
    engine.handle_flush(now);
    engine.poll_commit(now).expect("it is flushed");
    give_back(&mut engine, 33, 1..3);
    give_back(&mut engine, 32, 11..13);
    assert_eq!(used_next(&mut engine, now, LaneRef::Delete), 12);
    let next = |engine: &mut _| used_next(engine, now, LaneRef::Put);
    assert_eq!([next(&mut engine), next(&mut engine), next(&mut engine)], [2, 1, 11]);
}
