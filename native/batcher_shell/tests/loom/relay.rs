//! Replies that go through a herald.

use crate::host::Caller;
use crate::model;
use batcher_shell::{Finished, Inbox, Relay, finish};
use loom::thread::{spawn, yield_now};
use std::sync::Arc;

type Replies = Vec<Arc<Caller>>;

/// A herald against the committer of its batch: each reply is sent once, whoever comes first, and the
/// committer does not go on before the last one.
#[test]
fn a_relayed_reply_is_sent_once_before_the_batch_ends() {
    model(|_shard| {
        let callers = [Caller::new(), Caller::new()];
        let inbox = Arc::new(Inbox::default());
        let relay = Arc::new(Relay::new(callers.to_vec()));
        assert!(inbox.push(Arc::clone(&relay)));
        let herald = {
            let inbox = Arc::clone(&inbox);
            spawn(move || assert!(!inbox.work(send)))
        };
        let mut relays = vec![relay];
        while finish(&mut relays, send) != Finished::All {
            yield_now();
        }
        assert!(callers.iter().all(|caller| caller.replies() == 1));
        herald.join().unwrap();
        assert!(callers.iter().all(|caller| caller.replies() == 1));
    });
}

/// A relay against the end of the one before it: the herald goes on, or is woken.
#[test]
fn a_herald_sleeps_through_no_relay() {
    model(|_shard| {
        let (first, second) = (Caller::new(), Caller::new());
        let inbox = Arc::new(Inbox::default());
        assert!(inbox.push(relay(&first)));
        let herald = {
            let inbox = Arc::clone(&inbox);
            spawn(move || while inbox.work(send) {})
        };
        let wake = inbox.push(relay(&second));
        herald.join().unwrap();
        if wake {
            assert!(!inbox.work(send));
        }
        assert_eq!((first.replies(), second.replies()), (1, 1));
    });
}

fn relay(caller: &Arc<Caller>) -> Arc<Relay<Replies>> {
    Arc::new(Relay::new(vec![Arc::clone(caller)]))
}

fn send(replies: &mut Replies) -> usize {
    replies
        .drain(..)
        .map(|caller| {
            // Others may come while this one is at it.
            yield_now();
            caller.reply();
        })
        .count()
}
