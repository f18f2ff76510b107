//! A write that its own process commits (5.6).
#![cfg(not(loom))]

mod common;

use batcher_core::{LaneId, LaneKey};
use batcher_shell::{Ended, Event, Shard, Taken, Verdict, WorkerId};
use common::*;
use std::sync::Arc;

/// The number of the put lane, as long as that holds something.
fn put_lane(shard: &'static Shard<Failing>) -> LaneId {
    let lanes = shard.lanes().unwrap();
    lanes.iter().find(|lane| lane.lane == LaneKey::Put).expect("it holds something").id
}

#[test]
fn a_lane_says_that_its_own_process_commits() {
    let (_timer, shard) = new_with(learning());
    let id = join(shard, 1);
    let alone = offer_waiting(shard).unwrap();
    let lane = put_lane(shard);
    assert!(shard.is_alone((), lane));
    assert!(shard.committer_of(lane).is_none());
    let behind = offer(shard, AT_ONCE);
    assert!(shard.is_alone((), lane));
    shard.give_back(Some(()), alone, Verdict::Ok);
    assert!(!shard.is_alone((), lane));
    let flights = commit(shard, id);
    assert!(!shard.is_alone((), lane));
    assert!(shard.committer_of(lane).is_some());
    answer(flights);
    assert!(matches!(shard.take((), id, Ended::default()), Taken::Rest));
    assert_eq!(told([&behind]), [1]);
}

#[test]
fn what_was_given_back_twice_ends_nothing_else() {
    let (timer, shard) = new_with(learning());
    join(shard, 1);
    let first = offer_waiting(shard).unwrap();
    shard.give_back(Some(()), first, Verdict::Ok);
    let second = offer_waiting(shard).unwrap();
    assert_ne!(first, second);
    shard.give_back(Some(()), first, Verdict::Ok);
    shard.notify(Event::AloneDown(first));
    rounds(timer, shard, 2);
    assert!(shard.is_alone((), put_lane(shard)));
    assert!(offer_waiting(shard).is_none());
    shard.give_back(Some(()), second, Verdict::Ok);
    assert_eq!(commit(shard, WorkerId(1)).len(), 1);
}

#[test]
fn a_lane_goes_on_after_a_process_that_has_died() {
    let (timer, shard) = new_with(learning());
    let id = join(shard, 1);
    let alone = offer_waiting(shard).unwrap();
    let behind = offer(shard, AT_ONCE);
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    shard.notify(Event::AloneDown(alone));
    rounds(timer, shard, 2);
    answer(commit(shard, id));
    assert!(matches!(shard.take((), id, Ended::default()), Taken::Rest));
    assert_eq!(told([&behind, &flush]), [1, 1]);
}

#[test]
fn whoever_waits_behind_is_told_when_the_library_fails() {
    let (timer, shard) = new_with(learning());
    join(shard, 1);
    let alone = offer_waiting(shard).unwrap();
    let behind = offer(shard, AT_ONCE);
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    shard.notify(Event::Crash(1, "as the library tells it".into()));
    rounds(timer, shard, 2);
    assert_eq!(told([&behind, &flush]), [1, 1]);
    // It is still in flight: the next owner's writes wait for it, and nobody is told twice.
    open_with(timer, shard, learning());
    let later = offer(shard, AT_ONCE);
    assert!(shard.is_alone((), put_lane(shard)));
    shard.give_back(Some(()), alone, Verdict::Ok);
    answer(commit(shard, WorkerId(1)));
    assert_eq!(told([&behind, &flush, &later]), [1, 1, 1]);
}

#[test]
fn the_thread_ends_when_what_was_alone_is_given_back_after_the_failure() {
    let (timer, shard) = new_with(learning());
    let alone = offer_waiting(shard).unwrap();
    shard.notify(Event::Crash(1, "as the library tells it".into()));
    rounds(timer, shard, 2);
    shard.give_back(Some(()), alone, Verdict::Ok);
    while timer.round() {
        // Until nothing is in flight any more.
    }
    assert!(shard.lanes().is_none());
}
