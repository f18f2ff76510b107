//! What processes ask of a shard: callers, those who wait for a barrier, committers.
//!
//! Invariant: each call takes the lock of the shard once for what must happen together, and copies
//! nothing under it.

use crate::committer::Serving;
use crate::contents::{Contents, Held};
use crate::host::Host;
use crate::shard::Shard;
use crate::sync;
use crate::thread::Event;
use batcher_core::{BarrierId, Engine, Group, LaneRef, Refused};
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

impl<H: Host> Shard<H> {
    /// A call's writes arrive; `put` puts them into their slot, and the caller among those who
    /// wait, until the given time if `wait` sets one. The lock is free by then.
    pub fn offer(
        &self,
        sender: H::Env<'_>,
        lane: LaneRef<'_>,
        group: Group,
        window: Duration,
        wait: Option<Duration>,
        put: impl FnOnce(&mut Held<H>, Option<Instant>),
    ) -> Result<(), Refused> {
        let (accepted, outbox) = self.change(Some(sender), |state, now| {
            #[cfg(feature = "lock-times")]
            state.lock_times.offers();
            let place = state.engine.offer(now, lane, group, window)?.contents.add();
            let until = wait.map(|wait| now + wait);
            state.expire_at(until);
            Ok((place, until))
        });
        let queued = accepted
            .map(|(place, until)| place.fill(|held| self.guard(Some(sender), || put(held, until))));
        // Whatever has become of this group: what follows may be for others, too.
        self.dispatch(Some(sender), outbox);
        queued.map(|filled| filled.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Asks for everything to be committed, windows aside. `None` if no batcher runs.
    pub fn flush(&self, sender: H::Env<'_>, waiter: H::Waiter) -> Option<BarrierId> {
        self.barrier(sender, waiter, Engine::handle_flush)
    }

    /// As [`flush`](Self::flush), and new writes are refused from now on.
    pub fn stop(&self, sender: H::Env<'_>, waiter: H::Waiter) -> Option<BarrierId> {
        self.barrier(sender, waiter, Engine::handle_stop)
    }

    fn barrier(
        &self,
        sender: H::Env<'_>,
        waiter: H::Waiter,
        raise: fn(&mut Engine<Contents<H>>, Instant) -> BarrierId,
    ) -> Option<BarrierId> {
        self.with(Some(sender), |state, now| {
            if state.is_closed() {
                return None;
            }
            let barrier = raise(&mut state.engine, now);
            state.waiters.insert(barrier, waiter);
            Some(barrier)
        })
    }

    /// Who waits for a barrier gives up. False if it has been told.
    pub fn cancel_barrier(&self, barrier: BarrierId) -> bool {
        self.locked(|state| state.waiters.remove(&barrier).is_some())
    }

    /// A committing process has started and rests.
    pub fn join(&self, sender: H::Env<'_>, committer: H::Committer) {
        self.with(Some(sender), |state, _now| state.join(sender, committer));
    }

    /// Whether the batch of this committer, which it has answered, was that of one caller alone: it left because the
    /// commit before it had ended, and nothing is queued behind it. Such a caller writes again and again; its next
    /// write leaves at once, since its lane lingers.
    pub fn serves_one_alone(&self, committer: &H::Committer) -> bool {
        let serving = H::seat(committer).serving.lock();
        let paced_one = serving.as_ref().is_some_and(|serving| serving.paced_one);
        drop(serving);
        paced_one && self.gathered(committer) == Some(0)
    }

    /// How many calls wait to leave together when the batch of this committer is done; `None` if
    /// there can be no more.
    pub fn gathered(&self, committer: &H::Committer) -> Option<u64> {
        let lane = H::seat(committer).serving.lock().as_ref()?.lane;
        self.locked(|state| state.engine.lane(lane)?.gathered())
    }

    /// The committer is about to answer these writers of its batch, and perhaps others later.
    pub fn answering(&self, committer: &H::Committer, writers: impl Iterator<Item = u64>) {
        let lane = H::seat(committer).serving.lock().as_ref().map(|serving| serving.lane);
        if let Some(lane) = lane {
            self.locked(|state| state.engine.handle_answering(lane, writers));
        }
    }

    /// The committer has answered its batch and rests; the next one is sent to it.
    pub fn next(&self, sender: H::Env<'_>, committer: &H::Committer) {
        let serving = H::seat(committer).serving.lock().take();
        if let Some(serving) = &serving {
            // Outside the lock of the shard.
            H::clear(&mut serving.contents.lock().answers);
        }
        let (rest, closed) = self.with(Some(sender), |state, now| {
            let mut rest = None;
            if let Some(Serving { lane, contents, .. }) = serving {
                drop(contents);
                let batch = state.engine.handle_commit_done(now, lane);
                rest = batch.and_then(|mut contents| {
                    if contents.reset() { state.engine.recycle(contents) } else { Some(contents) }
                });
            }
            state.rest(sender, committer.clone());
            (rest, state.is_closed())
        });
        // Frees its memory outside the lock.
        drop(rest);
        if closed {
            // The thread dismisses those who rest, and ends with the last commit.
            self.notify(Event::Wake);
        }
    }

    /// A committer that rests wants to exit: true if it may, because more than `keep` rest.
    pub fn retire(&self, committer: &H::Committer, keep: usize) -> bool {
        let pid = &H::seat(committer).pid;
        self.locked(|state| {
            let rests = state.idle.iter().any(|idle| H::seat(idle).pid == *pid);
            let leaves = rests && state.idle.len() > keep;
            if leaves {
                state.leave(pid);
            }
            leaves
        })
    }

    /// A herald has started on this scheduler. False: there is one already.
    pub fn attend(&self, home: usize, herald: H::Herald) -> bool {
        self.heralds.lock().attend(home, herald)
    }

    /// A herald has died.
    pub fn herald_down(&self, is: impl Fn(&H::Herald) -> bool) {
        self.heralds.lock().leave(is);
    }

    /// Who answers the callers of this scheduler. Asks for heralds if there is nobody.
    pub fn herald(&self, sender: H::Env<'_>, home: usize) -> Option<H::Herald> {
        let herald = self.heralds.lock().find(home);
        if herald.is_none() && self.heralds.lock().ask(sync::now()) {
            let owner = self.locked(|state| state.owner.as_ref().map(|owner| owner.pid.clone()));
            if let Some(owner) = owner {
                H::ask_for_heralds(owner, sender);
            }
        }
        herald
    }

    /// The owner says that a committer has died, and what the callers of its batch are told.
    pub fn bury_committer(&self, sender: H::Env<'_>, pid: &H::Pid, reply: H::Reply) {
        self.with(Some(sender), |state, _now| state.bury(pid, reply));
    }
}
