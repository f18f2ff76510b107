//! What threads meet through: locks, the channel of events, the clock, and what each has for itself. Loom's own where
//! the crate is built with `--cfg loom`, so that the models run the code that the library runs.
//!
//! Invariant: no other module of this crate names a lock, a channel or a clock.

#[cfg(not(loom))]
use crossbeam_utils::Backoff;

#[cfg(loom)]
pub use modelled::{
    Mutex, Mutex as Lock, MutexGuard as LockGuard, Receiver, RecvTimeoutError, Sender, now,
    unbounded,
};

#[cfg(loom)]
pub use loom::thread_local;
#[cfg(not(loom))]
pub use std::thread_local;

#[cfg(not(loom))]
pub use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
/// A lock that few threads want: of responders, of handovers and their queues.
#[cfg(not(loom))]
pub use parking_lot::Mutex;
/// The lock of a shard's state, or of what a slot holds: with each write it is taken, mostly for far less than it takes
/// to put a thread to sleep and to wake it. It is given back with a plain store, where a lock that knows which threads
/// sleep for it takes an atomic operation, which waits until all that was written before has reached the cache.
#[cfg(not(loom))]
pub use spin::mutex::{SpinMutex as Lock, SpinMutexGuard as LockGuard};

/// The time.
#[cfg(not(loom))]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Does some work, whatever fails in it.
#[cfg(not(loom))]
pub fn catch<R>(work: impl FnOnce() -> R) -> std::thread::Result<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
}

/// The same in a model, which ends with its first panic.
#[cfg(loom)]
pub fn catch<R>(work: impl FnOnce() -> R) -> std::thread::Result<R> {
    Ok(work())
}

/// Whole milliseconds, `u64::MAX` at most.
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds, `u64::MAX` at most.
pub fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// How long ago that was, in microseconds.
pub fn age_us(since: std::time::Instant) -> u64 {
    micros(now().saturating_duration_since(since))
}

/// Takes a lock. No thread hands it on: one that naps may be passed by one that comes.
pub fn lock<T>(lock: &Lock<T>) -> LockGuard<'_, T> {
    lock_when(lock, |_| true)
}

/// The same, once what it guards is as it should be, which takes as little.
pub fn lock_when<T>(lock: &Lock<T>, is: impl Fn(&T) -> bool) -> LockGuard<'_, T> {
    let mut wait = Wait::default();
    loop {
        if let Some(guard) = attempt(lock).filter(|guard| is(guard)) {
            return guard;
        }
        // To try takes the cache line from the thread that has the lock, to look does not.
        loop {
            wait.pause();
            if !is_taken(lock) {
                break;
            }
        }
    }
}

#[cfg(not(loom))]
fn attempt<T>(lock: &Lock<T>) -> Option<LockGuard<'_, T>> {
    lock.try_lock()
}

#[cfg(not(loom))]
fn is_taken<T>(lock: &Lock<T>) -> bool {
    lock.is_locked()
}

/// So often does a thread let others run on its core before it naps. Where none wants to, that takes 40 us, and a nap 130,
/// since the core falls asleep.
#[cfg(not(loom))]
const YIELDS: u32 = 100;
/// Between two looks of a thread that has waited for longer: the holder of the lock answers callers, copies a whole slot,
/// or does not run.
#[cfg(not(loom))]
const NAP: std::time::Duration = std::time::Duration::from_micros(50);

/// Lets threads that nap come to a lock that was just given back.
#[cfg(not(loom))]
pub fn nap() {
    std::thread::sleep(NAP);
}

/// The same in a model, where none naps.
#[cfg(loom)]
pub fn nap() {
    loom::thread::yield_now();
}

/// How long a thread has waited for a lock.
#[cfg(not(loom))]
#[derive(Default)]
struct Wait {
    backoff: Backoff,
    yields: u32,
}

