//! Committers that die with a batch, or before they have taken one.

use crate::crew::Crew;
use crate::vm::*;
use crate::{beside, model};
use batcher_shell::{Event, WorkerId};
use loom::thread::JoinHandle;
use std::sync::Arc;

/// A committer dies, its owner tells of that, and dies as well: its batch is answered once, by another committer, and
/// its lane is free.
#[test]
fn the_batch_of_a_dead_committer_is_answered_once() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1, 2]);
        let callers = [Caller::new(), Caller::by_process()];
        callers[0].offer(shard, LATE).unwrap();
        callers[1].offer(shard, AT_ONCE).unwrap();
        let dead = crew.kill(shard);
        another_answers(shard, thread, &crew, dead, &callers);
    });
}

/// A lane is not free before the callers of a dead committer have been answered: a write that waits for it leaves after
/// them.
#[test]
fn a_lane_is_free_when_the_callers_of_the_dead_are_answered() {
    model(|shard| {
        open_without_thread(shard);
        // One to go on with the batch, one that could take the next too early.
        let crew = Crew::join(shard, &[1, 2, 3]);
        let (first, second) = (Caller::by_process(), Caller::new());
        first.offer(shard, AT_ONCE).unwrap();
        let dead = crew.kill(shard);
        let burying = beside(shard, move |shard| explain(shard, dead));
        second.offer(shard, AT_ONCE).unwrap();
        while second.replies() == 0 {
            if !crew.work(shard).is_empty() {
                assert_eq!(first.replies(), 1);
            }
        }
        burying.join().unwrap();
        assert_eq!((first.replies(), second.replies()), (1, 1));
    });
}

/// Where the owner ends without having heard of it, and no other committer is left, the thread answers.
#[test]
fn the_batch_of_a_dead_committer_is_answered_without_an_owner() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1]);
        let caller = Caller::new();
        caller.offer(shard, AT_ONCE).unwrap();
        let dead = crew.kill(shard);
        the_thread_answers(shard, thread, dead, &[caller]);
    });
}

/// Take against death: a committer that is woken and dies leaves its work to another.
#[test]
fn what_a_dead_committer_was_woken_for_is_taken_by_another() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1, 2]);
        let caller = Caller::new();
        let writing = {
            let caller = Arc::clone(&caller);
            beside(shard, move |shard| caller.offer(shard, AT_ONCE).unwrap())
        };
        shard.notify(Event::WorkerDown(crew.kill_woken()));
        crew.work(shard);
        writing.join().unwrap();
        shard.close(());
        crew.finish(shard);
        thread.join().unwrap();
        assert_eq!(caller.replies(), 1);
    });
}

/// A committer has died; its owner tells of that and dies as well: all callers are answered once, by another committer,
/// and each lane is free.
pub(crate) fn another_answers(
    shard: &'static Shard,
    thread: JoinHandle<()>,
    crew: &Crew,
    dead: WorkerId,
    callers: &[Arc<Caller>],
) {
    let burying = beside(shard, move |shard| explain(shard, dead));
    shard.notify(Event::WorkerDown(dead));
    owner_dies(shard);
    crew.work(shard);
    burying.join().unwrap();
    let lanes = shard.lanes().unwrap_or_default();
    assert!(lanes.iter().all(|lane| shard.committer_of(lane.id).is_none()));
    shard.close(());
    thread.join().unwrap();
    crew.finish(shard);
    assert!(callers.iter().all(|caller| caller.replies() == 1));
}

/// A committer has died, the only one; its owner ends without having heard of that.
pub(crate) fn the_thread_answers(
    shard: &'static Shard,
    thread: JoinHandle<()>,
    dead: WorkerId,
    callers: &[Arc<Caller>],
) {
    let dying = beside(shard, move |shard| shard.notify(Event::WorkerDown(dead)));
    shard.close(());
    dying.join().unwrap();
    thread.join().unwrap();
    assert!(callers.iter().all(|caller| caller.replies() == 1));
}
