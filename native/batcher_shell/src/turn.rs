//! What a timer does for one shard.
//!
//! Invariant: everybody that waits here and has no process left to hear from is told, whatever fails.

use crate::alone::AloneWrites;
use crate::batch::Batch;
use crate::counts::Verdict;
use crate::effects::Event;
use crate::flight::Ended;
use crate::shard::Shard;
use crate::sync::{self, Mutex};
use crate::vm::{Failure, Notice, Vm, panic_text};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Without a deadline; an event wakes the timer all the same.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many batches are abandoned under one lock of the shard, and of how many callers that have waited too long are
/// counted under one.
const BATCHES_AT_ONCE: usize = 64;

impl<V: Vm> Shard<V> {
    /// Something has happened.
    pub(crate) fn handle(&'static self, event: Event<V>) {
        match event {
            Event::Wake | Event::Free(_) => {}
            Event::OwnerDown(number) => self.owner_down(number),
            Event::WorkerDown(id) => self.with(None, |state, now| state.workers.died(id, now)),
            Event::AloneDown(alone) => self.give_back(None, alone, Verdict::Exit),
            Event::Run(effects) => effects.run(None),
            // Not if it comes so late that it was another's.
            Event::Crash(owner, _) if self.locked(|state| state.owner_number) != owner => {}
            Event::Crash(_, text) => self.crash(text),
            #[cfg(feature = "seams")]
            Event::Panic => panic!("provoked"),
        }
    }

    /// Does what is due.
    pub(crate) fn turn(&'static self) {
        let now = sync::now();
        let mut waiters = HashMap::new();
        let turned = self.guard(None, || {
            self.with(None, |state, _now| {
                let was_open = !state.is_closed();
                state.engine.handle_timeout(now);
                if was_open && state.is_closed() {
                    state.abandon_with = Failure::OwnerDown;
                    // A process that waits for a flush learns of a death at once (3.4).
                    waiters = std::mem::take(&mut state.waiters);
                }
                state.workers.handle_timeout(now, state.owner.is_some());
                (state.poll_expiry(now), state.abandon_with.clone())
            })
        });
        let failure = told_of(&turned, |(_, failure)| failure);
        // Nobody but this turn knows of them, should it have failed.
        waiters.into_values().for_each(|waiter| V::tell(waiter, None, Some(&failure)));
        let (looks, _) = turned.unwrap_or_else(|panic| resume_unwind(panic));
        while self.fail_abandoned() {}
        while self.fail_dead() {}
        if looks {
            self.batches().chunks(BATCHES_AT_ONCE).for_each(|batches| self.expire(batches, now));
            // A look at many batches takes long, and is not to follow another at once.
            self.locked(|state| state.looked(sync::now()));
        }
    }

    /// Tells the callers of these batches that have waited too long (3.7).
    fn expire(&'static self, batches: &[Batch<V>], now: Instant) {
        let (mut given_up, mut earliest) = (0, None);
        for batch in batches {
            let mut place = Some(0);
            while let Some(from) = place {
                let expired = V::expire(&mut batch.lock().answers, now, from);
                given_up += expired.given_up;
                earliest = [earliest, expired.earliest].into_iter().flatten().min();
                place = expired.next;
            }
        }
        self.locked(|state| {
            state.counts.timeouts += given_up;
            state.expire_at(earliest);
        });
    }

    /// Answers writes that are not committed any more. True: there may be more.
    fn fail_abandoned(&'static self) -> bool {
        let mut abandoned = Vec::new();
        let polled = self.guard(None, || {
            self.change(None, |state| {
                let next = std::iter::from_fn(|| state.engine.poll_abandoned());
                abandoned.extend(next.take(BATCHES_AT_ONCE));
                let writes = abandoned.iter().map(Batch::groups).sum::<u64>();
                state.counts.abandoned_writes += writes;
                if state.is_closed() && abandoned.len() < BATCHES_AT_ONCE {
                    state.swept = state.owner_number;
                }
                state.abandon_with.clone()
            })
        });
        let more = abandoned.len() == BATCHES_AT_ONCE;
        // As above.
        let failure = told_of(&polled, |(failure, _)| failure);
        self.fail(abandoned.into_iter(), &failure);
        // A flush that has waited for them is answered behind them (11.1).
        let (_, effects) = polled.unwrap_or_else(|panic| resume_unwind(panic));
        self.run_effects(None, effects);
        more
    }

