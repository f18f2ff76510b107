//! The shard's thread: sleeps until the earliest deadline, wakes committers for what is due, and does what has no
//! process left to do it.
//!
//! Invariant: it ends only when the shard is closed, nothing is in flight and no event is left; a shard that is open
//! has exactly one.

use crate::batch::Batch;
use crate::effects::Event;
use crate::failure::{Failure, panic_text};
use crate::shard::Shard;
use crate::sync::{self, RecvTimeoutError};
use crate::vm::{Notice, Vm};

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Without a deadline; an event wakes it all the same.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many callers are looked at under the lock that their committer and new ones need.
const CALLERS_AT_ONCE: usize = 256;
/// How many batches are abandoned under one lock of the shard.
const ABANDONED_AT_ONCE: usize = 64;

impl<V: Vm> Shard<V> {
    /// The life of the thread, whatever fails in it.
    pub fn run(&self) {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve())) {
            let text = panic_text(&*panic);
            // Should even this fail, the next turn finds the shard as it is left.
            let _ = catch_unwind(AssertUnwindSafe(|| self.crash(text)));
        }
    }

    /// The life of the thread until it fails.
    pub fn serve(&self) {
        while self.round() {}
    }

    /// Does what is due and waits for more. False: the thread ends.
    ///
    /// # Panics
    ///
    /// If the library has failed: [`run`](Self::run) tells everybody that waits, and goes on.
    pub fn round(&self) -> bool {
        self.turn();
        let Some(deadline) = self.sleep() else { return false };
        match self.events.1.recv_deadline(deadline) {
            Ok(Event::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::OwnerDown(number)) => self.owner_down(number),
            Ok(Event::WorkerDown(id)) => self.with(None, |state, now| state.workers.died(id, now)),
            Ok(Event::Run(effects)) => effects.run(None, &self.events.0),
            Ok(Event::Crash(owner, text)) => {
                // Not if it comes so late that it was another's.
                if self.locked(|state| state.owners) == owner {
                    self.crash(text);
                }
            }
            #[cfg(feature = "seams")]
            Ok(Event::Panic) => panic!("provoked"),
            // The shard holds the sending side too.
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    /// Does what is due.
    fn turn(&self) {
        let now = sync::now();
        let mut waiters = HashMap::new();
        let turned = self.guard(None, || {
            self.with(None, |state, _now| {
                let was_open = !state.is_closed();
                state.engine.handle_timeout(now);
                if was_open && state.is_closed() {
                    state.abandon_with = Failure::OwnerDown;
                    // Whoever waits for a flush learns of a death at once (3.4).
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
            self.batches().iter().for_each(|batch| self.expire(batch, now));
        }
    }

    /// Tells the callers of a batch that have waited too long (3.7).
    fn expire(&self, batch: &Batch<V>, now: Instant) {
        let mut place = Some(0);
        while let Some(from) = place {
            let mut contents = batch.lock();
            let expired = contents.answers.as_mut().expire(now, from, CALLERS_AT_ONCE);
            for caller in expired.late {
                V::tell_late(&mut contents.answers, caller);
            }
            drop(contents);
            self.locked(|state| state.expire_at(expired.earliest));
            place = expired.next;
        }
    }

    /// Answers writes that are not committed any more. True: there may be more.
    fn fail_abandoned(&self) -> bool {
        let mut abandoned = Vec::new();
        let polled = self.guard(None, || {
            self.with(None, |state, _now| {
                let next = std::iter::from_fn(|| state.engine.poll_abandoned());
                abandoned.extend(next.take(ABANDONED_AT_ONCE));
                state.abandon_with.clone()
            })
        });
        let more = abandoned.len() == ABANDONED_AT_ONCE;
        // As above.
        let failure = told_of(&polled, |failure| failure);
        self.fail(abandoned.into_iter(), &failure);
        polled.map_or_else(|panic| resume_unwind(panic), |_| more)
    }

    /// Answers the batch of a dead committer, when nobody will start a committer for that. True: there may be more.
    fn fail_dead(&self) -> bool {
        let next =
            self.locked(|state| state.is_closed().then(|| state.workers.poll_dead()).flatten());
        let Some((work, _reply)) = next else { return false };
        self.fail(std::iter::once(work.batch), &Failure::CommitterDown);
        drop(self.with(None, |state, now| state.engine.handle_commit_done(now, work.lane)));
        true
    }

    /// Tells all callers that are left of these batches of the failure. What only a process can send is left to the
    /// next committer that is free.
    fn fail(&self, batches: impl Iterator<Item = Batch<V>>, failure: &Failure) {
        let mut proxied = V::Proxied::default();
        for batch in batches {
            V::fail(&mut batch.lock().answers, failure, &mut proxied);
        }
        self.proxy(None, proxied);
    }

    /// Has a committer send replies.
    pub fn proxy(&self, sender: Option<V::Env<'_>>, proxied: V::Proxied) {
        if !V::is_empty(&proxied) {
            self.with(sender, |state, _now| state.proxied.push(proxied));
        }
    }

    /// An owner has died. Only the present one matters.
    fn owner_down(&self, number: u64) {
        self.locked(|state| {
            if state.owners == number && state.owner.take().is_some() {
                state.engine.handle_owner_down(sync::now());
            }
        });
    }

    /// The library has failed: everybody who waits is told, the owner is to end with it (10.5).
    fn crash(&self, text: Arc<str>) {
        let failure = Failure::Crashed(Arc::clone(&text));
        let (owner, waiters, batches) = self.locked(|state| {
            let owner = state.owner();
            let mut batches: Vec<_> = state.workers.batches().collect();
            let closed = catch_unwind(AssertUnwindSafe(|| self.shut(state, failure.clone())));
            if closed.is_err() {
                batches.extend(std::mem::take(&mut state.engine).into_contents());
            }
            (owner, std::mem::take(&mut state.waiters), batches)
        });
        self.fail(batches.into_iter(), &failure);
        waiters.into_values().for_each(|waiter| V::tell(waiter, None, Some(&failure)));
        if let Some(owner) = owner {
            V::notify(&owner, None, Notice::Crashed(&text));
        }
    }

    /// Until when there is nothing to do. `None`: forever, and the thread ends.
    fn sleep(&self) -> Option<Instant> {
        let mut leaving = Vec::new();
        let deadline = self.locked(|state| {
            if state.is_closed() && self.events.1.is_empty() {
                state.dismisses = true;
                leaving.extend(std::iter::from_fn(|| state.workers.wake()));
                if state.engine.in_flight() == 0 {
                    state.thread_lives = false;
                    return None;
                }
            }
            let deadline = state.next_deadline().unwrap_or(sync::now() + FOREVER);
            state.asleep_until = Some(deadline);
            Some(deadline)
        });
        leaving.iter().for_each(|committer| V::wake(committer, None));
        deadline
    }
}

/// What is said of a piece of work that has failed, or is to be said by it.
fn told_of<T>(done: &std::thread::Result<T>, says: impl FnOnce(&T) -> &Failure) -> Failure {
    match done {
        Ok(done) => says(done).clone(),
        Err(panic) => Failure::Crashed(panic_text(&**panic)),
    }
}
