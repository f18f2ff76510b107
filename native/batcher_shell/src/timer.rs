//! Timers: each keeps the time of some shards on a thread of its own. It wakes committers for what is due, and does
//! what has no process left to do it.
//!
//! Invariant: a shard that is open, or has a commit in flight, has an alarm; the thread of a timer ends only when there
//! is no alarm and no event left.

use crate::effects::Event;
use crate::shard::{Happened, Shard};
use crate::sync::{self, Mutex, Receiver, RecvTimeoutError, Sender};
use crate::vm::{Vm, panic_text};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Keeps the time of some shards.
pub struct Timer<V: Vm> {
    state: Mutex<State<V>>,
    /// Both ends, so that an event can be sent while no thread runs.
    events: (Sender<Happened<V>>, Receiver<Happened<V>>),
}

#[derive(Default)]
struct State<V: Vm> {
    thread_lives: bool,
    /// The shards by the times at which each is looked at next.
    alarms: BTreeMap<(Instant, u64), &'static Shard<V>>,
    /// The times of the alarms.
    at: HashMap<u64, Instant>,
}

/// After a failure in the midst of a failure.
const LATER: Duration = Duration::from_millis(100);

impl<V: Vm> Default for Timer<V> {
    fn default() -> Self {
        Timer { state: Mutex::default(), events: sync::unbounded() }
    }
}

impl<V: Vm> Timer<V> {
    /// For its [shards](Shard::new).
    pub fn events(&self) -> Sender<Happened<V>> {
        self.events.0.clone()
    }

    /// Keeps the time of this shard from now on. `spawn` starts a thread that [runs](Self::run) the timer, if there is
    /// none.
    ///
    /// # Errors
    ///
    /// The errors of `spawn`.
    pub fn start(
        &self,
        shard: &'static Shard<V>,
        spawn: impl FnOnce() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut state = self.state.lock();
        if !state.thread_lives {
            spawn()?;
            state.thread_lives = true;
        }
        // Under the lock: a thread that is about to end finds it.
        shard.notify(Event::Wake);
        Ok(())
    }

    /// The life of the thread.
    pub fn run(&self) {
        while self.round() {}
    }

    /// Does what is due and waits for more. False: the thread ends.
    pub fn round(&self) -> bool {
        let now = sync::now();
        // The lock is free while a shard is served.
        let next_due = || self.state.lock().pop_due(now);
        while let Some(shard) = next_due() {
            self.serve(shard, None);
        }
        let Some(deadline) = self.next_alarm() else { return false };
        match self.events.1.recv_deadline(deadline) {
            Ok((shard, event)) => self.serve(shard, Some(event)),
            Err(RecvTimeoutError::Timeout) => {}
            // The timer holds the sending side too.
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    /// Does what there is to do for one shard, whatever fails in it.
    fn serve(&self, shard: &'static Shard<V>, event: Option<Event<V>>) {
        let served = sync::catch(|| {
            event.into_iter().for_each(|event| shard.handle(event));
            shard.turn();
        });
        if let Err(panic) = served {
            // Should even this fail, the next turn finds the shard as it is left.
            let _ = sync::catch(|| shard.crash(panic_text(&*panic)));
            // What was queued is abandoned now, and no event will say so.
            let _ = sync::catch(|| shard.turn());
        }
        let next = sync::catch(|| shard.next_look());
        self.state.lock().set(shard, next.unwrap_or_else(|_| Some(sync::now() + LATER)));
    }

    /// When a shard is to be looked at next. `None`: never, and the thread ends.
    fn next_alarm(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        let next = state.alarms.first_key_value().map(|(&(at, _), _)| at);
        let next = next.or_else(|| (!self.events.1.is_empty()).then(sync::now));
        state.thread_lives = next.is_some();
        next
    }
}

impl<V: Vm> State<V> {
    fn pop_due(&mut self, now: Instant) -> Option<&'static Shard<V>> {
        let first = self.alarms.first_entry().filter(|entry| entry.key().0 <= now)?;
        let shard = first.remove();
        self.at.remove(&shard.index);
        Some(shard)
    }

    /// The next look at a shard, instead of whatever was noted before.
    fn set(&mut self, shard: &'static Shard<V>, next: Option<Instant>) {
        if let Some(before) = self.at.remove(&shard.index) {
            self.alarms.remove(&(before, shard.index));
        }
        if let Some(next) = next {
            self.at.insert(shard.index, next);
            self.alarms.insert((next, shard.index), shard);
        }
    }
}
