//! What threads meet through: the lock, the channel of events, the clock. Loom's own where the
//! crate is built with `--cfg loom`, so that the models run the code that the library runs.
//!
//! Invariant: no other module of this crate names a lock, a channel or a clock.

#[cfg(loom)]
pub use modelled::{
    Condvar, Mutex, MutexGuard, Receiver, RecvTimeoutError, Sender, now, unbounded,
};

#[cfg(not(loom))]
pub use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
#[cfg(not(loom))]
pub use parking_lot::{Condvar, Mutex, MutexGuard};

/// The time.
#[cfg(not(loom))]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// How often a lock is looked at before the thread sleeps: some 2 us, many times what it is held for.
#[cfg(not(loom))]
const LOOKS: usize = 64;

/// Takes a lock that is held for less than it takes to put a thread to sleep and to wake it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    look(mutex, |_| true).unwrap_or_else(|| mutex.lock())
}

/// The same, once what it guards is as it should be, which takes as little. Whoever makes it so notifies `changed`.
pub fn lock_when<'a, T>(
    mutex: &'a Mutex<T>,
    changed: &Condvar,
    is: impl Fn(&T) -> bool,
) -> MutexGuard<'a, T> {
    look(mutex, &is).unwrap_or_else(|| {
        let mut guard = mutex.lock();
        while !is(&guard) {
            guard = wait(changed, guard);
        }
        guard
    })
}

#[cfg(not(loom))]
fn look<T>(mutex: &Mutex<T>, is: impl Fn(&T) -> bool) -> Option<MutexGuard<'_, T>> {
    (0..LOOKS).find_map(|_| {
        let guard = mutex.try_lock().filter(|guard| is(guard));
        if guard.is_none() {
            std::hint::spin_loop();
        }
        guard
    })
}

/// In a model it makes no difference.
#[cfg(loom)]
fn look<T>(_mutex: &Mutex<T>, _is: impl Fn(&T) -> bool) -> Option<MutexGuard<'_, T>> {
    None
}

#[cfg(not(loom))]
fn wait<'a, T>(condition: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(&mut guard);
    guard
}

#[cfg(loom)]
fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).expect("a model ends with its first panic")
}

/// The same for loom, as far as it is used here.
#[cfg(loom)]
mod modelled {
    use loom::sync::{Arc, Mutex as LoomMutex};
    use std::collections::VecDeque;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    pub use loom::sync::{Condvar, MutexGuard};

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

        /// The value: nobody else can have the lock.
        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect("as above")
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

        /// Waits for an event. Without one, a short sleep is over at once, a long one never: who
        /// is not woken from it is found by loom as a deadlock.
        pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
            let mut queue = self.0.queue.lock().expect("as above");
            loop {
                if let Some(event) = queue.pop_front() {
                    return Ok(event);
                }
                let left = deadline.saturating_duration_since(now());
                if left <= SHORT {
                    ELAPSED.fetch_add(left.as_micros() as u64, Ordering::Relaxed);
                    return Err(RecvTimeoutError::Timeout);
                }
                queue = self.0.arrived.wait(queue).expect("as above");
            }
        }
    }
}
