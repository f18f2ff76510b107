//! The lock that threads look at, however long another one has it.
#![cfg(not(loom))]

use batcher_shell::sync::{Lock, lock, lock_when};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Many times as long as a thread looks before it sleeps.
const LONG: Duration = Duration::from_millis(20);

#[test]
fn whoever_waits_long_gets_the_lock() {
    let value = Lock::new(0);
    let (taken, is_taken) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = lock(&value);
            taken.send(()).unwrap();
            thread::sleep(LONG);
            *guard = 1;
        });
        is_taken.recv().unwrap();
        assert_eq!(*lock(&value), 1);
    });
}

#[test]
fn whoever_waits_for_what_it_guards_gets_it_when_it_is_so() {
    let value = Lock::new(0);
    thread::scope(|scope| {
        let waits = scope.spawn(|| *lock_when(&value, |value| *value == 2));
        for next in 1..=2 {
            thread::sleep(LONG);
            *lock(&value) = next;
        }
        assert_eq!(waits.join().unwrap(), 2);
    });
}
