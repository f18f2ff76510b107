//! The callers of one batch and how far they have been answered.
//!
//! Invariant: a caller before `next` has been answered, had given up, or its reply is in the hands of the
//! call that answers or in a handover, which is sent whatever happens; a caller behind it has not been sent
//! anything but that it waits no more. So under the lock around it a caller is told one thing: its reply, or that it has
//! waited too long.

use std::time::Instant;

/// Of a batch that is done, memory for so many calls is kept. To have it anew for each batch takes long under its lock.
pub const KEPT: usize = 4096;

/// So many callers are looked at under the lock that their committer and new ones need.
const AT_ONCE: usize = 256;

/// The callers of one batch, in queue order.
#[derive(Debug)]
pub struct Callers<C> {
    waiting: Vec<Waiting<C>>,
    next: usize,
    /// How many of the callers passed had given up.
    late: u64,
}

#[derive(Debug)]
struct Waiting<C> {
    caller: C,
    until: Option<Instant>,
    given_up: bool,
}

/// What [`Callers::expire`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired {
    /// The earliest end of a wait among the callers that were looked at and go on waiting.
    pub earliest: Option<Instant>,
    /// Where to go on looking; `None` at the end.
    pub next: Option<usize>,
    /// How many have given up now.
    pub given_up: u64,
}

impl<C> Default for Callers<C> {
    fn default() -> Self {
        Callers { waiting: Vec::new(), next: 0, late: 0 }
    }
}

impl<C> Callers<C> {
    /// One more caller, which waits until then, or for as long as it takes.
    pub fn add(&mut self, caller: C, until: Option<Instant>) {
        self.waiting.push(Waiting { caller, until, given_up: false });
    }

    /// The callers that have not been passed yet, the next one first.
    pub fn remaining(&self) -> impl ExactSizeIterator<Item = &C> {
        self.waiting[self.next..].iter().map(|waiting| &waiting.caller)
    }

    /// The next caller, to be answered right now if `true` stands beside it: it has not given up.
    pub fn pass(&mut self) -> Option<(&C, bool)> {
        let waiting = self.waiting.get(self.next)?;
        self.next += 1;
        self.late += u64::from(waiting.given_up);
        Some((&waiting.caller, !waiting.given_up))
    }

    /// All of them in queue order, answered or not.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &C> {
        self.waiting.iter().map(|waiting| &waiting.caller)
    }

    /// No callers. Keeps memory for as many as most batches have.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.waiting.shrink_to(KEPT);
        (self.next, self.late) = (0, 0);
    }

    /// How many of the callers passed had given up.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The caller passed last could not be sent anything: the process or timer that sees to the batch next, does.
    pub fn take_back(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    /// Looks at some callers from this place on. Callers that have waited until now give up, and are told that.
    pub fn expire(&mut self, now: Instant, from: usize, mut tell: impl FnMut(&C)) -> Expired {
        let end = self.waiting.len().min(from.saturating_add(AT_ONCE));
        let (mut earliest, mut given_up): (Option<Instant>, _) = (None, 0);
        for waiting in &mut self.waiting[from.max(self.next).min(end)..end] {
            let Some(until) = waiting.until.filter(|_| !waiting.given_up) else { continue };
            if until <= now {
                waiting.given_up = true;
                given_up += 1;
                tell(&waiting.caller);
            } else {
                earliest = Some(earliest.map_or(until, |other| other.min(until)));
            }
        }
        Expired { earliest, next: (end < self.waiting.len()).then_some(end), given_up }
    }
}
