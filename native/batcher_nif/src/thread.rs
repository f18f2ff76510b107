//! The shard's thread: sleeps until the earliest deadline, and does what is too long for a
//! scheduler or has no process left to do it.
//!
//! Invariant: it ends only when the shard is closed, nothing is in flight and no event is left; a
//! shard that is open has exactly one.

use crate::answers::Answers;
use crate::arena::{Arena, list_of};
use crate::atoms;
use crate::committer::{self, Departure};
use crate::failure::Failure;
use crate::shard::Shard;
use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;
use rustler::{Encoder, LocalPid};
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What others tell the thread.
pub(crate) enum Event {
    /// Look again: a deadline comes earlier than the one you sleep for, or the shard was closed.
    Wake,
    /// This owner has died.
    OwnerDown(u64),
    /// This committer has died.
    CommitterDown(LocalPid),
    /// A batch too long to be put together on a scheduler.
    Depart(Departure),
    /// The library failed in a calling process.
    Crash(Arc<str>),
    /// Fail here and now.
    #[cfg(feature = "seams")]
    Panic,
}

/// Without a deadline; an event wakes it all the same.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Starts the thread of a shard.
pub(crate) fn spawn(shard: &'static Shard) -> std::io::Result<()> {
    let name = format!("batcher_{}", shard.index);
    let run = move || {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(shard))) {
            let text = panic_text(&*panic);
            // Should even this fail, the next turn finds the shard as it is left.
            let _ = catch_unwind(AssertUnwindSafe(|| shard.crash(text)));
        }
    };
    std::thread::Builder::new().name(name).spawn(run).map(drop)
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> Arc<str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => Arc::from(*text),
        (None, Some(text)) => Arc::from(text.as_str()),
        (None, None) => Arc::from("panic without a text"),
    }
}

fn serve(shard: &'static Shard) {
    loop {
        shard.turn();
        let Some(deadline) = shard.sleep() else { return };
        match shard.events.1.recv_deadline(deadline) {
            Ok(Event::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::OwnerDown(number)) => shard.owner_down(number),
            Ok(Event::CommitterDown(pid)) => shard.committer_down(pid),
            Ok(Event::Depart(departure)) => departure.send(None),
            Ok(Event::Crash(text)) => shard.crash(text),
            #[cfg(feature = "seams")]
            Ok(Event::Panic) => panic!("provoked"),
            // The shard holds the sending side too.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Shard {
    /// Does what is due.
    fn turn(&self) {
        let mut abandoned = Vec::new();
        let mut waiters = HashMap::new();
        let (failure, outbox) = self.locked(|state| {
            let was_open = !state.is_closed();
            state.engine.handle_timeout(Instant::now());
            if was_open && state.is_closed() {
                state.abandon_with = Failure::OwnerDown;
                // Whoever waits for a flush learns of a death at once (3.4).
                waiters = std::mem::take(&mut state.waiters);
            }
            abandoned.extend(std::iter::from_fn(|| state.engine.poll_abandoned()));
            (state.abandon_with.clone(), state.settle(&self.events.0))
        });
        self.fail(abandoned.iter().map(|contents| contents.shared_answers()), &failure);
        waiters.into_values().for_each(|waiter| waiter.tell(None, Some(&failure)));
        outbox.send(None, &self.events.0);
    }

    /// Tells all callers that are left of these batches of the failure.
    fn fail(&self, batches: impl Iterator<Item = Arc<Mutex<Answers>>>, failure: &Failure) {
        let mut left = Arena::default();
        let mut couriered = Vec::new();
        for answers in batches {
            answers.lock().fail(failure, &mut left, &mut couriered);
        }
        if couriered.is_empty() {
            return;
        }
        let list = left
            .build(|inside| list_of(inside.env(), couriered.iter().map(|&pair| inside.term(pair))));
        let courier = self.locked(|state| state.idle.last().cloned());
        match courier {
            Some(courier) => committer::deliver(&courier, None, left, list),
            None => self.locked(|state| state.undelivered.push((left, list))),
        }
    }

    /// An owner has died. Only the present one matters.
    fn owner_down(&self, number: u64) {
        let dead = self.locked(|state| {
            if state.owner.as_ref().is_none_or(|owner| owner.number != number) {
                return Vec::new();
            }
            state.owner = None;
            state.engine.handle_owner_down(Instant::now());
            std::mem::take(&mut state.dead)
        });
        dead.into_iter().for_each(|pid| self.bury(pid));
    }

    /// A committer has died. Its owner hears of it too, and knows why: so it is the owner's to
    /// answer the batch, as long as there is one.
    fn committer_down(&self, pid: LocalPid) {
        let bury = self.locked(|state| {
            let known = state.committers.iter().any(|committer| committer.pid == pid);
            if known && state.owner.is_some() {
                state.dead.push(pid);
            }
            known && state.owner.is_none()
        });
        if bury {
            self.bury(pid);
        }
    }

    fn bury(&self, pid: LocalPid) {
        let committer = self.locked(|state| state.leave(pid));
        if let Some(serving) = committer.and_then(|committer| committer.serving.lock().take()) {
            self.fail(std::iter::once(serving.answers), &Failure::CommitterDown);
            let now = Instant::now();
            drop(self.with(None, |state| state.engine.handle_commit_done(now, serving.lane)));
        }
    }

    /// The library has failed: everybody who waits is told, the owner is to end with it (10.5).
    fn crash(&self, text: Arc<str>) {
        let failure = Failure::Crashed(Arc::clone(&text));
        let (owner, waiters, in_flight) = self.locked(|state| {
            let owner = state.owner.as_ref().map(|owner| owner.pid);
            let closed = catch_unwind(AssertUnwindSafe(|| self.shut(state, failure.clone())));
            if closed.is_err() {
                state.engine = Default::default();
            }
            let in_flight = state.committers.iter().filter_map(|committer| committer.answers());
            let in_flight: Vec<_> = in_flight.collect();
            (owner, std::mem::take(&mut state.waiters), in_flight)
        });
        self.fail(in_flight.into_iter(), &failure);
        waiters.into_values().for_each(|waiter| waiter.tell(None, Some(&failure)));
        if let Some(owner) = owner {
            Arena::default().send(None, owner, |inside| {
                (atoms::batcher_crashed(), &*text).encode(inside.env())
            });
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
            let deadline = state.engine.next_deadline().unwrap_or(Instant::now() + FOREVER);
            state.asleep_until = Some(deadline);
            Some(deadline)
        });
        for committer in dismissed {
            committer::dismiss(&committer);
        }
        deadline
    }
}
