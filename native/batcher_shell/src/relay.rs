//! Replies on their way through a herald, a process that is bound to the scheduler of its callers.
//!
//! To wake a process of another scheduler is to fight for that one's run queue: it takes ten times as
//! long as to wake a neighbour. So the committer answers the callers of its own scheduler, and relays
//! the replies of the others.
//!
//! Invariant: replies are taken out of their relay and sent under its lock, by whoever comes first:
//! the herald, the committer that waits for the end of its batch, or who answers in its place when it
//! has died. So no reply depends on a herald.

use crate::sync::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Some replies of one batch, for callers of one scheduler.
pub struct Relay<R> {
    replies: Mutex<R>,
}

impl<R> Relay<R> {
    /// Replies that nobody has sent yet.
    pub fn new(replies: R) -> Self {
        Relay { replies: Mutex::new(replies) }
    }

    /// Sends what is left: waits for who is at it. Only for threads that may wait.
    pub fn send<S>(&self, send: impl FnOnce(&mut R) -> S) -> S {
        send(&mut self.replies.lock())
    }
}

/// How far the relays of a batch have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// No reply is left.
    All,
    /// Some were left and have been sent now; there may be more.
    Some,
    /// Somebody is sending: look again later.
    Busy,
}

/// Sends what heralds have left of a batch, one relay at a time; `send` says how many it has sent.
pub fn finish<R>(relays: &mut Vec<Arc<Relay<R>>>, send: impl Fn(&mut R) -> usize) -> Finished {
    while let Some(relay) = relays.last() {
        let Some(mut replies) = relay.replies.try_lock() else { return Finished::Busy };
        let sent = send(&mut replies);
        drop(replies);
        relays.pop();
        if sent > 0 {
            return Finished::Some;
        }
    }
    Finished::All
}

/// Relays that wait for one herald are so many at most: it may be kept from running.
const INBOX: usize = 64;

/// What a herald has to send.
pub struct Inbox<R> {
    relays: Mutex<VecDeque<Arc<Relay<R>>>>,
}

impl<R> Default for Inbox<R> {
    fn default() -> Self {
        Inbox { relays: Mutex::new(VecDeque::new()) }
    }
}

impl<R> Inbox<R> {
    /// Whether the herald has enough to do.
    pub fn is_full(&self) -> bool {
        self.relays.lock().len() >= INBOX
    }

    /// One more. True: the herald sleeps and is to be woken.
    pub fn push(&self, relay: Arc<Relay<R>>) -> bool {
        let mut relays = self.relays.lock();
        relays.push_back(relay);
        relays.len() == 1
    }

    /// Sends the relay that came first, in the herald, unless somebody else is at it. True: there
    /// are more.
    ///
    /// It counts as there until it has been sent, so that nobody wakes a herald that is awake.
    pub fn work<S>(&self, send: impl FnOnce(&mut R) -> S) -> bool {
        let first = self.relays.lock().front().cloned();
        let Some(first) = first else { return false };
        if let Some(mut replies) = first.replies.try_lock() {
            send(&mut replies);
        }
        let mut relays = self.relays.lock();
        relays.pop_front();
        !relays.is_empty()
    }
}

/// An owner is not asked again before that: where heralds can't be had, it would start them for ever.
const ASKED: Duration = Duration::from_secs(1);

/// The heralds of a shard, by the number of their scheduler.
pub(crate) struct Heralds<T> {
    at: Vec<Option<T>>,
    asked: Option<Instant>,
}

impl<T> Default for Heralds<T> {
    fn default() -> Self {
        Heralds { at: Vec::new(), asked: None }
    }
}

impl<T: Clone> Heralds<T> {
    pub(crate) fn find(&self, home: usize) -> Option<T> {
        self.at.get(home).cloned().flatten()
    }

    /// False if there is one already.
    pub(crate) fn attend(&mut self, home: usize, herald: T) -> bool {
        if self.at.len() <= home {
            self.at.resize(home + 1, None);
        }
        let free = self.at[home].is_none();
        if free {
            self.at[home] = Some(herald);
        }
        free
    }

    /// It has died: another one is wanted.
    pub(crate) fn leave(&mut self, is: impl Fn(&T) -> bool) {
        for herald in &mut self.at {
            if herald.as_ref().is_some_and(&is) {
                *herald = None;
                self.asked = None;
            }
        }
    }

    /// Whether the owner is to be asked for heralds.
    pub(crate) fn ask(&mut self, now: Instant) -> bool {
        let asks = self.asked.is_none_or(|asked| now >= asked + ASKED);
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}
