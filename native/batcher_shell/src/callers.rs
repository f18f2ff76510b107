//! The callers of one batch and how far they have been answered.
//!
//! Invariant: who stands before `next` has been answered or had given up, who
//! stands behind it has not been sent anything. So under the lock around it a caller that gives up
//! learns for certain: no reply will ever come, or it is on its way.

/// The callers of one batch, in queue order.
#[derive(Debug)]
pub struct Callers<C> {
    waiting: Vec<Waiting<C>>,
    next: usize,
}

#[derive(Debug)]
struct Waiting<C> {
    caller: C,
    ticket: u64,
    given_up: bool,
}

impl<C> Default for Callers<C> {
    fn default() -> Self {
        Callers { waiting: Vec::new(), next: 0 }
    }
}

impl<C> Callers<C> {
    /// One more. Tickets grow.
    pub fn add(&mut self, ticket: u64, caller: C) {
        self.waiting.push(Waiting { caller, ticket, given_up: false });
    }

    /// The caller of this ticket gives up. False if it has been answered.
    pub fn cancel(&mut self, ticket: u64) -> bool {
        let index = self.waiting.partition_point(|waiting| waiting.ticket < ticket);
        match self.waiting.get_mut(index) {
            Some(waiting) if waiting.ticket == ticket && index >= self.next => {
                waiting.given_up = true;
                true
            }
            _ => false,
        }
    }

    /// Who has not been passed yet, the next one first.
    pub fn left(&self) -> impl ExactSizeIterator<Item = &C> {
        self.waiting[self.next..].iter().map(|waiting| &waiting.caller)
    }

    /// The next caller, to be answered right now if `true` stands beside it: it has not given up.
    pub fn pass(&mut self) -> Option<(&C, bool)> {
        let waiting = self.waiting.get(self.next)?;
        self.next += 1;
        Some((&waiting.caller, !waiting.given_up))
    }

    /// All of them in queue order, answered or not.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &C> {
        self.waiting.iter().map(|waiting| &waiting.caller)
    }

    /// The caller passed last could not be sent anything: whoever sees to the batch next, does.
    pub fn take_back(&mut self) {
        self.next = self.next.saturating_sub(1);
    }
}
