//! Where threads meet, in every order: each model is one claim, run under loom by `make test`.
//!
//! Waiting that never ends shows as loom's "deadlock". Each order has few preemptions at most, since
//! more find nothing but time to spend.
#![cfg(loom)]

mod alone;
mod crew;
mod deaths;
mod lanes;
mod responders;
mod vm;

use batcher_core::LaneRef;
use batcher_shell::WorkerId;
use crew::Crew;
use loom::thread::{JoinHandle, spawn};
use std::sync::Arc;
use vm::*;

/// Runs a model in every order of its threads; `LOOM_MAX_PREEMPTIONS` sets another bound.
fn model(run: impl Fn(&'static Shard) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(move || run(new_shard()));
}

/// Works on the shard in another thread.
fn beside(shard: &'static Shard, work: impl FnOnce(&'static Shard) + 'static) -> JoinHandle<()> {
    spawn(move || work(shard))
}

/// Enqueue against expiry: whatever the thread is about to sleep for, a window that ends earlier is
/// not slept over.
#[test]
fn an_earlier_window_wakes_the_thread() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1]);
        let (late, soon) = (Caller::new(), Caller::new());
        let writing = {
            let late = Arc::clone(&late);
            beside(shard, move |shard| late.offer(shard, LATE).unwrap())
        };
        soon.offer_to(LaneRef::Delete, shard, SOON).unwrap();
        crew.work(shard);
        assert_eq!((late.replies(), soon.replies()), (0, 1));
        writing.join().unwrap();
        shard.close(());
        thread.join().unwrap();
    });
}

/// Filling against departure: a batch leaves with all that was accepted into it, whoever sends it.
#[test]
fn a_batch_leaves_whole() {
    model(|shard| {
        open_without_thread(shard);
        let crew = Crew::join(shard, &[1]);
        let (late, soon) = (Caller::new(), Caller::new());
        let writing = {
            let late = Arc::clone(&late);
            beside(shard, move |shard| late.offer(shard, LATE).unwrap())
        };
        soon.offer(shard, AT_ONCE).unwrap();
        crew.work(shard);
        writing.join().unwrap();
        shard.flush((), Caller::new(), false);
        crew.finish(shard);
        assert_eq!((late.replies(), soon.replies()), (1, 1));
    });
}

/// Filling against departure, again and again: threads that keep the slot they wrote to last put what is next into
/// the one that is open then, be it the same once more.
#[test]
fn a_thread_writes_to_the_slot_that_is_open() {
    model(|shard| {
        open_without_thread(shard);
        let crew = Crew::join(shard, &[1]);
        let (here, there) = (Caller::new(), Caller::new());
        let writing = {
            let there = Arc::clone(&there);
            beside(shard, move |shard| {
                (0..2).for_each(|_| there.offer(shard, AT_ONCE).unwrap());
            })
        };
        for _ in 0..2 {
            here.offer(shard, AT_ONCE).unwrap();
            crew.work(shard);
        }
        writing.join().unwrap();
        shard.flush((), Caller::new(), false);
        crew.finish(shard);
        assert_eq!((here.replies(), there.replies()), (2, 2));
    });
}

/// A call that fails while its writes are put in holds up nobody: whoever else is in its batch is answered, or told of
/// the failure.
#[test]
fn a_batch_does_not_wait_for_a_call_that_failed() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1]);
        let other = Caller::new();
        let failing = beside(shard, fail_to_fill);
        let accepted = other.offer(shard, AT_ONCE).is_ok();
        failing.join().unwrap();
        crew.finish(shard);
        thread.join().unwrap();
        assert_eq!(other.replies(), usize::from(accepted));
    });
}

/// Giving up against reply: a caller is told that it has waited too long, or gets its reply.
#[test]
fn a_caller_has_waited_too_long_or_gets_its_reply() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1]);
        let (patient, other) = (Caller::new(), Caller::new());
        patient.offer(shard, LATE).unwrap();
        other.wait(shard, AT_ONCE, SOON);
        crew.work(shard);
        shard.close(());
        thread.join().unwrap();
        crew.finish(shard);
        assert_eq!((patient.replies(), patient.late()), (1, 0));
        assert_eq!(other.replies() + other.late(), 1);
    });
}

/// The same where nothing is ever committed: the thread wakes to tell the caller, and whoever
/// closes the shard meanwhile tells nobody twice.
#[test]
fn a_caller_has_waited_too_long_or_hears_of_the_end() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let caller = Caller::new();
        caller.wait(shard, LATE, SOON);
        let closing = beside(shard, |shard| shard.close(()));
        closing.join().unwrap();
        thread.join().unwrap();
        assert_eq!(caller.replies() + caller.late(), 1);
    });
}

/// Enqueue against the end of a wait: the thread wakes for the caller who waits least.
#[test]
fn a_shorter_wait_wakes_the_thread() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let (first, second) = (Caller::new(), Caller::new());
        first.wait(shard, LATE, LATE);
        let waiting = {
            let second = Arc::clone(&second);
            beside(shard, move |shard| second.wait(shard, LATE, SOON))
        };
        waiting.join().unwrap();
        while second.late() == 0 {
            loom::thread::yield_now();
        }
        assert_eq!((first.replies(), first.late()), (0, 0));
        shard.close(());
        thread.join().unwrap();
        assert_eq!((first.replies(), first.late()), (1, 0));
        assert_eq!((second.replies(), second.late()), (0, 1));
    });
}

