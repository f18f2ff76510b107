//! The shard's thread: sleeps until the earliest deadline, and does what is too long for a
//! scheduler.
//!
//! Invariant: it ends only when the shard is closed and no event is left; a shard that is open has
//! exactly one.

use crate::arena::{Arena, list_of};
use crate::atoms;
use crate::committer::{self, Departure};
use crate::contents::Contents;
use crate::shard::Shard;
use crossbeam_channel::RecvTimeoutError;
use rustler::Atom;
use std::time::{Duration, Instant};

/// What others tell the thread.
pub(crate) enum Event {
    /// Look again: a deadline comes earlier than the one you sleep for.
    Wake,
    /// This owner has died.
    OwnerDown(u64),
    /// A batch too long to be put together on a scheduler.
    Depart(Departure),
}

/// Without a deadline; an event wakes it all the same.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Starts the thread of a shard.
pub(crate) fn spawn(shard: &'static Shard) -> std::io::Result<()> {
    let name = format!("batcher_{}", shard.index);
    std::thread::Builder::new().name(name).spawn(move || run(shard)).map(drop)
}

fn run(shard: &'static Shard) {
    loop {
        shard.turn();
        let Some(deadline) = shard.sleep() else { return };
        match shard.events.1.recv_deadline(deadline) {
            Ok(Event::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::OwnerDown(number)) => shard.owner_down(number),
            Ok(Event::Depart(departure)) => departure.send(None),
            // The shard holds the sending side too.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Shard {
    /// Does what is due.
    fn turn(&self) {
        let mut abandoned = Vec::new();
        let (error, outbox) = self.locked(|state| {
            state.engine.handle_timeout(Instant::now());
            abandoned.extend(std::iter::from_fn(|| state.engine.poll_abandoned()));
            (state.abandon_with, state.settle(&self.events.0))
        });
        // A flush that ends because nobody will commit has failed, unless that was asked for.
        let failed = !abandoned.is_empty() && error != atoms::shutting_down();
        if !abandoned.is_empty() {
            self.abandon(abandoned, error);
        }
        outbox.send(None, &self.events.0, failed.then_some(error));
    }

    /// Tells the callers of these slots that their writes were not committed.
    fn abandon(&self, abandoned: Vec<Contents>, error: Atom) {
        let mut left = Arena::default();
        let mut couriered = Vec::new();
        for contents in abandoned {
            contents.answers().abandon(error, &mut left, &mut couriered);
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

    /// Until when there is nothing to do. `None`: forever, and the thread ends.
    fn sleep(&self) -> Option<Instant> {
        let mut dismissed = Vec::new();
        let deadline = self.locked(|state| {
            if state.is_closed() && self.events.1.is_empty() {
                state.thread_lives = false;
                dismissed = state.dismiss_idle();
                return None;
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
