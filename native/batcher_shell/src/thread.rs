//! The shard's thread: sleeps until the earliest deadline, and does what is too long for a
//! scheduler or has no process left to do it.
//!
//! Invariant: it ends only when the shard is closed, nothing is in flight and no event is left; a
//! shard that is open has exactly one.

use crate::contents::Contents;
use crate::failure::Failure;
use crate::host::Host;
use crate::outbox::Outbox;
use crate::shard::Shard;
use crate::state::State;
use crate::sync::{self, RecvTimeoutError};
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What others tell the thread.
pub enum Event<H: Host> {
    /// Look again: a deadline comes earlier than the one you sleep for, or the shard was closed.
    Wake,
    /// This owner has died.
    OwnerDown(u64),
    /// This committer has died.
    CommitterDown(H::Pid),
    /// What a process leaves to be sent: a batch too long to be put together on a scheduler, or
    /// anything where the process may be exiting.
    Send(Outbox<H>),
    /// The library failed in a calling process.
    Crash(Arc<str>),
    /// Fail here and now.
    #[cfg(feature = "seams")]
    Panic,
}

/// Without a deadline; an event wakes it all the same.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many callers are looked at under the lock that their committer and new ones need.
const CALLERS_AT_ONCE: usize = 256;

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> Arc<str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => Arc::from(*text),
        (None, Some(text)) => Arc::from(text.as_str()),
        (None, None) => Arc::from("panic without a text"),
    }
}

