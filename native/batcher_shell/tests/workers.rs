//! Committers that die, that have replies to send, and that come when all is over.
#![cfg(not(loom))]

mod common;

use batcher_core::{Config, Group, LaneRef};
use batcher_shell::{Contents, Ended, Event, Shard, Taken, Timer, WorkerId};
use common::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A shard that waits for an owner as long as it takes.
fn patient() -> Config {
    Config { adoption_timeout: LATE, ..config() }
}

/// Has the timer hear all there is to hear.
fn hear(timer: &'static Timer<Failing>) {
    while !timer.events().is_empty() {
        timer.round();
    }
}

/// A shard that was closed with a write in its queue, which takes a process to answer.
fn closed_with_replies() -> (&'static Timer<Failing>, &'static Shard<Failing>) {
    let (timer, shard) = new();
    PROXIES.set(true);
    offer(shard, LATE);
    shard.close(());
    // The queue has been abandoned then, and the thread waits for a committer to send the replies.
    hear(timer);
    (timer, shard)
}

#[test]
fn a_death_that_is_explained_late_hides_no_other() {
    let (timer, shard) = new_with(patient());
    let ids = [join(shard, 1), join(shard, 2)];
    let first = offer(shard, AT_ONCE);
    drop(commit(shard, ids[0]));
    let second = offer_to(LaneRef::Delete, shard, AT_ONCE);
    drop(commit(shard, ids[1]));
    // Nobody is there to say why it has died, and then somebody is.
    shard.notify(Event::OwnerDown(1));
    shard.notify(Event::WorkerDown(ids[0]));
    hear(timer);
    open_with(timer, shard, patient());
    shard.explain_death((), |&number| number == 1, ());
    hear(timer);
    shard.notify(Event::WorkerDown(ids[1]));
    shard.close(());
    // The timer hears of the death, and finds the shard closed: no other event need come.
    assert!(timer.round());
    assert_eq!(told([&first, &second]), [1, 1]);
}

#[test]
fn the_memory_of_a_batch_that_was_not_committed_is_empty() {
    let (timer, shard) = new();
    let first = join(shard, 1);
    let before = offer(shard, AT_ONCE);
    drop(commit(shard, first));
    shard.notify(Event::WorkerDown(first));
    shard.close(());
    hear(timer);
    assert_eq!(told([&before]), [1]);
    open(timer, shard);
    let second = join(shard, 2);
    offer(shard, AT_ONCE);
    let flights = commit(shard, second);
    assert_eq!(flights[0].batch.lock().answers.all().len(), 1);
}

#[test]
fn what_a_batch_held_is_gone_with_it_though_a_thread_wrote_there_last() {
    let (_timer, shard) = new();
    let id = join(shard, 1);
    let caller = offer(shard, AT_ONCE);
    let flights = commit(shard, id);
    // It has no reply: whoever waits is in there yet.
    assert!(shard.rest((), id, Ended::default()));
    assert_eq!(Arc::strong_count(&caller), 2);
    drop(flights);
    assert_eq!(Arc::strong_count(&caller), 1);
}

#[test]
fn a_committer_that_sends_replies_keeps_no_lane_waiting() {
    let (timer, shard) = closed_with_replies();
    open(timer, shard);
    let (sending, other) = (join(shard, 1), join(shard, 2));
    assert!(matches!(shard.take((), sending, Ended::default()), Taken::Send(_)));
    WOKEN.take();
    offer(shard, AT_ONCE);
    assert_eq!(WOKEN.take(), [2]);
    drop(commit(shard, other));
    // If it dies meanwhile, another one sends what is left.
    shard.notify(Event::WorkerDown(sending));
    hear(timer);
    assert!(matches!(shard.take((), other, Ended::default()), Taken::Send(_)));
    assert!(matches!(shard.take((), other, Ended::default()), Taken::Rest));
}

#[test]
fn a_committer_that_comes_when_all_is_over_is_told_to_leave() {
    let (timer, shard) = new();
    shard.close(());
    while timer.round() {
        // Nothing is left.
    }
    WOKEN.take();
    let late = join(shard, 1);
    assert_eq!(WOKEN.take(), [1]);
    assert!(matches!(shard.take((), late, Ended::default()), Taken::Leave));
}

