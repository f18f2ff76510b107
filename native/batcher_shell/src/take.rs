//! What committers ask of a shard: work, one piece after the other.
//!
//! Invariant: a batch goes from the engine to the worker that asks under one lock, so that it has never left, or is
//! known to be that worker's.

use crate::effects::Event;
use crate::shard::Shard;
use crate::state::State;
use crate::sync;
use crate::vm::Vm;
use crate::workers::{Work, WorkerId};
use batcher_core::{LaneId, LaneKey, Reason};
use std::time::Instant;

/// What a committer has to do.
pub enum Taken<V: Vm> {
    /// To commit this batch, and to answer its callers.
    Commit(Work<V>, Info),
    /// To answer the batch of a committer that has died, with what its owner says, if it says anything.
    Answer(Work<V>, Option<V::Reply>),
    /// To send these replies, and to ask again.
    Send(V::Proxied),
    /// Nothing, until it is woken.
    Rest,
    /// To end.
    Leave,
}

/// What the commit function and telemetry want to know of a batch (7, 13).
#[derive(Clone, Debug)]
pub struct Info {
    /// Its lane.
    pub lane: LaneKey,
    /// What it counts against the maximum of its lane (6.1).
    pub weight: u64,
    /// How many calls it holds.
    pub groups: u64,
    /// The window of the write that opened it.
    pub window_ms: u64,
    /// How long its first write has been queued, in microseconds.
    pub waited_us: u64,
    /// Why it left.
    pub reason: Reason,
}

impl<V: Vm> State<V> {
    /// What a worker that is awake does next.
    fn take(&mut self, now: Instant, id: WorkerId) -> Taken<V> {
        if let Some(proxied) = self.proxied.pop() {
            return Taken::Send(proxied);
        }
        if let Some((work, reply)) = self.workers.poll_dead() {
            self.workers.begin(id, work.clone());
            return Taken::Answer(work, reply);
        }
        if self.dismisses {
            self.workers.leave(id);
            return Taken::Leave;
        }
        let Some(commit) = self.engine.poll_commit(now) else {
            self.workers.rest(id);
            return Taken::Rest;
        };
        let slot = commit.slot;
        let work = Work { lane: commit.lane, batch: slot.contents.clone() };
        let info = Info {
            lane: commit.key.clone(),
            weight: slot.weight,
            groups: slot.groups,
            window_ms: sync::millis(slot.window),
            waited_us: sync::micros(now.saturating_duration_since(slot.opened)),
            reason: commit.reason,
        };
        self.workers.begin(id, work.clone());
        Taken::Commit(work, info)
    }
}

impl<V: Vm> Shard<V> {
    /// A committing process has started and rests.
    pub fn join(
        &'static self,
        sender: V::Env<'_>,
        id: WorkerId,
        pid: V::Pid,
        committer: V::Committer,
    ) {
        self.with(Some(sender), |state, _now| state.workers.join(id, pid, committer));
    }

    /// The committer has answered the callers of the batch that it had, `done`, if it had one, and gets what is next.
    pub fn take(
        &'static self,
        sender: V::Env<'_>,
        id: WorkerId,
        done: Option<Work<V>>,
    ) -> Taken<V> {
        if let Some(work) = &done {
            // Outside the lock of the shard.
            V::clear(&mut work.batch.lock().answers);
        }
        drop(done);
        let mut rest = None;
        let (taken, closed) = self.with(Some(sender), |state, now| {
            let Some(had) = state.workers.ask(id) else { return (Taken::Leave, false) };
            if let Some(Work { lane, batch }) = had {
                drop(batch);
                let batch = state.engine.handle_commit_done(now, lane);
                rest = batch.and_then(|mut batch| {
                    if batch.reset() { state.engine.recycle(batch) } else { Some(batch) }
                });
            }
            (state.take(now, id), state.is_closed())
        });
        // Frees its memory outside the lock.
        drop(rest);
        if closed {
            // The timer forgets the shard with the last commit.
            self.notify(Event::Wake);
        }
        taken
    }

    /// How many calls wait to leave together when the commit of this lane is done; `None` if there can be no more.
    pub fn gathered(&self, lane: LaneId) -> Option<u64> {
        self.locked(|state| state.engine.lane(lane)?.gathered())
    }

    /// These writers of the batch in flight of this lane are about to be answered, and perhaps others later.
    pub fn answering(&self, lane: LaneId, writers: impl Iterator<Item = u64>) {
        let now = sync::now();
        self.locked(|state| state.engine.handle_answering(now, lane, writers));
    }

    /// A committer that rests wants to exit: true if it may, because more than `keep` rest.
    pub fn retire(&self, id: WorkerId, keep: usize) -> bool {
        self.locked(|state| state.workers.retire(id, keep))
    }

    /// The owner says that a committer has died, and what the callers of its batch are told.
    pub fn explain_death(&'static self, sender: V::Env<'_>, pid: &V::Pid, reply: V::Reply) {
        self.with(Some(sender), |state, _now| state.workers.explain(pid, reply));
    }
}
