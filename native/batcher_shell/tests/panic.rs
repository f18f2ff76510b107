//! A shard's thread that fails in the midst of its work: whoever waits is told, once (10.5).
#![cfg(not(loom))]

use batcher_core::{Config, Group, LaneRef};
use batcher_shell::{Callers, Contents, Departure, Event, Failure, Host, Seat, Shard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// How many replies somebody has had.
type Caller = Arc<AtomicUsize>;

enum Failing {}

struct Committer {
    seat: Seat<Failing>,
    /// Whether to look at it makes the library fail.
    fails: bool,
}

impl Host for Failing {
    type Env<'a> = ();
    type Pid = u32;
    type Watch = ();
    type Committer = Arc<Committer>;
    type Herald = ();
    type Writes = ();
    type Caller = Caller;
    type Answers = Callers<Caller>;
    type Waiter = Caller;
    type Mail = ();
    type Reply = ();

    fn may_be_exiting(_sender: ()) -> bool {
        false
    }

    fn is_current(committer: &Arc<Committer>) -> bool {
        assert!(!committer.fails, "provoked");
        true
    }

    fn seat(committer: &Arc<Committer>) -> &Seat<Self> {
        &committer.seat
    }

    fn depart(_departure: &Departure<Self>, _writes: (), _sender: Option<()>) {}

    fn clear(answers: &mut Callers<Caller>) {
        answers.clear();
    }

    fn tell(waiter: Caller, _sender: Option<()>, _failure: Option<&Failure>) {
        waiter.fetch_add(1, Relaxed);
    }

    fn ask_for_committers(_owner: u32, _sender: Option<()>, _count: usize) {}

    fn ask_for_heralds(_owner: u32, _sender: ()) {}

    fn fail(batches: impl Iterator<Item = Contents<Self>>, _failure: &Failure) -> Option<()> {
        for contents in batches {
            while let Some((caller, true)) = contents.lock().answers.pass() {
                caller.fetch_add(1, Relaxed);
            }
        }
        None
    }

    fn tell_late(_answers: &mut Callers<Caller>, _caller: Caller) {}

    fn take_over(_committer: &Arc<Committer>, _sender: Option<()>, _reply: ()) {}

    fn reply(_failure: &Failure) {}

    fn deliver(_committer: &Arc<Committer>, _sender: Option<()>, _mail: ()) {}

    fn dismiss(_committer: &Arc<Committer>) {}

    fn tell_of_crash(_owner: u32, _text: &str) {}
}

fn offer(shard: &Shard<Failing>, window: Duration) -> Caller {
    let caller = Caller::default();
    let group = Group { weight: 1, bytes: 8, ..Group::default() };
    let queued = shard.offer((), LaneRef::Put, group, window, None, |held, until| {
        held.answers.add(Arc::clone(&caller), until);
    });
    queued.unwrap();
    caller
}

fn join(shard: &Shard<Failing>, pid: u32, fails: bool) {
    shard.join((), Arc::new(Committer { seat: Seat::new(pid), fails }));
}

#[test]
fn whoever_waits_is_told_although_the_thread_fails() {
    let shard = Shard::<Failing>::new(0);
    let config = Config { adoption_timeout: Duration::ZERO, ..Config::default() };
    shard.open((), 0, config, None, || Ok(()), |_number, _events| ()).unwrap();
    join(&shard, 1, false);
    let in_flight = offer(&shard, Duration::ZERO);
    let abandoned = offer(&shard, Duration::from_secs(3600));
    let flush = Caller::default();
    shard.flush((), Arc::clone(&flush)).unwrap();
    // The thread finds a batch without a committer, one who could answer it, and that nobody follows the owner.
    join(&shard, 2, true);
    shard.notify(Event::CommitterDown(1));
    shard.notify(Event::OwnerDown(1));
    shard.run();
    assert_eq!([in_flight, abandoned, flush].map(|waits| waits.load(Relaxed)), [1, 1, 1]);
}