    /// Answers the batch of a dead committer, when nobody will start a committer for that. True: there may be more.
    fn fail_dead(&'static self) -> bool {
        let next = self.locked(|state| {
            let dead = state.is_closed().then(|| state.workers.poll_dead());
            let (lanes, reason, _) = dead.flatten()?;
            let batches: Vec<_> = lanes.iter().filter_map(|&lane| state.in_flight(lane)).collect();
            Some((lanes, reason, batches))
        });
        let Some((lanes, reason, batches)) = next else { return false };
        self.fail(batches.iter().cloned(), &Failure::CommitterDown);
        // The memory of these batches is for other slots next: nothing of their callers may be left in it.
        batches.into_iter().for_each(|batch| drop(std::mem::take(&mut batch.lock().answers)));
        drop(
            self.with(None, |state, now| state.commit_done(now, &lanes, reason, Ended::default())),
        );
        true
    }

    /// Tells all callers that are left of these batches of the failure. What only a process can send is left to the
    /// next committer that is free.
    fn fail(&'static self, batches: impl Iterator<Item = Batch<V>>, failure: &Failure) {
        let mut proxied = None;
        for batch in batches {
            V::fail(&mut batch.lock().answers, failure, &mut proxied);
        }
        if let Some(proxied) = proxied {
            let proxied = Arc::new(Mutex::new(proxied));
            self.with(None, |state, _now| state.workers.add_proxied(proxied));
        }
    }

    /// An owner has died. Only the present one matters.
    fn owner_down(&'static self, number: u64) {
        self.locked(|state| {
            if state.owner_number == number && state.owner.take().is_some() {
                state.engine.handle_owner_down(sync::now());
            }
        });
    }

    /// The library has failed: every caller and every waiter is told, the owner is to end with it (10.5).
    pub(crate) fn crash(&'static self, text: Arc<str>) {
        let failure = Failure::Crashed(Arc::clone(&text));
        let (owner, waiters, batches) = self.locked(|state| {
            state.counts.panics += 1;
            let owner = state.owner.clone();
            let closed = catch_unwind(AssertUnwindSafe(|| {
                self.shut(state, failure.clone());
                let lanes = state.workers.lanes();
                lanes.filter_map(|(lane, _)| state.in_flight(lane)).collect::<Vec<_>>()
            }));
            let batches = closed.unwrap_or_else(|_| {
                // What is alone is of the engine that has failed.
                state.alone = AloneWrites::default();
                state.engine.take_contents().collect()
            });
            state.settle_total();
            (owner, std::mem::take(&mut state.waiters), batches)
        });
        self.fail(batches.into_iter(), &failure);
        waiters.into_values().for_each(|waiter| V::tell(waiter, None, Some(&failure)));
        if let Some(owner) = owner {
            V::notify(&owner, None, Notice::Crashed(&text));
        }
    }

    /// When there is something to do next. `None`: never, until it is opened again.
    pub(crate) fn next_look(&'static self) -> Option<Instant> {
        self.with(None, |state, now| {
            // Not if it was closed since: then an event has come.
            if state.is_closed() && state.swept == state.owner_number {
                state.dismisses = true;
                if state.engine.in_flight() == 0 && !state.workers.have_replies() {
                    return None;
                }
            }
            let next = state.next_deadline().unwrap_or(now + FOREVER);
            state.looks_at = Some(next);
            Some(next)
        })
    }
}

/// What is said of a piece of work that has failed, or is to be said by it.
fn told_of<T>(done: &std::thread::Result<T>, says: impl FnOnce(&T) -> &Failure) -> Failure {
    match done {
        Ok(done) => says(done).clone(),
        Err(panic) => Failure::Crashed(panic_text(&**panic)),
    }
}
