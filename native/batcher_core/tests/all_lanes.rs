//! What concerns all lanes at once, with a crowd of them: each call does a bounded part of it, and nothing
//! is lost between the calls.
//!
//! Invariant: an engine is driven by hand here, so that what is left undone between two calls can be seen.

use batcher_core::{
    CommitScope, Config, Engine, Group, LONG_PREFIX, LaneId, LaneKey, LaneRef, LongPrefix, Reason,
    Usage,
};
use std::time::{Duration, Instant};

const CROWD: usize = 3_000;
const NOT_MEASURED: Usage = Usage { command_items: 0, compound_members: 0, visits: 0 };
const ONE: Group =
    Group { cost: 1, bytes: 1, writer: 0, usage: NOT_MEASURED, waits: true, apart: false };
const WINDOW: Duration = Duration::from_millis(5);

type Writes = Vec<usize>;

fn config() -> Config {
    Config { max_in_flight: usize::MAX, max_items: 1 << 40, ..Config::default() }
}

fn running() -> (Engine<Writes>, Instant) {
    let (mut engine, now) = (Engine::default(), Instant::now());
    engine.open(now, config());
    (engine, now)
}

fn offer(
    engine: &mut Engine<Writes>,
    now: Instant,
    lane: LaneRef<'_>,
    window: Duration,
    number: usize,
) {
    let accepted = engine.offer(now, lane, ONE, window).expect("there is room");
    accepted.contents.push(number);
}

/// A write with a window in each of many lanes, numbered from 0.
fn crowd(engine: &mut Engine<Writes>, now: Instant) {
    for number in 0..CROWD {
        let name = format!("namespace {number}");
        offer(engine, now, LaneRef::Prefix(name.as_bytes()), WINDOW, number);
    }
}

fn commit(engine: &mut Engine<Writes>) -> Option<(LaneId, Reason, Writes)> {
    engine
        .poll_commit(Instant::now())
        .map(|commit| (commit.lane, commit.reason, commit.slot.contents.clone()))
}

fn sorted(writes: impl Iterator<Item = Writes>) -> Vec<usize> {
    let mut writes: Vec<usize> = writes.flatten().collect();
    writes.sort_unstable();
    writes
}

/// So many lanes and so many calls that a call which looked at each lane would be seen to.
const LARGE_CROWD: usize = 100_000;
const CALLS: usize = 20_000;
/// So many lanes leave in one commit.
const MOST_LANES: usize = 500;

#[test]
fn lanes_that_leave_together_cost_a_call_no_more_if_they_are_many() {
    let (mut engine, now) = running();
    let together =
        Config { commit_scope: CommitScope::Shard, hot_max: None, max_in_flight: 1, ..config() };
    engine.open(now, together.clone());
    let names: Vec<String> = (0..LARGE_CROWD).map(|number| format!("{number}")).collect();
    let name = |number: usize| LaneRef::Prefix(names[number % LARGE_CROWD].as_bytes());
    (0..LARGE_CROWD).for_each(|number| offer(&mut engine, now, name(number), WINDOW, number));
    let call_all = |engine: &mut Engine<Writes>, first: usize, wanted: usize| {
        for number in first..first + CALLS {
            offer(engine, now, name(number), WINDOW, number);
            engine.handle_timeout(now);
            engine.handle_owner_down(now);
            engine.open(now, together.clone());
            assert_eq!((engine.wanted(), engine.poll_abandoned()), (wanted, None));
        }
        first + CALLS
    };
    let mut count = call_all(&mut engine, LARGE_CROWD, 0);
    assert_eq!(engine.next_deadline(), Some(now + WINDOW));

    // The end of a window, and a flush, are those of all lanes.
    engine.handle_timeout(now + WINDOW);
    assert_eq!((engine.wanted(), engine.next_deadline()), (1, None));
    for _ in 0..CALLS {
        engine.handle_flush(now);
    }
    let (mut left, mut lanes) = (Vec::new(), 0);
    while lanes < LARGE_CROWD {
        let (head, reason, contents) = commit(&mut engine).expect("a window has ended");
        left.extend(contents);
        let mut parts = Vec::new();
        while let Some(part) = engine.poll_part(now) {
            assert_eq!(part.reason, reason);
            left.extend(part.slot.contents.iter().copied());
            parts.push(part.lane);
        }
        lanes += parts.len() + 1;
        assert_eq!((parts.len() + 1, engine.in_flight()), (MOST_LANES, MOST_LANES));
        if lanes == LARGE_CROWD {
            count = call_all(&mut engine, count, 0);
        }
        for lane in parts.into_iter().chain([head]) {
            engine.handle_answering(|| now, lane, [0].into_iter());
            assert!(engine.handle_commit_done(now, lane).is_some());
        }
    }
    assert_eq!(engine.wanted(), 1, "what came meanwhile follows");
    assert_eq!(std::iter::from_fn(|| engine.poll_barrier()).count(), CALLS);

    // An owner that has lanes leave one by one, and lives that come and go.
    count = call_all(&mut engine, count, 1);
    for _ in 0..CALLS {
        engine.open(now, config());
        engine.open(now, together.clone());
    }
    engine.close();
    for _ in 0..CALLS {
        engine.open(now, together.clone());
        engine.close();
    }
    let abandoned = std::iter::from_fn(|| engine.poll_abandoned());
    assert_eq!(sorted(abandoned.chain([left])), Vec::from_iter(0..count));
}