#[test]
fn nobody_leaves_while_another_one_may_leave_replies_behind() {
    let (timer, shard) = closed_with_replies();
    let (sending, other) = (join(shard, 1), join(shard, 2));
    assert!(matches!(shard.take((), sending, Ended::default()), Taken::Send(_)));
    assert!(matches!(shard.take((), other, Ended::default()), Taken::Rest));
    WOKEN.take();
    shard.notify(Event::WorkerDown(sending));
    hear(timer);
    assert_eq!(WOKEN.take(), [2]);
    assert!(matches!(shard.take((), other, Ended::default()), Taken::Send(_)));
    assert!(matches!(shard.take((), other, Ended::default()), Taken::Leave));
}

#[test]
fn a_committer_that_comes_when_replies_are_left_sends_them_first() {
    let (timer, shard) = closed_with_replies();
    WOKEN.take();
    let late = join(shard, 1);
    assert_eq!(WOKEN.take(), [1]);
    assert!(matches!(shard.take((), late, Ended::default()), Taken::Send(_)));
    // It may die with them.
    hear(timer);
    assert!(matches!(shard.take((), late, Ended::default()), Taken::Leave));
    while timer.round() {
        // Then nothing is left.
    }
}

/// A committer answers what it has taken, and would rest.
fn answer_and_rest(shard: &'static Shard<Failing>, id: WorkerId) -> bool {
    answer(commit(shard, id));
    shard.rest((), id, Ended::default())
}

#[test]
fn a_committer_rests_behind_its_commit_until_it_is_woken() {
    let (_timer, shard) = new();
    let id = join(shard, 1);
    offer(shard, AT_ONCE);
    assert!(answer_and_rest(shard, id));
    WOKEN.take();
    let next = offer(shard, AT_ONCE);
    assert_eq!(WOKEN.take(), [1]);
    answer(commit(shard, id));
    assert_eq!(told([&next]), [1]);
}

#[test]
fn a_committer_does_not_rest_while_there_is_something_to_take() {
    let (_timer, shard) = new();
    let id = join(shard, 1);
    offer(shard, AT_ONCE);
    let flights = commit(shard, id);
    let behind = offer(shard, AT_ONCE);
    WOKEN.take();
    answer(flights);
    assert!(!shard.rest((), id, Ended::default()));
    // It is awake, and nobody else is needed.
    assert_eq!(WOKEN.take(), []);
    answer(commit(shard, id));
    assert_eq!(told([&behind]), [1]);
}

#[test]
fn a_committer_does_not_rest_when_all_is_over_or_it_is_dead() {
    let (timer, shard) = new();
    let (leaving, dead) = (join(shard, 1), join(shard, 2));
    offer(shard, AT_ONCE);
    let flights = commit(shard, leaving);
    shard.notify(Event::WorkerDown(dead));
    hear(timer);
    assert!(!shard.rest((), dead, Ended::default()));
    shard.close(());
    hear(timer);
    answer(flights);
    assert!(!shard.rest((), leaving, Ended::default()));
    assert!(matches!(shard.take((), leaving, Ended::default()), Taken::Leave));
}

#[test]
fn writes_whose_taking_has_failed_are_in_no_other_slot() {
    let (_timer, shard) = new();
    let id = join(shard, 1);
    let group = Group { cost: 1, bytes: 8, ..Group::default() };
    let mut held = Vec::new();
    for _ in 0..2 {
        let put = |contents: &mut Contents<Failing>, _until| {
            held.push(contents.writes.0);
            contents.writes.0 += 1;
        };
        shard.offer((), LaneRef::Put, group, AT_ONCE, None, put).unwrap();
        let Taken::Commit(flights) = shard.take((), id, Ended::default()) else {
            panic!("it is due")
        };
        let fail = || flights[0].batch.empty_writes(|_writes| -> Option<()> { panic!("provoked") });
        assert!(catch_unwind(AssertUnwindSafe(fail)).is_err());
        drop(flights);
        shard.rest((), id, Ended::default());
    }
    assert_eq!(held, [0, 0]);
}
