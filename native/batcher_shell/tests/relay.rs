//! What loom can't show, since its `try_lock` waits.
#![cfg(not(loom))]

use batcher_shell::{Finished, Relay, finish};
use std::sync::Arc;

fn drain(replies: &mut Vec<&'static str>) -> usize {
    replies.drain(..).count()
}

#[test]
fn a_batch_is_not_finished_while_a_herald_is_at_it() {
    let relay = Arc::new(Relay::new(vec!["reply"]));
    let mut relays = vec![Arc::clone(&relay)];
    relay.send(|replies| {
        assert_eq!(finish(&mut relays, drain), Finished::Busy);
        assert_eq!(drain(replies), 1);
    });
    assert_eq!(finish(&mut relays, drain), Finished::All);
}

#[test]
fn what_heralds_have_left_is_sent_relay_by_relay() {
    let relays = [vec!["a"], vec![], vec!["b", "c"]];
    let mut relays = relays.map(|replies| Arc::new(Relay::new(replies))).to_vec();
    assert_eq!(finish(&mut relays, drain), Finished::Some);
    assert_eq!(finish(&mut relays, drain), Finished::Some);
    assert_eq!(finish(&mut relays, drain), Finished::All);
}
