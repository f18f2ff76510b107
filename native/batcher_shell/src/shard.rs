//! A shard of the library: its state behind a lock, and the channel to its thread.
//!
//! Invariant: the engine is touched only under the lock, and whatever it decides is collected
//! there in an [`Outbox`] and sent after the lock is free. Only mail for a committer that rests is
//! sent under it.

use crate::failure::Failure;
use crate::host::Host;
use crate::outbox::Outbox;
use crate::relay::Heralds;
use crate::state::{Owner, State};
use crate::sync::{self, Lock, Mutex, Receiver, Sender};
use crate::thread::{Event, panic_text};
use batcher_core::Config;
use crossbeam_utils::CachePadded;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

/// No window of its own: no `:hot_batch_window_ms` is as small as this.
const NO_WINDOW: i64 = i64::MIN;

/// A shard. Two of them share no cache line.
///
/// # Driving
///
/// Processes call [`open`](Self::open), [`offer`](Self::offer) and the others whenever they like.
/// One thread per open shard, which `open` asks for, calls [`run`](Self::run).
pub struct Shard<H: Host> {
    state: CachePadded<Lock<State<H>>>,
    /// Its number.
    pub index: u64,
    /// `:hot_batch_window_ms` of this shard's options (1.3), or [`NO_WINDOW`]. A setting: whoever
    /// reads it while the owner changes gets the old or the new one. So it is none of loom's.
    hot_window_ms: AtomicI64,
    /// Whether groups are to be measured for budgets (16.3). A setting as well.
    measures: AtomicBool,
    /// Never locked while the state's lock is wanted.
    pub(crate) heralds: Mutex<Heralds<H::Herald>>,
    /// Both ends, so that an event can be sent while no thread runs.
    pub(crate) events: (Sender<Event<H>>, Receiver<Event<H>>),
}

impl<H: Host> Shard<H> {
    /// A shard that is closed.
    pub fn new(index: u64) -> Self {
        Shard {
            state: CachePadded::default(),
            index,
            hot_window_ms: AtomicI64::new(NO_WINDOW),
            measures: AtomicBool::new(false),
            heralds: Mutex::default(),
            events: sync::unbounded(),
        }
    }

    /// The window of the put and delete lanes, if this shard has one of its own.
    pub fn hot_window_ms(&self) -> Option<i64> {
        let window = self.hot_window_ms.load(Ordering::Relaxed);
        (window != NO_WINDOW).then_some(window)
    }

    /// Whether groups are to be measured before they are offered.
    pub fn measures(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    /// Tells the thread.
    pub fn notify(&self, event: Event<H>) {
        // This shard holds the receiving end.
        let _ = self.events.0.send(event);
    }

    /// Looks at the state.
    pub fn look<R>(&self, look: impl FnOnce(&State<H>) -> R) -> R {
        self.locked(|state| look(state))
    }

    /// Changes the state, then sends what follows from it. `sender` is the calling process,
    /// `None` on the shard's own thread.
    pub(crate) fn with<R>(
        &self,
        sender: Option<H::Env<'_>>,
        change: impl FnOnce(&mut State<H>, Instant) -> R,
    ) -> R {
        let (result, outbox) = self.change(sender, change);
        self.dispatch(sender, outbox);
        result
    }

    /// Changes the state. What follows from it is to be [dispatched](Self::dispatch).
    pub(crate) fn change<R>(
        &self,
        sender: Option<H::Env<'_>>,
        change: impl FnOnce(&mut State<H>, Instant) -> R,
    ) -> (R, Option<Outbox<H>>) {
        let now = sync::now();
        let changed = self.guard(sender, || {
            let mut state = sync::lock(&self.state);
            #[cfg(feature = "lock-times")]
            let taken = sync::now();
            let result = change(&mut state, now);
            let outbox = state.settle(now);
            #[cfg(feature = "lock-times")]
            state.lock_times.held_since(taken);
            (result, outbox)
        });
        changed.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Works, and has the thread answer who waits (10.5) if that fails in a calling process: its own panics end up
    /// there as well.
    pub(crate) fn guard<R>(
        &self,
        sender: Option<H::Env<'_>>,
        work: impl FnOnce() -> R,
    ) -> std::thread::Result<R> {
        catch_unwind(AssertUnwindSafe(work)).inspect_err(|panic| {
            if sender.is_some() {
                self.notify(Event::Crash(panic_text(&**panic)));
            }
        })
    }

    /// Sends what follows from a change.
    pub(crate) fn dispatch(&self, sender: Option<H::Env<'_>>, outbox: Option<Outbox<H>>) {
        let Some(outbox) = outbox else { return };
        let sent = self.guard(sender, || match sender {
            Some(sender) if H::may_be_exiting(sender) || outbox.is_long() => {
                self.notify(Event::Send(outbox));
            }
            _ => outbox.send(sender, &self.events.0),
        });
        sent.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// How long offers have held the lock since this was asked last: `(nanoseconds, how many of them)`, ascending.
    /// In each is one look at the clock: see [`clock_ns`](crate::clock_ns).
    #[cfg(feature = "lock-times")]
    pub fn take_lock_times(&self) -> Vec<(u64, u64)> {
        self.locked(|state| state.lock_times.take())
    }

    /// Works on the state when nothing follows from it.
    pub(crate) fn locked<R>(&self, work: impl FnOnce(&mut State<H>) -> R) -> R {
        work(&mut sync::lock(&self.state))
    }

    /// A process takes the shard over as its owner; answers who commits for it already.
    ///
    /// `spawn` starts the thread, `watch` has the owner's death told as that of this number. An
    /// error is that of `spawn`, and nothing has changed.
    pub fn open(
        &self,
        sender: H::Env<'_>,
        pid: H::Pid,
        config: Config,
        hot_window_ms: Option<i64>,
        spawn: impl FnOnce() -> std::io::Result<()>,
        watch: impl FnOnce(u64, Sender<Event<H>>) -> H::Watch,
    ) -> std::io::Result<Vec<H::Pid>> {
        self.with(Some(sender), |state, now| {
            // Under the same lock as the rest: a thread that found the shard closed would end.
            if !state.thread_lives {
                spawn()?;
                state.thread_lives = true;
                state.asleep_until = None;
            }
            state.owners += 1;
            let number = state.owners;
            let watch = watch(number, self.events.0.clone());
            state.owner = Some(Owner { pid, number, _watch: watch });
            self.hot_window_ms.store(hot_window_ms.unwrap_or(NO_WINDOW), Ordering::Relaxed);
            self.measures.store(config.budgets.is_some(), Ordering::Relaxed);
            state.asked_for = 0;
            // Those of another owner end with it.
            *self.heralds.lock() = Heralds::default();
            state.engine.open(now, config);
            Ok(state.committers.iter().map(|committer| H::seat(committer).pid.clone()).collect())
        })
    }

    /// The owner ends: what is queued is abandoned, by the shard's thread.
    pub fn close(&self, sender: H::Env<'_>) {
        self.with(Some(sender), |state, _now| {
            self.shut(state, Failure::ShuttingDown);
            // Under the lock: a thread that finds the shard closed finds the event, too, and does
            // not end before it has answered what is abandoned.
            self.notify(Event::Wake);
        });
    }

    /// No batcher runs any more.
    pub(crate) fn shut(&self, state: &mut State<H>, failure: Failure) {
        state.abandon_with = failure;
        state.owner = None;
        self.hot_window_ms.store(NO_WINDOW, Ordering::Relaxed);
        self.measures.store(false, Ordering::Relaxed);
        state.engine.close();
    }
}
