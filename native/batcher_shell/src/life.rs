//! A shard is opened, configured anew and closed.
//!
//! Invariant: what callers look at before they offer is set under the lock, together with the engine's configuration.

use crate::effects::Event;
use crate::shard::Shard;
use crate::state::State;
use crate::vm::{Failure, Vm};
use batcher_core::{CommitScope, Config, Phase};
use std::sync::atomic::Ordering;

impl<V: Vm> Shard<V> {
    /// A process takes the shard over as its owner; answers the committers that the shard has already.
    ///
    /// `start` has its timer [keep its time](crate::Timer::start), `owner` has the owner's death told with this
    /// number. An error is one of `start`, and nothing has changed.
    pub fn open(
        &'static self,
        sender: V::Env<'_>,
        config: Config,
        start: impl FnOnce() -> std::io::Result<()>,
        owner: impl FnOnce(u64) -> V::Owner,
    ) -> std::io::Result<Vec<V::Committer>> {
        self.with(Some(sender), |state, now| {
            // Under the same lock as the rest: a timer that found the shard closed would forget it.
            start()?;
            state.looks_at = None;
            state.dismisses = false;
            state.owner_number += 1;
            self.owner_number.store(state.owner_number, Ordering::Relaxed);
            state.owner = Some(owner(state.owner_number));
            state.counts.adoptions += u64::from(state.engine.phase() != Phase::Closed);
            self.set(&config);
            state.workers.handle_new_owner();
            // Responders of another owner end with it.
            self.responders.clear();
            state.engine.open(now, config);
            Ok(state.workers.living().cloned().collect())
        })
    }

    fn set(&self, config: &Config) {
        self.measures.store(config.budgets.is_some(), Ordering::Relaxed);
        let together = config.commit_scope == CommitScope::Shard;
        self.commits_together.store(together, Ordering::Relaxed);
    }

    /// The shard goes on with another configuration.
    pub fn configure(&'static self, sender: V::Env<'_>, config: Config) {
        self.with(Some(sender), |state, now| {
            if state.is_closed() {
                return;
            }
            self.set(&config);
            state.engine.configure(now, config);
        });
    }

    /// Whether an owner runs it, or what is queued waits for one.
    pub fn is_open(&self) -> bool {
        self.locked(|state| !state.is_closed())
    }

    /// The owner ends: what is queued is abandoned, by the timer.
    pub fn close(&'static self, sender: V::Env<'_>) {
        self.with(Some(sender), |state, _now| {
            self.shut(state, Failure::ShuttingDown);
            // Under the lock: a timer that finds the shard closed finds the event, too.
            self.notify(Event::Wake);
        });
    }

    /// No batcher runs any more.
    pub(crate) fn shut(&self, state: &mut State<V>, failure: Failure) {
        state.abandon_with = failure;
        state.owner = None;
        self.measures.store(false, Ordering::Relaxed);
        self.commits_together.store(false, Ordering::Relaxed);
        state.engine.close();
    }
}
