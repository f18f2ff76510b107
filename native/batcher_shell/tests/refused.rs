//! What was refused is told of once: contract 13.7.

mod common;

use batcher_shell::{RefusedBy, Shard};
use common::*;

/// What there is to tell.
fn untold(shard: &'static Shard<Failing>) -> Vec<(&'static str, u64)> {
    shard.take_refused().filter(|&(_, count)| count > 0).collect()
}

fn refuse(shard: &'static Shard<Failing>, cause: RefusedBy, count: u64) {
    (0..count).for_each(|_| shard.refuse(cause));
}

#[test]
fn what_was_refused_is_taken_once() {
    let (_timer, shard) = new();
    assert_eq!(untold(shard), []);
    refuse(shard, RefusedBy::Items, 2);
    refuse(shard, RefusedBy::Invalid, 1);
    assert_eq!(untold(shard), [("items", 2), ("invalid", 1)]);
    assert_eq!(untold(shard), []);
    refuse(shard, RefusedBy::Items, 3);
    assert_eq!(untold(shard), [("items", 3)]);
    let counted = shard.counts().unwrap().by_cause().find(|&(cause, _)| cause == "items");
    assert_eq!(counted, Some(("items", 5)));
}

#[test]
fn counts_that_are_forgotten_are_told_of_all_the_same() {
    let (_timer, shard) = new();
    refuse(shard, RefusedBy::Items, 5);
    assert_eq!(untold(shard), [("items", 5)]);
    refuse(shard, RefusedBy::Items, 2);
    for _ in 0..2 {
        shard.forget_stats();
        refuse(shard, RefusedBy::Items, 1);
    }
    assert_eq!(untold(shard), [("items", 4)]);
    shard.forget_stats();
    assert_eq!(untold(shard), []);
}

#[test]
fn a_shard_that_is_closed_has_what_nobody_took() {
    let (_timer, shard) = new();
    refuse(shard, RefusedBy::ShuttingDown, 1);
    shard.close(());
    assert!(shard.counts().is_none());
    assert_eq!(untold(shard), [("shutting_down", 1)]);
}
