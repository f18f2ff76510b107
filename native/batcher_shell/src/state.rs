//! What the lock of a shard guards: the engine, and the processes that work for it.
//!
//! Invariant: whatever is due has a worker that is awake for it, or the owner has been asked for one, or the bound on
//! workers is reached; so it is taken by the next one that asks.

use crate::batch::Batch;
use crate::effects::Effects;
use crate::failure::Failure;
#[cfg(feature = "lock-times")]
use crate::lock_times::LockTimes;
use crate::vm::Vm;
use crate::workers::Workers;
use batcher_core::{BarrierId, Engine, Phase};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Looks at all callers for those that have waited too long are at least so far apart.
const LOOKS_APART: Duration = Duration::from_millis(10);

/// The state of a shard. What each write changes comes first, beside the lock.
#[repr(C)]
pub(crate) struct State<V: Vm> {
    pub(crate) engine: Engine<Batch<V>>,
    /// The owner, and what tells of its death as long as it is kept.
    pub(crate) owner: Option<(V::Pid, V::Watch)>,
    /// How many owners there were.
    pub(crate) owners: u64,
    pub(crate) workers: Workers<V>,
    pub(crate) waiters: HashMap<BarrierId, V::Waiter>,
    /// Replies that need a process to send them, until a committer takes them.
    pub(crate) proxied: Vec<V::Proxied>,
    /// What the callers of abandoned writes are told.
    pub(crate) abandon_with: Failure,
    /// No caller has waited too long before this time; `None`: none ever will.
    pub(crate) expiry: Option<Instant>,
    /// There is no look before that.
    pub(crate) next_look: Option<Instant>,
    /// When the timer looks here next; `None` while it does, and will ask by itself.
    pub(crate) looks_at: Option<Instant>,
    /// The number of the last owner whose queue has been abandoned and answered.
    pub(crate) swept: u64,
    /// The shard is closed, and everything that was queued has been answered: committers may end.
    pub(crate) dismisses: bool,
    #[cfg(feature = "lock-times")]
    pub(crate) lock_times: LockTimes,
}

impl<V: Vm> Default for State<V> {
    fn default() -> Self {
        State {
            engine: Engine::default(),
            owner: None,
            owners: 0,
            workers: Workers::default(),
            waiters: HashMap::new(),
            proxied: Vec::new(),
            abandon_with: Failure::ShuttingDown,
            expiry: None,
            next_look: None,
            looks_at: None,
            swept: 0,
            dismisses: false,
            #[cfg(feature = "lock-times")]
            lock_times: LockTimes::default(),
        }
    }
}

impl<V: Vm> State<V> {
    /// Whether no batcher runs.
    pub(crate) fn is_closed(&self) -> bool {
        self.engine.phase() == Phase::Closed
    }

    /// The owner's process.
    pub(crate) fn owner(&self) -> Option<V::Pid> {
        self.owner.as_ref().map(|(pid, _watch)| pid.clone())
    }

    /// A caller waits until this time.
    pub(crate) fn expire_at(&mut self, until: Option<Instant>) {
        // Not written again where it stays the same: most writes change nothing here.
        if until.is_some_and(|until| self.expiry.is_none_or(|expiry| until < expiry)) {
            self.expiry = until;
        }
    }

    /// Whether some caller may have waited too long. The next look is for those that are not seen in this one.
    pub(crate) fn poll_expiry(&mut self, now: Instant) -> bool {
        let is_due = self.expiry_at().is_some_and(|look| look <= now);
        if is_due {
            self.expiry = None;
            self.next_look = Some(now + LOOKS_APART);
        }
        is_due
    }

    fn expiry_at(&self) -> Option<Instant> {
        self.expiry.map(|expiry| self.next_look.map_or(expiry, |look| look.max(expiry)))
    }

    /// When the timer has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadlines =
            [self.engine.next_deadline(), self.expiry_at(), self.workers.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Collects what follows from the change just made; `None` if nothing does, as after most writes.
    pub(crate) fn collect(&mut self) -> Option<Effects<V>> {
        let wakes_timer = self.wakes_timer();
        if !wakes_timer && self.wanted() == 0 && self.waiters.is_empty() {
            return None;
        }
        let mut effects = Effects::new(wakes_timer);
        while self.wanted() > 0 {
            let Some(committer) = self.workers.wake() else {
                let more = self.workers.ask_for(self.wanted());
                effects.wanted = self.owner().filter(|_| more > 0).map(|owner| (owner, more));
                break;
            };
            effects.committers.push(committer);
        }
        while let Some(barrier) = self.engine.poll_barrier() {
            effects.waiters.extend(self.waiters.remove(&barrier));
        }
        Some(effects)
    }

    /// Whether the timer would look too late.
    fn wakes_timer(&mut self) -> bool {
        let (Some(looks_at), Some(deadline)) = (self.looks_at, self.next_deadline()) else {
            return false;
        };
        let wakes = deadline < looks_at;
        if wakes {
            self.looks_at = None;
        }
        wakes
    }

    /// How many more workers there is something to do for than are awake.
    fn wanted(&self) -> usize {
        let replies = usize::from(!self.proxied.is_empty());
        let work = self.engine.wanted() + self.workers.dead() + replies;
        work.saturating_sub(self.workers.awake())
    }
}
