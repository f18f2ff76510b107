//! One commit of several lanes (4.4): whatever becomes of it, it becomes of all of them.
#![cfg(not(loom))]

mod common;

use batcher_core::{LaneRef, Reason};
use batcher_shell::{Ended, Event, Flight, Shard, Taken, WorkerId};
use common::*;
use std::sync::atomic::Ordering::Relaxed;

const LANES: [LaneRef<'static>; 3] = [LaneRef::Prefix(b"a"), LaneRef::Delete, LaneRef::Put];

/// A write to each lane, the last one so that all leave.
fn offer_all(shard: &'static Shard<Failing>) -> [Caller; 3] {
    let windows = [LATE, LATE, AT_ONCE];
    std::array::from_fn(|place| offer_to(LANES[place], shard, windows[place]))
}

/// How often each was told.
fn counts(callers: &[Caller; 3]) -> [usize; 3] {
    callers.each_ref().map(|caller| caller.load(Relaxed))
}

/// Whether these are of these lanes.
fn are_of(flights: &[Flight<Failing>], lanes: &[LaneRef<'_>]) -> bool {
    flights.iter().map(|flight| flight.key.borrow()).eq(lanes.iter().copied())
}

/// Whether no lane holds anything.
fn is_free(shard: &'static Shard<Failing>) -> bool {
    shard.lanes().is_some_and(|lanes| {
        lanes.iter().all(|lane| lane.queue.is_empty() && shard.committer_of(lane.id).is_none())
    })
}

#[test]
fn a_committer_takes_what_is_due_of_all_lanes() {
    let (_timer, shard) = new_with(together());
    let id = join(shard, 1);
    let callers = offer_all(shard);
    let flights = commit(shard, id);
    // In the order of their oldest write, and all for one reason.
    assert!(are_of(&flights, &LANES));
    assert!(flights.iter().all(|flight| flight.reason == Reason::Immediate));
    assert!(flights.iter().all(|flight| shard.committer_of(flight.lane).is_some()));
    // What comes meanwhile is the next commit.
    let behind = offer_to(LANES[0], shard, AT_ONCE);
    answer(flights);
    let flights = commit(shard, id);
    assert!(are_of(&flights, &LANES[..1]));
    answer(flights);
    assert!(matches!(shard.take((), id, Ended::default()), Taken::Rest));
    assert_eq!((counts(&callers), told([&behind])), ([1; 3], [1]));
    assert!(is_free(shard));
}

#[test]
fn another_committer_answers_for_all_lanes_of_one_that_has_died() {
    let (timer, shard) = new_with(together());
    let dead = join(shard, 1);
    let callers = offer_all(shard);
    let mut flights = commit(shard, dead);
    // It has come as far as this.
    answer(vec![flights.remove(0)]);
    shard.notify(Event::WorkerDown(dead));
    shard.explain_death((), |_| true, ());
    rounds(timer, shard, 2);
    let second = join(shard, 2);
    let Taken::Answer(left, Some(())) = shard.take((), second, Ended::default()) else {
        panic!("it is to be told")
    };
    assert!(are_of(&left, &LANES));
    answer(left);
    assert!(matches!(shard.take((), second, Ended::default()), Taken::Rest));
    assert_eq!(counts(&callers), [1; 3]);
    assert!(is_free(shard));
}

#[test]
fn the_thread_answers_for_all_lanes_of_one_that_has_died() {
    let (timer, shard) = new_with(together());
    let dead = join(shard, 1);
    let callers = offer_all(shard);
    commit(shard, dead);
    shard.close(());
    shard.notify(Event::WorkerDown(dead));
    while timer.round() {
        // Until nothing is in flight any more.
    }
    assert_eq!(counts(&callers), [1; 3]);
    goes_on(timer, shard);
}

#[test]
fn all_lanes_are_told_when_the_library_fails() {
    let (timer, shard) = new_with(together());
    let id = join(shard, 1);
    let callers = offer_all(shard);
    let flights = commit(shard, id);
    shard.notify(Event::Crash(1, "as the library tells it".into()));
    rounds(timer, shard, 2);
    assert_eq!(counts(&callers), [1; 3]);
    // Its committer comes back with what it could not know.
    answer(flights);
    assert!(matches!(shard.take((), id, Ended::default()), Taken::Leave));
    while timer.round() {
        // Until nothing is in flight any more.
    }
    assert_eq!(counts(&callers), [1; 3]);
    goes_on(timer, shard);
}

/// The next owner's writes find all lanes free.
fn goes_on(timer: &'static batcher_shell::Timer<Failing>, shard: &'static Shard<Failing>) {
    open_with(timer, shard, together());
    join(shard, 3);
    let callers = offer_all(shard);
    let flights = commit(shard, WorkerId(3));
    assert!(are_of(&flights, &LANES));
    answer(flights);
    assert_eq!(counts(&callers), [1; 3]);
}
