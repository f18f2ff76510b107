//! Replies that go through a responder.

use crate::model;
use crate::vm::Caller;
use batcher_shell::{Handover, Handovers, Sent, finish, sync::Mutex};
use loom::thread::{spawn, yield_now};
use std::sync::Arc;

type Replies = Vec<Arc<Caller>>;

/// A responder against the committer of its batch: each reply is sent once, whichever comes first, and the
/// committer does not go on before the last one.
#[test]
fn a_handed_over_reply_is_sent_once_before_the_batch_ends() {
    model(|_shard| {
        let callers = [Caller::new(), Caller::new()];
        let queue = Arc::new(Handovers::default());
        let handover = Arc::new(Mutex::new(callers.to_vec()));
        assert!(queue.push(Arc::clone(&handover)));
        let responder = {
            let queue = Arc::clone(&queue);
            spawn(move || assert!(!queue.send_first(send)))
        };
        let mut handovers = [handover].into();
        while !finish(&mut handovers, send) {
            yield_now();
        }
        assert!(callers.iter().all(|caller| caller.replies() == 1));
        responder.join().unwrap();
        assert!(callers.iter().all(|caller| caller.replies() == 1));
    });
}

/// A handover against the end of the one before it: the responder goes on, or is woken.
#[test]
fn a_responder_sleeps_through_no_handover() {
    model(|_shard| {
        let (first, second) = (Caller::new(), Caller::new());
        let queue = Arc::new(Handovers::default());
        assert!(queue.push(handover(&first)));
        let responder = {
            let queue = Arc::clone(&queue);
            spawn(move || while queue.send_first(send) {})
        };
        let wake = queue.push(handover(&second));
        responder.join().unwrap();
        if wake {
            assert!(!queue.send_first(send));
        }
        assert_eq!((first.replies(), second.replies()), (1, 1));
    });
}

fn handover(caller: &Arc<Caller>) -> Handover<Replies> {
    Arc::new(Mutex::new(vec![Arc::clone(caller)]))
}

fn send(replies: &mut Replies) -> Sent {
    let sent = replies.drain(..).map(|caller| {
        // Others may come while this one is at it.
        yield_now();
        caller.reply();
    });
    if sent.count() > 0 { Sent::All } else { Sent::Nothing }
}