impl<H: Host> Shard<H> {
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
    pub fn round(&self) -> bool {
        self.turn();
        let Some(deadline) = self.sleep() else { return false };
        match self.events.1.recv_deadline(deadline) {
            Ok(Event::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::OwnerDown(number)) => self.owner_down(number),
            Ok(Event::CommitterDown(pid)) => self.committer_down(pid),
            Ok(Event::Send(outbox)) => outbox.send(None, &self.events.0),
            Ok(Event::Crash(text)) => self.crash(text),
            #[cfg(feature = "seams")]
            Ok(Event::Panic) => panic!("provoked"),
            // The shard holds the sending side too.
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    /// Does what is due.
    fn turn(&self) {
        let mut abandoned = Vec::new();
        let mut waiters = HashMap::new();
        let now = sync::now();
        let mut waiting = Vec::new();
        let settled = self.guard(None, || {
            self.locked(|state| {
                let was_open = !state.is_closed();
                state.engine.handle_timeout(now);
                waiting = state.poll_expiry(now);
                if was_open && state.is_closed() {
                    state.abandon_with = Failure::OwnerDown;
                    // Whoever waits for a flush learns of a death at once (3.4).
                    waiters = std::mem::take(&mut state.waiters);
                }
                if state.owner.is_none() {
                    for pid in std::mem::take(&mut state.dead) {
                        state.bury(&pid, H::reply(&Failure::CommitterDown));
                    }
                }
                abandoned.extend(std::iter::from_fn(|| state.engine.poll_abandoned()));
                (state.settle(now), state.abandon_with.clone())
            })
        });
        // Nobody but this turn knows of them, should it have failed.
        let failure = match &settled {
            Ok((_, failure)) => failure.clone(),
            Err(panic) => Failure::Crashed(panic_text(&**panic)),
        };
        self.fail(abandoned.into_iter(), &failure);
        waiters.into_values().for_each(|waiter| H::tell(waiter, None, Some(&failure)));
        let (outbox, _) = settled.unwrap_or_else(|panic| resume_unwind(panic));
        self.dispatch(None, outbox);
        self.fail_orphans();
        waiting.iter().for_each(|contents| self.expire(contents, now));
    }

    /// Tells the callers of a slot that have waited too long (3.7).
    fn expire(&self, contents: &Contents<H>, now: Instant) {
        let mut place = Some(0);
        while let Some(from) = place {
            let mut held = contents.lock();
            let expired = held.answers.as_mut().expire(now, from, CALLERS_AT_ONCE);
            for caller in expired.late {
                H::tell_late(&mut held.answers, caller);
            }
            drop(held);
            self.locked(|state| state.expire_at(expired.earliest));
            place = expired.next;
        }
    }

    /// Tells all callers that are left of these batches of the failure.
    fn fail(&self, batches: impl Iterator<Item = Contents<H>>, failure: &Failure) {
        if let Some(mail) = H::fail(batches, failure) {
            self.deliver(None, mail);
        }
    }

    /// Has a committer that rests send replies, or the next one that does.
    pub fn deliver(&self, sender: Option<H::Env<'_>>, mail: H::Mail) {
        self.locked(|state| match state.idle.last() {
            Some(committer) => H::deliver(committer, sender, mail),
            None => state.undelivered.push(mail),
        });
    }

    /// An owner has died. Only the present one matters.
    fn owner_down(&self, number: u64) {
        self.locked(|state| {
            if state.owner.as_ref().is_some_and(|owner| owner.number == number) {
                state.owner = None;
                state.engine.handle_owner_down(sync::now());
            }
        });
    }

    /// A committer has died. Its owner hears of it too, and knows why: so it is the owner's to
    /// answer the batch, as long as there is one. The next turn sees to those without.
    fn committer_down(&self, pid: H::Pid) {
        self.locked(|state| {
            if state.committers.iter().any(|committer| H::seat(committer).pid == pid) {
                state.dead.push(pid);
            }
        });
    }

    /// Answers the batches of the dead when nobody will start a committer for that.
    fn fail_orphans(&self) {
        let next =
            |state: &mut State<H>| state.is_closed().then(|| state.orphans.pop_front()).flatten();
        while let Some(orphan) = self.locked(next) {
            self.fail_orphan(&orphan.committer);
        }
    }

    /// Answers the batch of a dead committer, since no process can.
    fn fail_orphan(&self, dead: &H::Committer) {
        let Some(serving) = H::seat(dead).serving.lock().take() else { return };
        self.fail(std::iter::once(serving.contents), &Failure::CommitterDown);
        let done = |state: &mut State<H>, now| state.engine.handle_commit_done(now, serving.lane);
        drop(self.with(None, done));
    }

    /// The library has failed: everybody who waits is told, the owner is to end with it (10.5).
    fn crash(&self, text: Arc<str>) {
        let failure = Failure::Crashed(Arc::clone(&text));
        let (owner, waiters, in_flight) = self.locked(|state| {
            let owner = state.owner.as_ref().map(|owner| owner.pid.clone());
            let closed = catch_unwind(AssertUnwindSafe(|| self.shut(state, failure.clone())));
            if closed.is_err() {
                state.engine = Default::default();
            }
            let in_flight: Vec<_> =
                state.seated().filter_map(|committer| H::seat(committer).contents()).collect();
            (owner, std::mem::take(&mut state.waiters), in_flight)
        });
        self.fail(in_flight.into_iter(), &failure);
        waiters.into_values().for_each(|waiter| H::tell(waiter, None, Some(&failure)));
        if let Some(owner) = owner {
            H::tell_of_crash(owner, &text);
        }
    }

    /// Until when there is nothing to do. `None`: forever, and the thread ends.
    fn sleep(&self) -> Option<Instant> {
        let mut dismissed = Vec::new();
        let deadline = self.locked(|state| {
            if state.is_closed() && self.events.1.is_empty() {
                dismissed = state.dismiss_idle();
                if state.engine.in_flight() == 0 {
                    state.thread_lives = false;
                    return None;
                }
            }
            let deadline = state.next_deadline().unwrap_or(sync::now() + FOREVER);
            state.asleep_until = Some(deadline);
            Some(deadline)
        });
        for committer in dismissed {
            H::dismiss(&committer);
        }
        deadline
    }
}
