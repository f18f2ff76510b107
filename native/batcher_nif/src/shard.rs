//! A shard of the library: its state behind a lock, and the channel to its thread.
//!
//! Invariant: the engine is touched only under the lock, and whatever it decides is collected
//! there in an [`Outbox`](crate::outbox::Outbox) and sent after the lock is free.

use crate::failure::Failure;
use crate::state::{Owner, OwnerWatch, State};
use crate::thread::{self, Event};
use batcher_core::Config;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use rustler::{Env, LocalPid, ResourceArc};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// No window of its own: no `:hot_batch_window_ms` is as small as this.
const NO_WINDOW: i64 = i64::MIN;

/// Aligned so that two shards share no cache line.
#[repr(align(128))]
pub(crate) struct Shard {
    pub(crate) index: u64,
    /// `:hot_batch_window_ms` of this shard's options (1.3), or [`NO_WINDOW`].
    hot_window_ms: AtomicI64,
    state: Mutex<State>,
    /// Both ends, so that an event can be sent while no thread runs.
    pub(crate) events: (Sender<Event>, Receiver<Event>),
}

impl Shard {
    pub(crate) fn new(index: u64) -> Self {
        Shard {
            index,
            hot_window_ms: AtomicI64::new(NO_WINDOW),
            state: Mutex::default(),
            events: crossbeam_channel::unbounded(),
        }
    }

    /// The window of the put and delete lanes, if this shard has one of its own.
    pub(crate) fn hot_window_ms(&self) -> Option<i64> {
        let window = self.hot_window_ms.load(Ordering::Relaxed);
        (window != NO_WINDOW).then_some(window)
    }

    /// Tells the thread.
    pub(crate) fn notify(&self, event: Event) {
        // This shard holds the receiving end, and shards live as long as the VM.
        let _ = self.events.0.send(event);
    }

    /// Changes the state, then sends what follows from it. `sender` is the environment of the
    /// calling process, `None` on the shard's own thread.
    pub(crate) fn with<R>(
        &self,
        sender: Option<Env<'_>>,
        change: impl FnOnce(&mut State) -> R,
    ) -> R {
        let changed = catch_unwind(AssertUnwindSafe(|| {
            let mut state = self.state.lock();
            let result = change(&mut state);
            (result, state.settle(&self.events.0))
        }));
        match changed {
            Ok((result, outbox)) => {
                outbox.send(sender, &self.events.0);
                result
            }
            Err(panic) => {
                // The thread answers who waits (10.5); its own panics end up there as well.
                if sender.is_some() {
                    self.notify(Event::Crash(thread::panic_text(&*panic)));
                }
                resume_unwind(panic)
            }
        }
    }

    /// Works on the state when nothing follows from it.
    pub(crate) fn locked<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock())
    }

    /// A process takes the shard over as its owner; answers who commits for it already.
    pub(crate) fn open(
        &'static self,
        env: Env<'_>,
        config: Config,
        hot_window_ms: Option<i64>,
    ) -> Result<Vec<LocalPid>, std::io::Error> {
        let pid = env.pid();
        self.with(Some(env), |state| {
            // Under the same lock as the rest: a thread that found the shard closed would end.
            if !state.thread_lives {
                thread::spawn(self)?;
                state.thread_lives = true;
                state.asleep_until = None;
            }
            state.owners += 1;
            let number = state.owners;
            let watch = ResourceArc::new(OwnerWatch { number, events: self.events.0.clone() });
            watch.monitor(Some(env), &pid);
            state.owner = Some(Owner { pid, number, _watch: watch });
            self.hot_window_ms.store(hot_window_ms.unwrap_or(NO_WINDOW), Ordering::Relaxed);
            state.asked_for = 0;
            state.engine.open(Instant::now(), config);
            Ok(state.committers.iter().map(|committer| committer.pid).collect())
        })
    }

    /// The owner ends: what is queued is abandoned, by the shard's thread.
    pub(crate) fn close(&self, env: Env<'_>) {
        self.with(Some(env), |state| self.shut(state, Failure::ShuttingDown));
        self.notify(Event::Wake);
    }

    /// No batcher runs any more.
    pub(crate) fn shut(&self, state: &mut State, failure: Failure) {
        state.abandon_with = failure;
        state.owner = None;
        self.hot_window_ms.store(NO_WINDOW, Ordering::Relaxed);
        state.engine.close();
    }
}
