//! The bound on what all shards hold together: contract 6.5. One test, since the bound is that of the whole process.

mod common;

use batcher_core::{Bound, Group, LaneRef, Refused};
use batcher_shell::{Ended, Shard, Taken, WorkerId, bound_total};
use common::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn offer(shard: &'static Shard<Failing>, bytes: u64) -> Result<(), Refused> {
    let group = Group { cost: 1, bytes, ..Group::default() };
    let offered = shard.offer((), LaneRef::Put, group, AT_ONCE, None, |contents, _| {
        contents.answers.add(Arc::default(), None);
    });
    offered.map(drop)
}

/// Commits all that is queued, and answers nobody.
fn drain(shard: &'static Shard<Failing>, id: WorkerId) {
    while let Taken::Commit(_) = shard.take((), id, Ended::default()) {}
}

const TOO_MUCH: Result<(), Refused> = Err(Refused::Overloaded(Bound::TotalBytes));

#[test]
fn all_shards_together_hold_as_many_bytes_as_they_may() {
    let (timer, first) = new();
    let (_timer, second) = new();
    first.join((), WorkerId(1), 1);
    second.join((), WorkerId(2), 2);

    // There is no bound yet; what is held by then counts from the next change on.
    assert_eq!(offer(first, 60), Ok(()));
    bound_total(Some(100));
    assert_eq!(offer(first, 10), Ok(()));
    assert_eq!(offer(second, 31), TOO_MUCH);
    assert_eq!(offer(first, 31), TOO_MUCH);
    assert_eq!(offer(second, 30), Ok(()));
    assert_eq!(offer(second, 1), TOO_MUCH);

    // What is in flight counts.
    assert!(matches!(first.take((), WorkerId(1), Ended::default()), Taken::Commit(_)));
    assert_eq!(offer(second, 1), TOO_MUCH);
    drain(first, WorkerId(1));
    assert_eq!(offer(second, 70), Ok(()));
    assert_eq!(offer(first, 1), TOO_MUCH);
    let refused = first.counts().unwrap().by_cause().find(|&(cause, _)| cause == "total_bytes");
    assert_eq!(refused, Some(("total_bytes", 2)));

    // Nothing is held: any one group is taken.
    drain(second, WorkerId(2));
    assert_eq!(offer(first, 1_000), Ok(()));
    assert_eq!(offer(second, 1), TOO_MUCH);

    // A shard that is closed holds what is in flight, and one that runs no more refuses for no other reason.
    first.close(());
    assert_eq!(offer(first, 1), Err(Refused::NotRunning));
    assert_eq!(offer(second, 100), Ok(()));

    // A failure of the library leaves nothing behind.
    drain(second, WorkerId(2));
    open(timer, first);
    assert_eq!(offer(first, 100), Ok(()));
    let failed = catch_unwind(AssertUnwindSafe(|| {
        first.offer((), LaneRef::Delete, Group::default(), LATE, None, |_, _| panic!("provoked"))
    }));
    assert!(failed.is_err());
    // The opening and the closing were told before it.
    while first.is_open() {
        timer.round();
    }
    assert_eq!(offer(second, 100), Ok(()));

    // Without a bound nothing is counted, and nothing that was is left when there is one again.
    bound_total(None);
    assert_eq!(offer(second, 1_000), Ok(()));
    drain(second, WorkerId(2));
    bound_total(Some(10));
    assert_eq!(offer(second, 1_000), Ok(()));
}