#[cfg(not(loom))]
impl Wait {
    /// Until the next look: spins at first, then lets others run on its core, then naps.
    fn pause(&mut self) {
        if !self.backoff.is_completed() {
            self.backoff.snooze();
        } else if self.yields < YIELDS {
            self.yields += 1;
            std::thread::yield_now();
        } else {
            nap();
        }
    }
}

/// In a model, a thread that waits for a lock is passed over until it is free.
#[cfg(loom)]
fn attempt<T>(lock: &Lock<T>) -> Option<LockGuard<'_, T>> {
    Some(lock.lock())
}

#[cfg(loom)]
fn is_taken<T>(_lock: &Lock<T>) -> bool {
    false
}

#[cfg(loom)]
#[derive(Default)]
struct Wait {}

#[cfg(loom)]
impl Wait {
    fn pause(&mut self) {
        loom::thread::yield_now();
    }
}

/// The same for loom, as far as it is used here.
#[cfg(loom)]
#[allow(clippy::missing_panics_doc, reason = "a model ends with its first panic")]
mod modelled {
    use super::micros;
    use loom::sync::Mutex as LoomMutex;
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::time::{Duration, Instant};

    use loom::sync::Condvar;
    pub use loom::sync::MutexGuard;

    /// A lock that is not poisoned.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(LoomMutex<T>);

    impl<T> Mutex<T> {
        /// A lock around a value.
        pub fn new(value: T) -> Self {
            Mutex(LoomMutex::new(value))
        }

        /// Waits for the lock.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model ends with its first panic")
        }

        /// Takes the lock if it is free.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// Longer sleeps outlast the model.
    const SHORT: Duration = Duration::from_secs(1);

    static START: OnceLock<Instant> = OnceLock::new();

    loom::lazy_static! {
        /// Microseconds since the start of the model. Not loom's: reading the time is no meeting.
        static ref ELAPSED: AtomicU64 = AtomicU64::new(0);
    }

    /// The time of the model: it stands still but for short sleeps, which are over at once.
    pub fn now() -> Instant {
        let elapsed = Duration::from_micros(ELAPSED.load(Ordering::Relaxed));
        *START.get_or_init(Instant::now) + elapsed
    }

    struct Channel<T> {
        queue: LoomMutex<VecDeque<T>>,
        arrived: Condvar,
    }

    /// Sends events.
    pub struct Sender<T>(Arc<Channel<T>>);

    /// Receives events.
    pub struct Receiver<T>(Arc<Channel<T>>);

    /// Why there is no event.
    #[derive(Debug)]
    pub enum RecvTimeoutError {
        /// The deadline has come.
        Timeout,
        /// No sender is left. Never the case here.
        Disconnected,
    }

    /// A channel without a limit.
    pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        let queue = LoomMutex::new(VecDeque::new());
        let channel = Arc::new(Channel { queue, arrived: Condvar::new() });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Sender(Arc::clone(&self.0))
        }
    }

    impl<T> Sender<T> {
        /// Adds an event.
        pub fn send(&self, event: T) -> Result<(), T> {
            self.0.queue.lock().expect("as above").push_back(event);
            self.0.arrived.notify_one();
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        /// Whether there is no event now.
        pub fn is_empty(&self) -> bool {
            self.0.queue.lock().expect("as above").is_empty()
        }

        /// Waits for an event. Without one, a short sleep is over at once, a long one never: a
        /// thread that is not woken from it is found by loom as a deadlock.
        pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
            let mut queue = self.0.queue.lock().expect("as above");
            loop {
                if let Some(event) = queue.pop_front() {
                    return Ok(event);
                }
                let left = deadline.saturating_duration_since(now());
                if left <= SHORT {
                    ELAPSED.fetch_add(micros(left), Ordering::Relaxed);
                    return Err(RecvTimeoutError::Timeout);
                }
                queue = self.0.arrived.wait(queue).expect("as above");
            }
        }
    }
}
