//! The cursor over the callers of a batch: who is passed, or has given up.

use batcher_shell::{Callers, Expired};
use std::time::{Duration, Instant};

/// So many callers who have all waited too long at the time returned.
fn late(count: u32) -> (Callers<u32>, Instant) {
    let now = Instant::now();
    let mut callers = Callers::default();
    for caller in 0..count {
        callers.add(caller, Some(now));
    }
    (callers, now + Duration::from_secs(1))
}

/// Who is told at this time, of those from this one on, and where to go on looking.
fn expire(callers: &mut Callers<u32>, now: Instant, from: usize) -> (Vec<u32>, Option<usize>) {
    let mut late = Vec::new();
    let Expired { earliest, next, given_up } =
        callers.expire(now, from, |&caller| late.push(caller));
    assert_eq!((earliest, given_up), (None, late.len() as u64));
    (late, next)
}

#[test]
fn who_is_passed_can_not_give_up() {
    let (mut callers, later) = late(3);
    assert_eq!(callers.pass(), Some((&0, true)));
    assert_eq!(callers.pass(), Some((&1, true)));
    assert_eq!(expire(&mut callers, later, 0), (vec![2], None));
    assert_eq!(callers.pass(), Some((&2, false)));
    assert_eq!(callers.pass(), None);
    assert_eq!(callers.late(), 1);
    callers.clear();
    assert_eq!(callers.late(), 0);
}

#[test]
fn who_could_not_be_sent_anything_is_next_again() {
    let (mut callers, later) = late(3);
    callers.pass();
    callers.pass();
    callers.take_back();
    assert_eq!(callers.remaining().count(), 2);
    assert_eq!(expire(&mut callers, later, 0), (vec![1, 2], None));
    assert_eq!(callers.pass(), Some((&1, false)));
}

#[test]
fn who_has_given_up_does_so_once() {
    let (mut callers, later) = late(300);
    let (first, next) = expire(&mut callers, later, 0);
    let place = next.expect("so many are not looked at at once");
    assert_eq!(first.len(), place);
    assert_eq!(expire(&mut callers, later, place), ((256..300).collect(), None));
    assert_eq!(expire(&mut callers, later, 0).0, []);
}

#[test]
fn who_waits_longer_is_told_later() {
    let (mut callers, later) = late(1);
    let end = later + Duration::from_secs(1);
    callers.add(1, Some(end + Duration::from_secs(1)));
    callers.add(2, Some(end));
    callers.add(3, None);
    let mut late = Vec::new();
    let looked = callers.expire(later, 0, |&caller| late.push(caller));
    assert_eq!((late, looked), (vec![0], Expired { earliest: Some(end), next: None, given_up: 1 }));
}
