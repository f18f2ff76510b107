//! The lanes of a shard by name and by number.
//!
//! Invariant: every lane that holds something is here; of those that hold nothing only a bounded
//! number with short names is kept, so that prefixes that come once cost nothing later.

use crate::lane::{Lane, LaneId, LaneKey, LaneRef, LaneView, State};
use foldhash::fast::RandomState;
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// Above this many lanes an idle one is dropped.
const KEPT_LANES: usize = 1024;
/// An idle lane with a longer name is dropped.
const KEPT_NAME_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct Lanes<B> {
    slab: Slab<Lane<B>>,
    by_prefix: HashMap<Arc<[u8]>, LaneId, RandomState>,
    generic: Option<LaneId>,
    put: Option<LaneId>,
    delete: Option<LaneId>,
}

impl<B> Default for Lanes<B> {
    fn default() -> Self {
        Lanes {
            slab: Slab::new(),
            by_prefix: HashMap::default(),
            generic: None,
            put: None,
            delete: None,
        }
    }
}

impl<B> Lanes<B> {
    fn find(&self, name: LaneRef<'_>) -> Option<LaneId> {
        match name {
            LaneRef::Prefix(prefix) => self.by_prefix.get(prefix).copied(),
            LaneRef::Generic => self.generic,
            LaneRef::Put => self.put,
            LaneRef::Delete => self.delete,
        }
    }

    pub(crate) fn find_or_open(&mut self, name: LaneRef<'_>) -> LaneId {
        if let Some(id) = self.find(name) {
            return id;
        }
        // 2^32 lanes would need hundreds of gigabytes: memory ends before the numbers do.
        let entry = self.slab.vacant_entry();
        let id = LaneId(entry.key() as u32);
        let key = name.to_key();
        match &key {
            LaneKey::Prefix(prefix) => {
                self.by_prefix.insert(Arc::clone(prefix), id);
            }
            LaneKey::Generic => self.generic = Some(id),
            LaneKey::Put => self.put = Some(id),
            LaneKey::Delete => self.delete = Some(id),
        }
        entry.insert(Lane::new(key));
        id
    }

    pub(crate) fn lane(&mut self, id: LaneId) -> Option<&mut Lane<B>> {
        self.slab.get_mut(id.0 as usize)
    }

    /// Drops a lane that holds nothing, unless it may be kept for its next write.
    pub(crate) fn rest(&mut self, id: LaneId) {
        let crowded = self.slab.len() > KEPT_LANES;
        let Some(lane) = self.slab.get(id.0 as usize) else {
            return;
        };
        let LaneKey::Prefix(prefix) = &lane.key else {
            return;
        };
        if lane.state == State::Idle && (crowded || prefix.len() > KEPT_NAME_BYTES) {
            self.by_prefix.remove(prefix);
            self.slab.remove(id.0 as usize);
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LaneId> + use<B> {
        let ids: Vec<LaneId> = self.slab.iter().map(|(id, _)| LaneId(id as u32)).collect();
        ids.into_iter()
    }

    pub(crate) fn view(&self, id: LaneId) -> Option<LaneView<'_, B>> {
        self.slab.get(id.0 as usize).map(|lane| LaneView::new(id, lane))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = LaneView<'_, B>> {
        self.slab.iter().map(|(id, lane)| LaneView::new(LaneId(id as u32), lane))
    }
}

impl<B> Lanes<B> {
    pub(crate) fn into_contents(self) -> impl Iterator<Item = B> {
        let slots = |(_, lane): (usize, Lane<B>)| lane.in_flight.into_iter().chain(lane.queue);
        self.slab.into_iter().flat_map(slots).map(|slot| slot.contents)
    }
}
