//! Replies on their way through a *responder*, a process that is bound to the scheduler of its callers.
//!
//! To wake a process of another scheduler is to fight for that one's run queue: it takes ten times as long as to wake
//! a neighbour. So the committer answers the callers of its own scheduler, and hands over the replies of the others.
//!
//! Invariant: replies are taken out of their handover under its lock, and sent, by whichever comes first: the
//! responder, the committer that waits for the end of its batch, or the one that answers in its place when it has
//! died. So no reply depends on a responder. What the library can't send stays in its handover until the process that
//! has got a copy of it is just about to send that, and can't be killed before.

use crate::sync::{self, Mutex};
use crate::vm::Vm;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Some replies of one batch that have not been sent yet: for callers of one scheduler, or for a process to send.
pub type Handover<R> = Arc<Mutex<R>>;

/// What was sent of a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// There was nothing in it.
    Nothing,
    /// All that was in it.
    All,
    /// All but what only a process can send: that is still in it.
    AllButProxied,
}

/// Sends what responders have left of a batch, the oldest handover first and no more than one of them. True: no reply was
/// left. Otherwise to be called again: when callers that have been sent theirs had time to write again, when the calling
/// process has sent what only it can, or later if a responder is at it.
pub fn finish<R>(
    handovers: &mut VecDeque<Handover<R>>,
    mut send: impl FnMut(&mut R) -> Sent,
) -> bool {
    while let Some(handover) = handovers.front() {
        let Some(mut replies) = handover.try_lock() else { return false };
        let sent = send(&mut replies);
        drop(replies);
        if sent == Sent::AllButProxied {
            return false;
        }
        handovers.pop_front();
        if sent == Sent::All {
            return false;
        }
    }
    true
}

/// Handovers that wait for one responder are so many at most: it may be kept from running.
const QUEUED: usize = 64;

/// What a responder has to send.
#[derive(Default)]
pub struct Handovers<R> {
    queue: Mutex<VecDeque<Handover<R>>>,
}

impl<R> Handovers<R> {
    /// Whether the responder has enough to do.
    pub fn is_full(&self) -> bool {
        self.queue.lock().len() >= QUEUED
    }

    /// One more. True: the responder sleeps and is to be woken.
    pub fn push(&self, handover: Handover<R>) -> bool {
        let mut queue = self.queue.lock();
        queue.push_back(handover);
        queue.len() == 1
    }

    /// Sends the handover that came first, in the responder, unless another thread is at it. True: there are more, or
    /// something of this one is left.
    ///
    /// It counts as there until it has been sent, so that a responder that is awake is not woken.
    pub fn send_first(&self, send: impl FnOnce(&mut R) -> Sent) -> bool {
        let Some(first) = self.first() else { return false };
        if let Some(mut replies) = first.try_lock()
            && send(&mut replies) == Sent::AllButProxied
        {
            return true;
        }
        let mut queue = self.queue.lock();
        queue.pop_front();
        !queue.is_empty()
    }

    /// The handover that came first.
    pub fn first(&self) -> Option<Handover<R>> {
        self.queue.lock().front().cloned()
    }
}

/// An owner is not asked again before that: where responders can't be had, it would start them for ever.
const ASKED: Duration = Duration::from_secs(1);

/// The responders of a shard. Never locked while the lock of its state is wanted.
pub struct Responders<V: Vm> {
    /// By the number of their scheduler.
    at: Mutex<Vec<Option<V::Responder>>>,
    /// When their owner was asked for more.
    asked: Mutex<Option<Instant>>,
}

impl<V: Vm> Default for Responders<V> {
    fn default() -> Self {
        Responders { at: Mutex::default(), asked: Mutex::default() }
    }
}

impl<V: Vm> Responders<V> {
    /// A responder has started on this scheduler. False: there is one already.
    pub fn join(&self, scheduler: usize, responder: V::Responder) -> bool {
        let mut at = self.at.lock();
        if at.len() <= scheduler {
            at.resize(scheduler + 1, None);
        }
        let free = at[scheduler].is_none();
        if free {
            at[scheduler] = Some(responder);
        }
        free
    }

    /// A responder has died: another one is wanted.
    pub fn leave(&self, is: impl Fn(&V::Responder) -> bool) {
        for responder in &mut *self.at.lock() {
            if responder.as_ref().is_some_and(&is) {
                *responder = None;
                *self.asked.lock() = None;
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.at.lock().iter().flatten().count()
    }

    /// All of them have ended.
    pub(crate) fn clear(&self) {
        self.at.lock().clear();
        *self.asked.lock() = None;
    }

    /// The responder of this scheduler, or whether the owner is to be asked for responders.
    pub(crate) fn find(&self, scheduler: usize) -> Result<V::Responder, bool> {
        self.at.lock().get(scheduler).cloned().flatten().ok_or_else(|| {
            let (now, mut asked) = (sync::now(), self.asked.lock());
            let asks = asked.is_none_or(|asked| now >= asked + ASKED);
            if asks {
                *asked = Some(now);
            }
            asks
        })
    }
}
