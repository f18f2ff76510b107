//! The cursor over the callers of a batch: who is passed, claimed, or has given up.

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
fn who_is_claimed_can_not_give_up() {
    let (mut callers, later) = late();
    assert_eq!(callers.claim(), Some((&0, true)));
    assert_eq!(callers.claim(), Some((&1, true)));
    assert_eq!(callers.claimed(), 2);
    assert_eq!(callers.expire(later, 0, 9).late, [2]);
    assert_eq!(callers.pass(), Some((&0, true)));
    assert_eq!(callers.pass(), Some((&1, true)));
    assert_eq!(callers.claimed(), 0);
    assert_eq!(callers.claim(), Some((&2, false)));
}

#[test]
fn who_was_claimed_by_one_that_is_gone_can() {
    let (mut callers, later) = late();
    callers.claim();
    callers.claim();
    callers.pass();
    callers.unclaim();
    assert_eq!(callers.claimed(), 0);
    assert_eq!(callers.expire(later, 0, 9).late, [1, 2]);
    assert_eq!(callers.pass(), Some((&1, false)));
}

#[test]
fn who_is_passed_is_not_claimed_again() {
    let (mut callers, _later) = late();
    callers.pass();
    assert_eq!(callers.claim(), Some((&1, true)));
    callers.unclaim();
    callers.pass();
    callers.take_back();
    assert_eq!((callers.claimed(), callers.claim()), (0, Some((&1, true))));
    assert_eq!(callers.left().count(), 2);
}