#[test]
fn windows_of_many_lanes_end_in_several_calls() {
    let (mut engine, now) = running();
    crowd(&mut engine, now);
    let late = now + 2 * WINDOW;
    engine.handle_timeout(late);
    assert!(engine.wanted() > 0 && engine.wanted() < CROWD, "{} at once", engine.wanted());
    assert_eq!(engine.next_deadline(), Some(now + WINDOW), "the rest is due");
    while engine.next_deadline().is_some_and(|at| at <= late) {
        let before = engine.wanted();
        engine.handle_timeout(late);
        assert!(engine.wanted() > before, "it goes on");
    }
    assert_eq!(engine.wanted(), CROWD);
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn an_owner_that_opens_leaves_windows_that_ended_to_the_next_timeout() {
    let (mut engine, now) = running();
    crowd(&mut engine, now);
    engine.handle_owner_down(now);
    let late = now + 2 * WINDOW;
    engine.open(late, config());
    assert_eq!((engine.wanted(), engine.next_deadline()), (0, Some(now + WINDOW)));
    engine.handle_timeout(late);
    assert!(engine.wanted() > 0);
}

#[test]
fn a_flush_of_many_lanes_is_taken_lane_by_lane() {
    let (mut engine, now) = running();
    crowd(&mut engine, now);
    engine.handle_flush(now);
    assert_eq!((engine.wanted(), engine.next_deadline()), (CROWD, None));
    let mut left = Vec::new();
    while let Some((lane, reason, writes)) = commit(&mut engine) {
        assert_eq!(reason, Reason::Flush);
        assert_eq!(engine.wanted(), CROWD - left.len() - 1);
        left.push((lane, writes));
    }
    assert_eq!(sorted(left.iter().map(|(_, writes)| writes.clone())), Vec::from_iter(0..CROWD));
    for (lane, _) in left {
        assert_eq!(engine.poll_barrier(), None);
        assert!(engine.handle_commit_done(now, lane).is_some());
    }
    assert!(engine.poll_barrier().is_some());
}

#[test]
fn a_close_gives_room_at_once_and_abandons_batch_by_batch() {
    let (mut engine, now) = running();
    crowd(&mut engine, now);
    let flush = engine.handle_flush(now);
    let (busy, _, written) = commit(&mut engine).expect("a flush has come");
    engine.close();
    assert_eq!((engine.wanted(), engine.next_deadline()), (0, None));
    assert!(engine.lanes().all(|lane| lane.queue().count() == 0 && lane.gathered() == Some(0)));

    // The next life has all the room but for what is in flight, and meets none of it.
    engine.open(now, Config { max_items: 2, ..config() });
    offer(&mut engine, now, LaneRef::Prefix(b"namespace 7"), WINDOW, CROWD);
    assert!(engine.offer(now, LaneRef::Put, ONE, WINDOW).is_err(), "one in flight, one queued");
    engine.handle_flush(now);
    let (lane, _, later) = commit(&mut engine).expect("a flush has come");
    assert_eq!((later, commit(&mut engine)), (vec![CROWD], None));
    assert!(engine.handle_commit_done(now, lane).is_some());
    assert_eq!(engine.poll_barrier().map(|barrier| barrier.0), Some(1));

    assert!(engine.handle_commit_done(now, busy).is_some());
    let mut abandoned = Vec::new();
    while let Some(writes) = engine.poll_abandoned() {
        let barrier = engine.poll_barrier();
        abandoned.push(writes);
        assert_eq!(barrier, (abandoned.len() == CROWD - 1).then_some(flush));
    }
    let all = abandoned.into_iter().chain([written]);
    assert_eq!(sorted(all), Vec::from_iter(0..CROWD));
    assert!(engine.lanes().count() <= 1_024, "idle lanes are dropped");
}

#[test]
fn the_number_of_a_dropped_lane_names_nothing() {
    let (mut engine, now) = running();
    let name = |letter: &str| letter.repeat(300);
    offer(&mut engine, now, LaneRef::Prefix(name("a").as_bytes()), Duration::ZERO, 0);
    let (dropped, ..) = commit(&mut engine).expect("window 0");
    engine.handle_answering(|| now, dropped, [0].into_iter());
    assert_eq!(engine.handle_commit_done(now, dropped), Some(vec![0]));
    assert!(engine.lane(dropped).is_none() && engine.lanes().count() == 0);

    offer(&mut engine, now, LaneRef::Prefix(name("b").as_bytes()), Duration::ZERO, 1);
    let (lane, ..) = commit(&mut engine).expect("window 0");
    assert!(engine.lane(dropped).is_none());
    // Had it begun to answer, what comes now would have nothing to do with the commit.
    engine.handle_answering(|| now, dropped, [9].into_iter());
    assert_eq!(engine.handle_commit_done(now, dropped), None);
    offer(&mut engine, now, LaneRef::Prefix(name("b").as_bytes()), WINDOW, 2);
    assert_eq!((engine.in_flight(), engine.wanted()), (1, 0));
    assert_eq!(engine.handle_commit_done(now, lane), Some(vec![1]));
    assert_eq!(commit(&mut engine), Some((lane, Reason::Commit, vec![2])));
}

#[test]
fn long_prefixes_have_a_lane_each() {
    let (mut engine, now) = running();
    let (one, other) = (vec![b'a'; LONG_PREFIX], vec![b'a'; LONG_PREFIX + 1]);
    for (number, name) in [&one, &other, &one].into_iter().enumerate() {
        offer(&mut engine, now, LaneRef::Long(&LongPrefix::new(name)), WINDOW, number);
    }
    // Given as a short one it is slower, and the same.
    offer(&mut engine, now, LaneRef::Prefix(&one), WINDOW, 3);
    let mut lanes: Vec<(LaneKey, Writes)> = engine
        .lanes()
        .map(|lane| {
            (lane.key().clone(), lane.queue().flat_map(|slot| slot.contents.clone()).collect())
        })
        .collect();
    lanes.sort_by_key(|(_, writes)| writes.len());
    let key = |name: Vec<u8>| LaneKey::Prefix(name.into());
    assert_eq!(lanes, [(key(other), vec![1]), (key(one.clone()), vec![0, 2, 3])]);

    engine.handle_flush(now);
    while let Some((lane, ..)) = commit(&mut engine) {
        engine.handle_commit_done(now, lane);
    }
    assert_eq!(engine.lanes().count(), 0, "it is not kept");
    offer(&mut engine, now, LaneRef::Long(&LongPrefix::new(&one)), WINDOW, 4);
    assert_eq!(engine.lanes().count(), 1);
    let equal = |a: &[u8], b: &[u8]| LongPrefix::new(a) == LongPrefix::new(b);
    assert!(equal(&one, &one.clone()) && !equal(&one, &[b'b'; LONG_PREFIX]));
}

#[test]
fn everything_that_is_held_can_be_had() {
    let (mut engine, now) = running();
    crowd(&mut engine, now);
    engine.handle_flush(now);
    commit(&mut engine).expect("a flush has come");
    engine.close();
    // Of three that are abandoned one has been taken, and one has made way for a write.
    engine.open(now, config());
    let taken = engine.poll_abandoned().expect("there are many");
    offer(&mut engine, now, LaneRef::Prefix(b"namespace 7"), WINDOW, CROWD);
    offer(&mut engine, now, LaneRef::Put, Duration::ZERO, CROWD + 1);
    commit(&mut engine).expect("window 0");
    assert_eq!(sorted(engine.take_contents().chain([taken])), Vec::from_iter(0..CROWD + 2));
}

#[test]
fn no_number_comes_again_after_everything_was_taken() {
    let (mut engine, now) = running();
    offer(&mut engine, now, LaneRef::Put, Duration::ZERO, 1);
    let barrier = engine.handle_flush(now);
    let (lane, ..) = commit(&mut engine).expect("a flush has come");
    assert_eq!(sorted(engine.take_contents()), [1]);
    engine.open(now, config());
    assert!(engine.lane(lane).is_none());
    offer(&mut engine, now, LaneRef::Put, Duration::ZERO, 2);
    assert!(engine.lane(lane).is_none(), "of another lane");
    assert_ne!(engine.handle_flush(now), barrier);
    assert_eq!(commit(&mut engine).map(|(other, ..)| other == lane), Some(false));
}
