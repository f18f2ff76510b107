//! A write that is alone is committed by its own process (5.6): its lane is in flight until that gives it back, or is
//! no more.

use crate::crew::Crew;
use crate::vm::*;
use crate::{beside, model};
use batcher_shell::Event;
use std::sync::Arc;

/// Give back against queue behind: what comes meanwhile leaves afterwards, and what comes later is alone in its turn.
#[test]
fn what_queues_behind_a_write_that_is_alone_leaves_after_it() {
    model(|shard| {
        open_without_thread_with(shard, learning());
        let crew = Crew::join(shard, &[1]);
        let (first, second) = (Caller::new(), Caller::new());
        let alone = first.offer_waiting(shard, AT_ONCE).expect("nobody else is here");
        let writing = {
            let (crew, second) = (Arc::clone(&crew), Arc::clone(&second));
            beside(shard, move |shard| {
                if let Some(alone) = second.offer_waiting(shard, AT_ONCE) {
                    crew.commit_alone(shard, &second, alone);
                }
            })
        };
        crew.commit_alone(shard, &first, alone);
        writing.join().unwrap();
        crew.finish(shard);
        assert_eq!((first.replies(), second.replies()), (1, 1));
    });
}

/// Death against queue behind: the lane goes on when the timer hears of the death, and nobody answers for the dead.
#[test]
fn what_queues_behind_a_process_that_dies_leaves_after_it() {
    model(|shard| {
        let thread = open_with(shard, learning()).unwrap();
        let crew = Crew::join(shard, &[1]);
        let (dead, second) = (Caller::new(), Caller::new());
        let alone = dead.offer_waiting(shard, AT_ONCE).expect("nobody else is here");
        let dying = beside(shard, move |shard| shard.notify(Event::AloneDown(alone)));
        second.offer(shard, AT_ONCE).unwrap();
        crew.work(shard);
        assert_eq!((dead.replies(), second.replies()), (0, 1));
        dying.join().unwrap();
        shard.close(());
        thread.join().unwrap();
    });
}

/// Death against whoever comes to wait behind: it has the process watched, be that dead by then or not.
#[test]
fn a_process_that_dies_holds_up_nobody_who_comes_to_wait() {
    model(|shard| {
        let thread = open_with(shard, learning()).unwrap();
        let crew = Crew::join(shard, &[1]);
        let (process, second) = (Arc::new(Process::default()), Caller::new());
        process.offer(shard);
        let dying = beside(shard, move |shard| process.die(shard));
        second.offer(shard, AT_ONCE).unwrap();
        crew.work(shard);
        assert_eq!(second.replies(), 1);
        dying.join().unwrap();
        shard.close(());
        thread.join().unwrap();
    });
}

/// The same with a flush.
#[test]
fn a_process_that_dies_holds_up_no_flush() {
    model(|shard| {
        let thread = open_with(shard, learning()).unwrap();
        let (process, waiter) = (Arc::new(Process::default()), Caller::new());
        process.offer(shard);
        let dying = beside(shard, move |shard| process.die(shard));
        shard.flush((), Arc::clone(&waiter), false);
        dying.join().unwrap();
        while waiter.replies() == 0 {
            loom::thread::yield_now();
        }
        shard.close(());
        thread.join().unwrap();
        assert_eq!(waiter.replies(), 1);
    });
}

/// Death against close: the thread ends, although nobody gives anything back.
#[test]
fn the_thread_ends_after_a_process_that_dies_with_its_write() {
    model(|shard| {
        let thread = open_with(shard, learning()).unwrap();
        let dead = Caller::new();
        let alone = dead.offer_waiting(shard, AT_ONCE).expect("nobody else is here");
        let dying = beside(shard, move |shard| shard.notify(Event::AloneDown(alone)));
        shard.close(());
        dying.join().unwrap();
        thread.join().unwrap();
        assert_eq!(dead.replies(), 0);
    });
}

/// Flush against give back: whoever waits is told once, and not before the write has been answered.
#[test]
fn a_flush_waits_for_a_write_that_is_alone() {
    model(|shard| {
        open_without_thread_with(shard, learning());
        let crew = Crew::join(shard, &[1]);
        let (first, waiter) = (Caller::new(), Caller::new());
        let alone = first.offer_waiting(shard, AT_ONCE).expect("nobody else is here");
        let flushing = {
            let (first, waiter) = (Arc::clone(&first), Arc::clone(&waiter));
            beside(shard, move |shard| {
                shard.flush((), Arc::clone(&waiter), false);
                assert!(waiter.replies() <= first.replies());
            })
        };
        crew.commit_alone(shard, &first, alone);
        flushing.join().unwrap();
        assert_eq!((first.replies(), waiter.replies()), (1, 1));
    });
}

/// Give back against close: what is queued behind leaves or is abandoned, and is answered once; the thread ends.
#[test]
fn a_write_that_is_alone_is_given_back_at_the_end() {
    model(|shard| {
        let thread = open_with(shard, learning()).unwrap();
        let crew = Crew::join(shard, &[1]);
        let (first, second) = (Caller::new(), Caller::new());
        let alone = first.offer_waiting(shard, AT_ONCE).expect("nobody else is here");
        second.offer(shard, AT_ONCE).unwrap();
        let closing = beside(shard, |shard| shard.close(()));
        crew.commit_alone(shard, &first, alone);
        closing.join().unwrap();
        crew.finish(shard);
        thread.join().unwrap();
        crew.finish(shard);
        assert_eq!((first.replies(), second.replies()), (1, 1));
    });
}

/// Give back against adoption: what is queued behind leaves once, after it, whichever owner is there.
#[test]
fn a_write_that_is_alone_is_given_back_while_the_owner_changes() {
    model(|shard| {
        let thread = open_with(shard, learning()).unwrap();
        let crew = Crew::join(shard, &[1]);
        let (first, second) = (Caller::new(), Caller::new());
        let alone = first.offer_waiting(shard, AT_ONCE).expect("nobody else is here");
        second.offer(shard, AT_ONCE).unwrap();
        owner_dies(shard);
        let giving = {
            let (crew, first) = (Arc::clone(&crew), Arc::clone(&first));
            beside(shard, move |shard| crew.commit_alone(shard, &first, alone))
        };
        assert!(open_with(shard, learning()).is_none());
        crew.work(shard);
        giving.join().unwrap();
        assert_eq!((first.replies(), second.replies()), (1, 1));
        shard.close(());
        thread.join().unwrap();
    });
}
