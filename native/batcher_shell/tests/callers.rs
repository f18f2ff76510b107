//! The cursor over the callers of a batch: who is passed, or has given up.

use batcher_shell::Callers;
use std::time::{Duration, Instant};

/// Three callers who have all waited too long at the time returned.
fn late() -> (Callers<u32>, Instant) {
    let now = Instant::now();
    let mut callers = Callers::default();
    for caller in 0..3 {
        callers.add(caller, Some(now));
    }
    (callers, now + Duration::from_secs(1))
}

#[test]
fn who_is_passed_can_not_give_up() {
    let (mut callers, later) = late();
    assert_eq!(callers.pass(), Some((&0, true)));
    assert_eq!(callers.pass(), Some((&1, true)));
    assert_eq!(callers.expire(later, 0, 9).late, [2]);
    assert_eq!(callers.pass(), Some((&2, false)));
    assert_eq!(callers.pass(), None);
}

#[test]
fn who_could_not_be_sent_anything_is_next_again() {
    let (mut callers, later) = late();
    callers.pass();
    callers.pass();
    callers.take_back();
    assert_eq!(callers.left().count(), 2);
    assert_eq!(callers.expire(later, 0, 9).late, [1, 2]);
    assert_eq!(callers.pass(), Some((&1, false)));
}

#[test]
fn who_has_given_up_does_so_once() {
    let (mut callers, later) = late();
    assert_eq!(callers.expire(later, 0, 2).late, [0, 1]);
    assert_eq!(callers.expire(later, 0, 9).late, [2]);
}
