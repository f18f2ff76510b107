//! What loom can't show, since its `try_lock` waits.
#![cfg(not(loom))]

use batcher_shell::{Finished, Handover, finish};
use std::sync::Arc;

fn drain(replies: &mut Vec<&'static str>) -> usize {
    replies.drain(..).count()
}

#[test]
fn a_batch_is_not_finished_while_a_responder_is_at_it() {
    let handover = Arc::new(Handover::new(vec!["reply"]));
    let mut handovers = vec![Arc::clone(&handover)];
    handover.send(|replies| {
        assert_eq!(finish(&mut handovers, drain), Finished::Busy);
        assert_eq!(drain(replies), 1);
    });
    assert_eq!(finish(&mut handovers, drain), Finished::All);
}

#[test]
fn what_responders_have_left_is_sent_handover_by_handover() {
    let handovers = [vec!["a"], vec![], vec!["b", "c"]];
    let mut handovers = handovers.map(|replies| Arc::new(Handover::new(replies))).to_vec();
    assert_eq!(finish(&mut handovers, drain), Finished::Some);
    assert_eq!(finish(&mut handovers, drain), Finished::Some);
    assert_eq!(finish(&mut handovers, drain), Finished::All);
}
