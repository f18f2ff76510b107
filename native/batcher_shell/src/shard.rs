//! A shard of the library: its state behind a lock, and the way to its timer.
//!
//! Invariant: the engine is touched only under the lock, and whatever follows from that is collected there as
//! [`Effects`] and run when the lock is free.

use crate::batch::{Batch, Contents, Reservation};
use crate::counts::Verdict;
use crate::effects::{Effects, Event};
use crate::flight::{Ended, Taken};
#[cfg(feature = "lock-times")]
use crate::lock_times::lock;
use crate::responders::Responders;
use crate::state::State;
#[cfg(not(feature = "lock-times"))]
use crate::sync::lock;
use crate::sync::{self, Lock, Sender};
use crate::vm::{Alone, Notice, Vm, panic_text};
use crate::workers::WorkerId;
use batcher_core::{Accepted, BarrierId, Engine, Group, LaneId, LaneRef, Reason, Refused, Tally};
use crossbeam_utils::CachePadded;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A shard. Two of them share no cache line.
///
/// # Driving
///
/// 1. A [`Timer`](crate::Timer) keeps its time, from [`open`](Self::open) on.
/// 2. Processes call `open`, [`offer`](Self::offer), [`flush`](Self::flush) and [`close`](Self::close)
///    whenever they like.
/// 3. A process whose write is alone commits it and calls [`give_back`](Self::give_back).
/// 4. A committing process calls [`join`](Self::join), and then [`take`](Self::take) whenever it is
///    [woken](Vm::wake) or has answered the callers of its batch.
pub struct Shard<V: Vm> {
    state: CachePadded<Lock<State<V>>>,
    /// Its number.
    pub index: u64,
    /// Whether groups are to be measured for budgets (16.3). A setting: a reader gets the old or the new one while the
    /// owner changes. So it is none of loom's.
    pub(crate) measures: AtomicBool,
    /// Whether one commit takes what is due of all lanes (4.4). A setting as well.
    pub(crate) commits_together: AtomicBool,
    /// The number of the owner.
    pub(crate) owner_number: AtomicU64,
    /// Its responders.
    pub responders: Responders<V>,
    /// How often callers have committed directly. None of loom's either: nothing depends on it.
    pub(crate) direct_commits: CachePadded<AtomicU64>,
    /// To its timer.
    events: Sender<Happened<V>>,
}

/// What has become of a group that was offered.
enum Placed<V: Vm> {
    /// It has its place in a batch, and its caller waits until then.
    Queued(Reservation<V>, Option<Instant>),
    /// Its own process is to commit it.
    Alone(Alone),
}