/// Close against enqueue: a write is refused, or abandoned and answered.
#[test]
fn a_write_at_the_end_is_refused_or_answered() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let caller = Caller::new();
        let writing = {
            let caller = Arc::clone(&caller);
            spawn(move || caller.offer(shard, LATE).is_ok())
        };
        shard.close(());
        let accepted = writing.join().unwrap();
        thread.join().unwrap();
        assert_eq!(caller.replies(), usize::from(accepted));
    });
}

/// The same where the write leaves at once: the thread ends after its commit, not before.
#[test]
fn a_write_at_the_end_is_refused_or_committed() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1]);
        let caller = Caller::new();
        let writing = {
            let caller = Arc::clone(&caller);
            spawn(move || caller.offer(shard, AT_ONCE).is_ok())
        };
        shard.close(());
        let accepted = writing.join().unwrap();
        crew.finish(shard);
        thread.join().unwrap();
        crew.finish(shard);
        assert_eq!(caller.replies(), usize::from(accepted));
    });
}

/// The same where only a process can send the reply: a committer that is free takes it along.
#[test]
fn a_reply_by_a_process_is_not_left_behind() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1]);
        let (first, second) = (Caller::new(), Caller::by_process());
        first.offer(shard, AT_ONCE).unwrap();
        second.offer(shard, LATE).unwrap();
        let committing = {
            let crew = Arc::clone(&crew);
            spawn(move || crew.work(shard))
        };
        shard.close(());
        committing.join().unwrap();
        // The thread waits for that.
        while second.replies() == 0 {
            drop(crew.work(shard));
        }
        thread.join().unwrap();
        crew.finish(shard);
        assert_eq!((first.replies(), second.replies()), (1, 1));
    });
}

/// The same where the committer leaves: then the reply waits for the next one.
#[test]
fn a_reply_by_a_process_is_not_sent_to_one_that_leaves() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1]);
        let caller = Caller::by_process();
        caller.offer(shard, LATE).unwrap();
        let leaving = beside(shard, |shard| {
            shard.retire(WorkerId(1), 0);
        });
        shard.close(());
        leaving.join().unwrap();
        crew.join_one(shard, 2);
        while caller.replies() == 0 {
            drop(crew.work(shard));
        }
        thread.join().unwrap();
        crew.finish(shard);
        assert_eq!(caller.replies(), 1);
    });
}

/// Adoption against dispatch: while the owner changes, a committer asks for its next batch and a
/// write arrives. Each group leaves once, in order, one batch at a time.
#[test]
fn what_is_queued_leaves_once_while_the_owner_changes() {
    model(|shard| {
        let thread = open(shard, LATE).unwrap();
        let crew = Crew::join(shard, &[1, 2]);
        let callers = [Caller::new(), Caller::new(), Caller::new()];
        callers[0].offer(shard, AT_ONCE).unwrap();
        callers[1].offer(shard, LATE).unwrap();
        owner_dies(shard);
        let committing = {
            let crew = Arc::clone(&crew);
            spawn(move || {
                let mut left = Vec::new();
                while left.len() < 3 {
                    left.extend(crew.work(shard));
                }
                left
            })
        };
        assert!(open(shard, LATE).is_none());
        callers[2].offer(shard, AT_ONCE).unwrap();
        let left = committing.join().unwrap();
        assert!(left.iter().zip(&callers).all(|(left, caller)| Arc::ptr_eq(left, caller)));
        shard.close(());
        thread.join().unwrap();
        assert!(callers.iter().all(|caller| caller.replies() == 1));
    });
}

/// Adoption against giving up: what an owner left is taken over or answered, never both.
#[test]
fn what_is_queued_is_adopted_or_answered() {
    model(|shard| {
        let first = open(shard, SOON).unwrap();
        let crew = Crew::join(shard, &[1]);
        let caller = Caller::new();
        caller.offer(shard, LATE).unwrap();
        owner_dies(shard);
        let second = open(shard, LATE);
        shard.close(());
        first.join().unwrap();
        if let Some(thread) = second {
            thread.join().unwrap();
        }
        crew.finish(shard);
        assert_eq!(caller.replies(), 1);
    });
}

/// Close against open: the thread goes on for the next owner, or ends and another one is started;
/// there is one to end the window, and none is left at the end.
#[test]
fn an_open_shard_has_one_thread() {
    model(|shard| {
        let first = open(shard, LATE).unwrap();
        shard.close(());
        let second = open(shard, LATE);
        let crew = Crew::join(shard, &[1]);
        let caller = Caller::new();
        caller.offer(shard, SOON).unwrap();
        while caller.replies() == 0 {
            crew.work(shard);
        }
        shard.close(());
        first.join().unwrap();
        if let Some(thread) = second {
            thread.join().unwrap();
        }
        assert_eq!(caller.replies(), 1);
    });
}

/// Take against take: two committers that are awake, one lane that is due. One gets it, the other rests and is woken
/// for what comes next.
#[test]
fn a_committer_that_found_nothing_is_woken_again() {
    model(|shard| {
        open_without_thread(shard);
        let crew = Crew::join(shard, &[1, 2]);
        let callers = [Caller::new(), Caller::new()];
        let taking = {
            let crew = Arc::clone(&crew);
            spawn(move || crew.work(shard))
        };
        callers.iter().for_each(|caller| caller.offer(shard, AT_ONCE).unwrap());
        taking.join().unwrap();
        crew.finish(shard);
        assert!(callers.iter().all(|caller| caller.replies() == 1));
    });
}
