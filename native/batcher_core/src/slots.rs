//! The queue of a lane.
//!
//! Invariant: the last slot lies in the lane itself, each slot before it has memory of its own: so a lane with one slot
//! asks for none, and a long queue is not moved when there is no room for another slot.

use crate::slot::Slot;
use std::collections::VecDeque;

/// Slots in order of arrival.
#[derive(Debug)]
pub(crate) struct Slots<B> {
    /// Nothing, unless there is a last one.
    before: VecDeque<Box<Slot<B>>>,
    /// The one that may still take groups.
    last: Option<Slot<B>>,
}

impl<B> Default for Slots<B> {
    fn default() -> Self {
        Slots { before: VecDeque::new(), last: None }
    }
}

impl<B> Slots<B> {
    pub(crate) fn len(&self) -> usize {
        self.before.len() + usize::from(self.last.is_some())
    }

    pub(crate) fn front(&self) -> Option<&Slot<B>> {
        self.before.front().map(|slot| &**slot).or(self.last.as_ref())
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut Slot<B>> {
        match self.before.front_mut() {
            Some(slot) => Some(slot),
            None => self.last.as_mut(),
        }
    }

    pub(crate) fn back(&self) -> Option<&Slot<B>> {
        self.last.as_ref()
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut Slot<B>> {
        self.last.as_mut()
    }

    /// Seals the one before it.
    pub(crate) fn push_back(&mut self, slot: Slot<B>) {
        if let Some(mut before) = self.last.take() {
            before.sealed = true;
            self.before.push_back(Box::new(before));
        }
        self.last = Some(slot);
    }

    pub(crate) fn pop_front(&mut self) -> Option<Slot<B>> {
        match self.before.pop_front() {
            Some(slot) => Some(*slot),
            None => self.last.take(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<B>> {
        self.before.iter().map(|slot| &**slot).chain(&self.last)
    }
}

impl<B> Iterator for Slots<B> {
    type Item = Slot<B>;

    fn next(&mut self) -> Option<Slot<B>> {
        self.pop_front()
    }
}