/// What has happened, and to which shard.
pub type Happened<V> = (&'static Shard<V>, Event<V>);

impl<V: Vm> Shard<V> {
    /// A shard that is closed, and whose time will be kept at the other end of `events`.
    pub fn new(index: u64, events: Sender<Happened<V>>) -> Self {
        Shard {
            state: CachePadded::default(),
            index,
            measures: AtomicBool::new(false),
            commits_together: AtomicBool::new(false),
            owner_number: AtomicU64::new(0),
            responders: Responders::default(),
            direct_commits: CachePadded::default(),
            events,
        }
    }

    /// Whether groups are to be measured before they are offered.
    pub fn measures(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    /// Whether one commit takes what is due of all lanes.
    pub fn commits_together(&self) -> bool {
        self.commits_together.load(Ordering::Relaxed)
    }

    /// Why nothing can be offered now: what was about to be is refused, and counted as that.
    pub fn refuses(&self) -> Option<Refused> {
        self.locked(|state| {
            state.engine.phase().refuses().inspect(|&refused| state.counts.refuse(refused))
        })
    }

    /// Tells its timer.
    pub fn notify(&'static self, event: Event<V>) {
        // A timer lives as long as its shards.
        let _ = self.events.send((self, event));
    }

    /// A call's writes arrive; `put` puts them into their batch, and the caller among those that wait, until the given
    /// time if `wait` sets one. The lock is free by then. If they are alone, the calling process is to commit them
    /// instead, and to [give that back](Self::give_back).
    pub fn offer(
        &'static self,
        sender: V::Env<'_>,
        lane: LaneRef<'_>,
        group: Group,
        window: Duration,
        wait: Option<Duration>,
        put: impl FnOnce(&mut Contents<V>, Option<Instant>),
    ) -> Result<Option<Alone>, Refused> {
        let now = sync::now();
        let (placed, effects) = self.change(Some(sender), |state| {
            if let Err(refused) = state.admit_to_total(group.bytes) {
                state.counts.refuse(refused);
                return Err(refused);
            }
            let offered = state.engine.offer(now, lane, group, window);
            let accepted = offered.inspect_err(|&refused| {
                state.counts.refuse(refused);
                // For what is alone holds, perhaps, and its process may be dead.
                state.alone.mark_waited_for(|_lane| true);
            })?;
            let kind = lane.kind();
            let Accepted { ticket, contents, lane, is_alone } = accepted;
            if is_alone {
                let (items, bytes) = (group.items(), group.bytes);
                state.counts.leave(kind, Tally { writes: 1, items, bytes });
                state.alone.add(Alone(ticket), lane, V::process(sender));
                return Ok(Placed::Alone(Alone(ticket)));
            }
            let reservation = contents.reserve();
            let until = wait.map(|wait| now + wait);
            state.expire_at(until);
            let together = self.commits_together();
            state.alone.mark_waited_for(|other| together || other == lane);
            Ok(Placed::Queued(reservation, until))
        });
        let offered = placed.map(|placed| match placed {
            Placed::Queued(reservation, until) => reservation
                .fill(|contents| self.guard(Some(sender), || put(contents, until)).map(|()| None)),
            Placed::Alone(alone) => Ok(Some(alone)),
        });
        // Whatever has become of this group: what follows may be for others, too.
        self.run_effects(Some(sender), effects);
        offered.map(|offered| offered.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Asks for everything to be committed, windows aside. If it `stops`, new writes are refused from now on. `None` if
    /// no batcher runs.
    pub fn flush(
        &'static self,
        sender: V::Env<'_>,
        waiter: V::Waiter,
        stops: bool,
    ) -> Option<BarrierId> {
        let raise = if stops { Engine::handle_stop } else { Engine::handle_flush };
        self.with(Some(sender), |state, now| {
            if state.is_closed() {
                return None;
            }
            let barrier = raise(&mut state.engine, now);
            state.waiters.insert(barrier, waiter);
            state.alone.mark_waited_for(|_lane| true);
            Some(barrier)
        })
    }

    /// The process that waits for a barrier gives up. False if it has been told.
    pub fn cancel_barrier(&self, barrier: BarrierId) -> bool {
        self.locked(|state| state.waiters.remove(&barrier).is_some())
    }

    /// A committing process has started and rests. One that comes when all is over is told to leave.
    pub fn join(&'static self, sender: V::Env<'_>, id: WorkerId, committer: V::Committer) {
        let waker = V::waker(&committer);
        self.with(Some(sender), |state, _now| state.workers.join(id, committer, waker));
    }

    /// The committer has answered the callers of the batch that it had, if it had one, which has `ended` so, has emptied
    /// what held them, and gets what is next.
    pub fn take(&'static self, sender: V::Env<'_>, id: WorkerId, ended: Ended) -> Taken<V> {
        let now = sync::now();
        self.end(Some(sender), |state| {
            let Some(not_kept) = state.ask(now, id, ended) else {
                return (Taken::Leave, Vec::new());
            };
            (state.take(now, id), not_kept)
        })
    }

    /// The same, but of what is next nothing is taken: the committer rests, or, `false`, is to ask for that.
    pub fn rest(&'static self, sender: V::Env<'_>, id: WorkerId, ended: Ended) -> bool {
        let now = ended.answered.unwrap_or_else(sync::now);
        self.end(Some(sender), |state| {
            let Some(not_kept) = state.ask(now, id, ended) else { return (false, Vec::new()) };
            (state.rest(id), not_kept)
        })
    }

    /// The same of a committer that wants nothing more: what is due is another's.
    pub fn leave(&'static self, sender: V::Env<'_>, id: WorkerId, ended: Ended) {
        let now = sync::now();
        self.end(Some(sender), |state| {
            let not_kept = state.ask(now, id, ended);
            if not_kept.is_some() {
                state.workers.leave(id);
            }
            ((), not_kept.unwrap_or_default())
        });
    }

    /// A write that was alone has been committed by its process, or that is no more: its lane goes on.
    pub fn give_back(&'static self, sender: Option<V::Env<'_>>, alone: Alone, verdict: Verdict) {
        let now = sync::now();
        let watch = self.end(sender, |state| {
            let (lane, watch) = state.alone.remove(alone).unzip();
            let ended = Ended { verdict, ..Ended::default() };
            (watch, state.commit_done(now, lane.as_slice(), Reason::Alone, ended))
        });
        drop(watch);
    }

    /// Whether what is in flight of this lane is committed by its own process. If so, somebody waits for it now.
    pub fn is_alone(&'static self, sender: V::Env<'_>, lane: LaneId) -> bool {
        self.with(Some(sender), |state, _now| {
            state.alone.mark_waited_for(|other| other == lane);
            state.alone.has(lane)
        })
    }

    /// Ends commits, and frees what is left of their batches, outside the lock.
    fn end<R>(
        &'static self,
        sender: Option<V::Env<'_>>,
        end: impl FnOnce(&mut State<V>) -> (R, Vec<Batch<V>>),
    ) -> R {
        let (((result, not_kept), closed), effects) =
            self.change(sender, |state| (end(state), state.is_closed()));
        self.run_effects(sender, effects);
        drop(not_kept);
        if closed {
            // The timer forgets the shard with the last commit.
            self.notify(Event::Wake);
        }
        result
    }

    /// How many calls wait to leave together when the commit of this lane is done; `None` if there can be no more, or
    /// none are waited for.
    pub fn gathered(&self, lane: LaneId) -> Option<u64> {
        self.locked(|state| state.engine.gathered(lane))
    }

    /// These writers of the batch in flight of this lane are about to be answered, and perhaps others later. False: nobody
    /// need say more of this commit.
    pub fn answering(&self, lane: LaneId, writers: impl Iterator<Item = u64>) -> bool {
        self.locked(|state| state.engine.handle_answering(sync::now, lane, writers))
    }

    /// A committer that rests wants to exit: true if it may, because more than `keep` rest.
    pub fn retire(&self, id: WorkerId, keep: usize) -> bool {
        self.locked(|state| state.workers.retire(id, keep))
    }

    /// The owner says that a committer has died, and what the callers of its batch are told.
    pub fn explain_death(
        &'static self,
        sender: V::Env<'_>,
        is: impl Fn(&V::Committer) -> bool,
        reply: V::Terms,
    ) {
        self.with(Some(sender), |state, _now| state.workers.explain(is, reply));
    }

    /// The responder of this scheduler. Asks for some if there is none.
    pub fn responder(&'static self, sender: V::Env<'_>, scheduler: usize) -> Option<V::Responder> {
        let found = self.responders.find(scheduler);
        if let Err(true) = found
            && let Some(owner) = self.locked(|state| state.owner.clone())
        {
            V::notify(&owner, Some(sender), Notice::Responders);
        }
        found.ok()
    }

    /// Changes the state, then runs what follows from it. `sender` is the calling process, `None` on the thread of the
    /// timer.
    pub(crate) fn with<R>(
        &'static self,
        sender: Option<V::Env<'_>>,
        change: impl FnOnce(&mut State<V>, Instant) -> R,
    ) -> R {
        let now = sync::now();
        let (result, effects) = self.change(sender, |state| change(state, now));
        self.run_effects(sender, effects);
        result
    }

    /// Changes the state. What follows from it is to be [run](Self::run_effects).
    pub(crate) fn change<R>(
        &'static self,
        sender: Option<V::Env<'_>>,
        change: impl FnOnce(&mut State<V>) -> R,
    ) -> (R, Option<Effects<V>>) {
        let changed = self.guard(sender, || {
            let mut state = lock(&self.state);
            let changed = change(&mut state);
            state.settle_total();
            (changed, state.collect())
        });
        changed.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Works, and has the timer answer everybody that waits (10.5) if that fails in a calling process: its own panics
    /// end up there as well.
    pub(crate) fn guard<R>(
        &'static self,
        sender: Option<V::Env<'_>>,
        work: impl FnOnce() -> R,
    ) -> std::thread::Result<R> {
        let owner = self.owner_number.load(Ordering::Relaxed);
        catch_unwind(AssertUnwindSafe(work)).inspect_err(|panic| {
            if sender.is_some() {
                self.notify(Event::Crash(owner, panic_text(&**panic)));
            }
        })
    }

    /// Runs what follows from a change.
    pub(crate) fn run_effects(
        &'static self,
        sender: Option<V::Env<'_>>,
        effects: Option<Effects<V>>,
    ) {
        let Some(mut effects) = effects else { return };
        let run = self.guard(sender, || {
            if effects.wakes_timer {
                self.notify(Event::Wake);
            }
            for (alone, process) in std::mem::take(&mut effects.to_watch) {
                match V::watch(sender, process, self.index, alone) {
                    Some(watch) => drop(self.locked(|state| state.alone.keep(alone, watch))),
                    None => self.notify(Event::AloneDown(alone)),
                }
            }
            match sender {
                Some(sender) if V::may_be_exiting(sender) => self.notify(Event::Run(effects)),
                _ => effects.run(sender),
            }
        });
        run.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Works on the state when nothing follows from it.
    pub(crate) fn locked<R>(&self, work: impl FnOnce(&mut State<V>) -> R) -> R {
        work(&mut lock(&self.state))
    }
}
