//! A library that fails in the midst of its work: whoever waits is told, once, and the shard works for its next owner
//! (10.5).
#![cfg(not(loom))]

mod common;

use batcher_core::{Group, LaneRef};
use batcher_shell::{Contents, Ended, Event, Flight, Shard, Taken, WorkerId};
use common::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn whoever_waits_is_told_although_the_thread_fails() {
    let (timer, shard) = new();
    let first = join(shard, 1);
    let in_flight = offer(shard, AT_ONCE);
    assert!(matches!(shard.take((), first, Ended::default()), Taken::Commit(..)));
    let abandoned = offer(shard, LATE);
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    // The thread finds a dead committer's batch, one to wake for it, and that the owner has no successor.
    join(shard, 2);
    shard.notify(Event::OwnerDown(1));
    shard.notify(Event::WorkerDown(first));
    FAILS.set(Some("wake"));
    timer.run();
    assert_eq!(told([&in_flight, &abandoned, &flush]), [1, 1, 1]);
}

#[test]
fn a_lane_goes_on_after_a_wake_that_failed() {
    let (timer, shard) = new();
    join(shard, 1);
    FAILS.set(Some("wake"));
    let first = offer(shard, AT_ONCE);
    while timer.round() {
        // The thread ends with its owner.
    }
    assert_eq!(told([&first]), [1]);
    open(timer, shard);
    let id = join(shard, 2);
    let second = offer(shard, AT_ONCE);
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    answer(commit(shard, id));
    assert!(matches!(shard.take((), id, Ended::default()), Taken::Rest));
    assert_eq!(told([&first, &second, &flush]), [1, 1, 1]);
}

#[test]
fn a_lane_goes_on_after_a_committer_that_failed() {
    goes_on_after(|shard, _id, flights| {
        // The failure is the committer's end: before it has answered anybody.
        drop((shard, flights));
    });
}

#[test]
fn a_lane_goes_on_after_a_take_that_failed() {
    goes_on_after(|shard, id, flights| {
        answer(flights);
        // It has the next batch by then, and nobody else knows of that.
        FAILS.set(Some("drop"));
        assert!(catch_unwind(AssertUnwindSafe(|| shard.take((), id, Ended::default()))).is_err());
    });
}

fn goes_on_after(end: impl FnOnce(&'static Shard<Failing>, WorkerId, Vec<Flight<Failing>>)) {
    let (timer, shard) = new();
    let id = join(shard, 1);
    let first = offer(shard, AT_ONCE);
    let Taken::Commit(flights) = shard.take((), id, Ended::default()) else { panic!("it is due") };
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush), false).unwrap();
    let behind = offer(shard, AT_ONCE);
    end(shard, id, flights);
    shard.notify(Event::Crash(1, "as the library tells it".into()));
    shard.notify(Event::WorkerDown(id));
    while timer.round() {
        // The thread ends when nothing is in flight any more.
    }
    assert_eq!(told([&first, &behind, &flush]), [1, 1, 1]);
    open(timer, shard);
    join(shard, 2);
    offer(shard, AT_ONCE);
    assert!(matches!(shard.take((), WorkerId(2), Ended::default()), Taken::Commit(..)));
}

#[test]
fn a_crash_that_is_heard_of_late_leaves_the_next_owner_alone() {
    let (timer, shard) = new();
    shard.notify(Event::Crash(1, "late".into()));
    shard.close(());
    open(timer, shard);
    let waiting = offer(shard, LATE);
    assert!(timer.round());
    assert!(timer.round());
    assert_eq!(told([&waiting]), [0]);
    assert!(shard.refuses().is_none());
}

#[test]
fn a_committer_that_its_owner_does_not_speak_of_is_buried() {
    let (timer, shard) = new();
    let first = join(shard, 1);
    let waiting = offer(shard, AT_ONCE);
    assert!(matches!(shard.take((), first, Ended::default()), Taken::Commit(..)));
    shard.notify(Event::WorkerDown(first));
    let second = join(shard, 2);
    // The thread waits for the owner's word, and then no longer.
    let taken = loop {
        shard.notify(Event::Wake);
        timer.round();
        if let Taken::Answer(flights, None) = shard.take((), second, Ended::default()) {
            break flights;
        }
    };
    assert_eq!(taken[0].batch.lock().answers.remaining().len(), 1);
    assert_eq!(told([&waiting]), [0]);
}

#[test]
fn a_caller_in_one_of_many_lanes_is_told_that_it_is_late_after_the_end() {
    let (timer, shard) = new();
    let id = join(shard, 1);
    let group = Group { cost: 1, bytes: 8, ..Group::default() };
    for lane in 0..600_u32 {
        let name = lane.to_string();
        shard.offer((), LaneRef::Prefix(name.as_bytes()), group, LATE, None, |_, _| ()).unwrap();
    }
    let caller = Caller::default();
    let wait = Some(Duration::from_millis(1));
    let put = |contents: &mut Contents<Failing>, until| {
        contents.answers.add(Arc::clone(&caller), until);
    };
    shard.offer((), LaneRef::Put, group, AT_ONCE, wait, put).unwrap();
    assert!(matches!(shard.take((), id, Ended::default()), Taken::Commit(..)));
    shard.close(());
    // Its commit hangs, so that the timer does not end.
    while told([&caller]) == [0] {
        shard.notify(Event::Wake);
        assert!(timer.round());
    }
    assert_eq!(told([&caller]), [1]);
}
