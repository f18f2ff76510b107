//! What loom can't show, since its `try_lock` waits.
#![cfg(not(loom))]

use batcher_shell::{Handover, Sent, finish, sync::Mutex};
use std::sync::Arc;

/// Notes what is sent.
fn send_to<'a>(sent: &'a mut Vec<&'static str>) -> impl FnMut(&mut Vec<&'static str>) -> Sent + 'a {
    |replies| {
        sent.extend(&*replies);
        if replies.drain(..).count() > 0 { Sent::All } else { Sent::Nothing }
    }
}

fn handover(replies: &[&'static str]) -> Handover<Vec<&'static str>> {
    Arc::new(Mutex::new(replies.to_vec()))
}

#[test]
fn a_batch_is_not_finished_while_a_responder_is_at_it() {
    let (shared, mut sent) = (handover(&["reply"]), Vec::new());
    let mut handovers = [Arc::clone(&shared)].into();
    let mut replies = shared.lock();
    assert!(!finish(&mut handovers, send_to(&mut sent)));
    assert_eq!(std::mem::take(&mut *replies), ["reply"]);
    drop(replies);
    assert!(finish(&mut handovers, send_to(&mut sent)));
    assert!(sent.is_empty());
}

#[test]
fn what_responders_have_left_is_sent_in_order_handover_by_handover() {
    let mut handovers = [handover(&["a"]), handover(&[]), handover(&["b", "c"])].into();
    let mut sent = Vec::new();
    assert!(!finish(&mut handovers, send_to(&mut sent)));
    assert_eq!(sent, ["a"]);
    assert!(!finish(&mut handovers, send_to(&mut sent)));
    assert_eq!(sent, ["a", "b", "c"]);
    assert!(finish(&mut handovers, send_to(&mut sent)));
}

#[test]
fn what_only_a_process_can_send_stays_until_that_is_about_to() {
    let shared = handover(&["proxied"]);
    let mut handovers = [Arc::clone(&shared), handover(&["b"])].into();
    let mut copied: Vec<&str> = Vec::new();
    let mut copy = |replies: &mut Vec<&'static str>| {
        copied.extend(&*replies);
        if replies.is_empty() { Sent::Nothing } else { Sent::AllButProxied }
    };
    for _killed_and_the_next_one in 1..=2 {
        assert!(!finish(&mut handovers, &mut copy));
    }
    shared.lock().clear();
    assert!(!finish(&mut handovers, &mut copy));
    assert_eq!(copied, ["proxied", "proxied", "b"]);
}
