//! The lanes of a shard by name and by number.
//!
//! Invariant: every lane that holds something is here; of lanes that hold nothing only a bounded
//! number with short names is kept, so that prefixes that come once cost nothing later. A number
//! names nothing once its lane is gone.

use crate::lane::{Epochs, Lane, LaneView, State, Tally};
use crate::name::{Digest, LONG_PREFIX, LaneId, LaneKey, LaneRef, LongPrefix};
use crate::prefixes::Prefixes;
use crate::slot::Slot;
use foldhash::fast::RandomState;
use slab::Slab;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Above this many lanes an idle one is dropped.
const KEPT_LANES: usize = 1024;
/// An idle lane with a longer name is dropped.
const KEPT_NAME_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct Lanes<B> {
    /// In boxes, so that little is moved when there is no room for another one.
    slab: Slab<Box<Lane<B>>>,
    /// Lanes that ever were, roughly.
    opened: u32,
    by_prefix: Prefixes,
    /// Long prefixes, by digest and length.
    by_digest: HashMap<(Digest, usize), LaneId, RandomState>,
    generic: Option<LaneId>,
    put: Option<LaneId>,
    delete: Option<LaneId>,
}

impl<B> Default for Lanes<B> {
    fn default() -> Self {
        Lanes {
            slab: Slab::new(),
            opened: 0,
            by_prefix: Prefixes::default(),
            by_digest: HashMap::default(),
            generic: None,
            put: None,
            delete: None,
        }
    }
}

impl<B> Lanes<B> {
    #[inline]
    fn find(&self, name: LaneRef<'_>) -> Option<LaneId> {
        match name {
            LaneRef::Prefix(prefix) => self.by_prefix.get(prefix),
            LaneRef::Long(long) => self.by_digest.get(&by_digest(long)).copied(),
            LaneRef::Generic => self.generic,
            LaneRef::Put => self.put,
            LaneRef::Delete => self.delete,
        }
    }

    pub(crate) fn find_or_open(&mut self, name: LaneRef<'_>) -> (LaneId, &mut Lane<B>) {
        let id = match self.find(name) {
            Some(id) => id,
            None => self.open(name),
        };
        (id, &mut self.slab[id.place as usize])
    }

    #[cold]
    fn open(&mut self, name: LaneRef<'_>) -> LaneId {
        // A driver that gives a long prefix as a short one pays for it, at each write.
        let long;
        let name = match name {
            LaneRef::Prefix(prefix) if prefix.len() >= LONG_PREFIX => {
                long = LongPrefix::new(prefix);
                if let Some(&id) = self.by_digest.get(&by_digest(&long)) {
                    return id;
                }
                LaneRef::Long(&long)
            }
            name => name,
        };
        let entry = self.slab.vacant_entry();
        let place = u32::try_from(entry.key()).expect("memory ends before 2^32 lanes do");
        let id = LaneId { place, generation: self.opened };
        self.opened = self.opened.wrapping_add(1);
        let key = name.to_key();
        let mut digest = Digest::default();
        match (name, &key) {
            (LaneRef::Long(long), _) => {
                digest = long.digest();
                self.by_digest.insert(by_digest(long), id);
            }
            (_, LaneKey::Prefix(prefix)) => {
                self.by_prefix.insert(Arc::clone(prefix), id);
            }
            (_, LaneKey::Generic) => self.generic = Some(id),
            (_, LaneKey::Put) => self.put = Some(id),
            (_, LaneKey::Delete) => self.delete = Some(id),
        }
        entry.insert(Box::new(Lane::new(key, digest, id)));
        id
    }

    pub(crate) fn lane(&mut self, id: LaneId) -> Option<&mut Lane<B>> {
        let lane = self.slab.get_mut(id.place as usize)?;
        (lane.generation == id.generation).then_some(lane)
    }

    /// Drops a lane that holds nothing, unless it may be kept for its next write.
    pub(crate) fn rest(&mut self, id: LaneId) {
        let crowded = self.slab.len() > KEPT_LANES;
        let Some(lane) = self.lane(id) else { return };
        let LaneKey::Prefix(prefix) = &lane.key else { return };
        if lane.state == State::Idle && (crowded || prefix.len() > KEPT_NAME_BYTES) {
            let lane = self.slab.remove(id.place as usize);
            let LaneKey::Prefix(prefix) = &lane.key else { return };
            if prefix.len() >= LONG_PREFIX {
                self.by_digest.remove(&(lane.digest, prefix.len()));
            } else {
                self.by_prefix.remove(prefix);
            }
        }
    }

    pub(crate) fn view(&self, id: LaneId, epochs: Epochs) -> Option<LaneView<'_, B>> {
        let lane = self.slab.get(id.place as usize);
        let lane = lane.filter(|lane| lane.generation == id.generation);
        lane.map(|lane| LaneView::new(id, lane, epochs))
    }

    /// How many places for lanes there are.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.slab.capacity()).unwrap_or(u32::MAX)
    }

    /// The lanes in these places.
    pub(crate) fn iter(
        &self,
        places: Range<u32>,
        epochs: Epochs,
    ) -> impl Iterator<Item = LaneView<'_, B>> {
        places.filter_map(move |place| {
            let lane = self.slab.get(place as usize)?;
            let id = LaneId { place, generation: lane.generation };
            Some(LaneView::new(id, lane, epochs))
        })
    }

    /// Forgets what has left the lanes in these places.
    pub(crate) fn forget_done(&mut self, places: Range<u32>) {
        for place in places {
            if let Some(lane) = self.slab.get_mut(place as usize) {
                lane.done = Tally::default();
            }
        }
    }

    /// No lanes. Lanes to come have other numbers than these have had.
    pub(crate) fn successor(&self) -> Self {
        Lanes { opened: self.opened, ..Lanes::default() }
    }

    /// Everything in all lanes.
    pub(crate) fn into_slots(self) -> impl Iterator<Item = Slot<B>> {
        self.slab.into_iter().flat_map(|(_, lane)| {
            let Lane { in_flight, queue, .. } = *lane;
            in_flight.into_iter().chain(queue)
        })
    }
}

fn by_digest(long: &LongPrefix) -> (Digest, usize) {
    (long.digest(), long.bytes().len())
}
