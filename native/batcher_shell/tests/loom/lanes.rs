//! Lanes that leave together in one commit (4.4).

use crate::crew::Crew;
use crate::deaths::{another_answers, the_thread_answers};
use crate::vm::*;
use crate::{beside, model};
use batcher_core::LaneRef;
use std::sync::Arc;

/// Filling against departure: whatever lanes a commit takes, all of them are answered once, one commit after the other.
#[test]
fn lanes_that_leave_together_are_answered_once() {
    model(|shard| {
        open_without_thread_with(shard, together());
        let crew = Crew::join(shard, &[1]);
        let (here, there) = (Caller::new(), Caller::new());
        let writing = {
            let there = Arc::clone(&there);
            beside(shard, move |shard| {
                there.offer_to(LaneRef::Delete, shard, AT_ONCE).unwrap();
            })
        };
        here.offer(shard, AT_ONCE).unwrap();
        crew.work(shard);
        writing.join().unwrap();
        crew.finish(shard);
        assert_eq!((here.replies(), there.replies()), (1, 1));
    });
}

/// A committer dies with several lanes, and its owner tells of that and dies as well: each lane is answered once by
/// another committer, and is free.
#[test]
fn the_lanes_of_a_dead_committer_are_answered_once() {
    model(|shard| {
        let thread = open_with(shard, together()).unwrap();
        let crew = Crew::join(shard, &[1, 2]);
        let callers = offer_two(shard, Caller::by_process());
        let dead = crew.kill_with(shard, 2);
        another_answers(shard, thread, &crew, dead, &callers);
    });
}

/// Where no other committer is left, and the owner ends without having heard of it, the thread answers.
#[test]
fn the_lanes_of_a_dead_committer_are_answered_without_an_owner() {
    model(|shard| {
        let thread = open_with(shard, together()).unwrap();
        let crew = Crew::join(shard, &[1]);
        let callers = offer_two(shard, Caller::new());
        let dead = crew.kill_with(shard, 2);
        the_thread_answers(shard, thread, dead, &callers);
    });
}

/// The shard is not free before the callers of all lanes of a dead committer have been answered.
#[test]
fn a_shard_is_free_when_all_lanes_of_the_dead_are_answered() {
    model(|shard| {
        open_without_thread_with(shard, together());
        // One to go on with the batches, one that could take the next too early.
        let crew = Crew::join(shard, &[1, 2, 3]);
        let (callers, last) = (offer_two(shard, Caller::by_process()), Caller::new());
        let dead = crew.kill_with(shard, 2);
        let burying = {
            let crew = Arc::clone(&crew);
            beside(shard, move |shard| {
                explain(shard, dead);
                crew.finish(shard);
            })
        };
        last.offer(shard, AT_ONCE).unwrap();
        crew.finish(shard);
        burying.join().unwrap();
        crew.finish(shard);
        assert!(callers.iter().all(|caller| caller.replies() == 1));
        assert_eq!(last.replies(), 1);
    });
}

/// Writes of two lanes, the second one so that both leave.
fn offer_two(shard: &'static Shard, second: Arc<Caller>) -> [Arc<Caller>; 2] {
    let first = Caller::new();
    first.offer_to(LaneRef::Delete, shard, LATE).unwrap();
    second.offer(shard, AT_ONCE).unwrap();
    [first, second]
}
