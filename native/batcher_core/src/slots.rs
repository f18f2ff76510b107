//! The queue of a lane.
//!
//! Invariant: the first slots lie side by side; only where there are more than `NEAR` of them, each of the others has
//! memory of its own, so that a long queue is not moved when there is no room for another one.

use crate::slot::Slot;
use std::collections::VecDeque;

/// So many lie side by side: more than most lanes ever have.
const NEAR: usize = 32;

/// Slots in order of arrival.
#[derive(Debug)]
pub(crate) struct Slots<B> {
    near: VecDeque<Slot<B>>,
    /// Nothing, unless `NEAR` others are before it.
    far: VecDeque<Box<Slot<B>>>,
}

impl<B> Default for Slots<B> {
    fn default() -> Self {
        Slots { near: VecDeque::new(), far: VecDeque::new() }
    }
}

impl<B> Slots<B> {
    pub(crate) fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    pub(crate) fn front(&self) -> Option<&Slot<B>> {
        self.near.front()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut Slot<B>> {
        self.near.front_mut()
    }

    pub(crate) fn back(&self) -> Option<&Slot<B>> {
        self.far.back().map(|slot| &**slot).or_else(|| self.near.back())
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut Slot<B>> {
        match self.far.back_mut() {
            Some(slot) => Some(slot),
            None => self.near.back_mut(),
        }
    }

    pub(crate) fn push_back(&mut self, slot: Slot<B>) {
        if self.near.len() < NEAR {
            self.near.push_back(slot);
        } else {
            self.far.push_back(Box::new(slot));
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<Slot<B>> {
        let first = self.near.pop_front();
        if let Some(next) = self.far.pop_front() {
            self.near.push_back(*next);
        }
        first
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<B>> {
        self.near.iter().chain(self.far.iter().map(|slot| &**slot))
    }
}

impl<B> Iterator for Slots<B> {
    type Item = Slot<B>;

    fn next(&mut self) -> Option<Slot<B>> {
        self.pop_front()
    }
}
