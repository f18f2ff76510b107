//! What a shard holds, in numbers, for a look from outside.
//!
//! Invariant: to read all of it takes a time that does not grow with lanes or writes, but with what is in flight.

use crate::engine::Engine;
use crate::name::LaneId;
use crate::offer::Held;
use std::ops::Range;
use std::time::Instant;

impl<B: Default> Engine<B> {
    /// What is queued and in flight.
    pub fn held(&self) -> Held {
        Held { items: self.items, bytes: self.bytes }
    }

    /// What is queued.
    pub fn queued(&self) -> Held {
        // After a failure of the engine itself these may contradict each other.
        Held {
            items: self.items.saturating_sub(self.flights.items),
            bytes: self.bytes.saturating_sub(self.flights.bytes),
        }
    }

    /// How many calls are queued.
    pub fn queued_calls(&self) -> u64 {
        self.queued
    }

    /// What is in flight, of closed lives too.
    pub fn flying(&self) -> Held {
        Held { items: self.flights.items, bytes: self.flights.bytes }
    }

    /// How many commits are in flight, without commits of closed lives, which take no room (11.1).
    pub fn commits(&self) -> usize {
        self.flights.of_life
    }

    /// How many lanes hold something.
    pub fn occupied_lanes(&self) -> usize {
        self.schedule.timers.len() + self.schedule.count() + self.flights.lanes.len()
    }

    /// Forgets what has left the lanes in these places.
    pub fn forget_done(&mut self, places: Range<u32>) {
        self.lanes.forget_done(places);
    }

    /// What has been in flight for the longest time, and since when.
    pub fn oldest_in_flight(&self) -> Option<(LaneId, Instant)> {
        let flights = self.flights.lanes.iter().filter_map(|&id| {
            let left = self.lane(id)?.in_flight()?.left?;
            Some((id, left))
        });
        flights.min_by_key(|&(_, left)| left)
    }
}
