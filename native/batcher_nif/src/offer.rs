//! One call's writes on their way into a shard.
//!
//! Invariant: what the engine is told of a group is what its slot gets.

use crate::arena::{Arena, Kept};
use crate::atoms;
use crate::beam::Shard;
use crate::caller::Caller;
use crate::writes::{Item, Shape};
use batcher_core::{Group, LONG_PREFIX, LaneRef, LongPrefix, Usage};
use rustler::{Atom, Binary, Env, Error, NifResult, Term};
use std::time::Duration;

/// A usage, as the BEAM side measures it: command items, compound members, visits (16.3).
pub(crate) type Numbers = (u64, u64, u64);

pub(crate) fn usage((command_items, compound_members, visits): Numbers) -> Usage {
    Usage { command_items, compound_members, visits }
}

/// The arguments of an offer.
pub(crate) struct Offer<'a> {
    pub(crate) shard: Option<&'static Shard>,
    pub(crate) lane: Term<'a>,
    pub(crate) count: u64,
    pub(crate) window_ms: u64,
    pub(crate) caller: Caller<'a>,
    pub(crate) wait_ms: Option<u64>,
    pub(crate) usage: Option<Numbers>,
    /// What the tag of the caller takes.
    pub(crate) tag_bytes: u64,
    /// A copy of it, if it takes long to copy.
    pub(crate) tag: Option<(Arena, Kept)>,
}

impl<'a> Offer<'a> {
    /// `term` takes this many `bytes`; `item` is it, or its copy.
    pub(crate) fn make(
        self,
        env: Env<'a>,
        term: Term<'a>,
        bytes: u64,
        item: Item<'a>,
    ) -> NifResult<Atom> {
        let Some(shard) = self.shard else {
            return Ok(atoms::not_running());
        };
        let prefix = self.lane.decode::<Binary>().ok();
        // One command whose reply is to be bare, as in a namespace lane (16.1).
        let single = atoms::single() == self.lane;
        let long = prefix.as_ref().filter(|prefix| prefix.len() >= LONG_PREFIX);
        let long = long.map(|prefix| LongPrefix::new(prefix));
        let lane = match (&prefix, &long) {
            (_, Some(long)) => LaneRef::Long(long),
            (Some(prefix), None) => LaneRef::Prefix(prefix),
            (None, None) if single => LaneRef::Generic,
            (None, None) => hot_lane(self.lane)?,
        };
        let namespace = prefix.is_some();
        let weight = if namespace { 1 } else { self.count };
        let shape = if namespace { Shape::of(term) } else { Shape::Mixed };
        let bare = (namespace || single) && self.count == 1;
        let window = Duration::from_millis(self.window_ms);
        let wait = self.wait_ms.map(Duration::from_millis);
        let usage = self.usage.map_or_else(Usage::default, usage);
        let name_bytes = prefix.as_ref().map_or(0, |prefix| prefix.len() as u64);
        let held = bytes.saturating_add(self.tag_bytes).saturating_add(name_bytes);
        let group =
            Group { weight, bytes: held, writer: self.caller.writer(), usage, ..Group::default() };
        let queued = shard.offer(env, lane, group, window, wait, |contents, until| {
            contents.writes.push(item, shape, self.count, bytes);
            contents.answers.add(self.caller, self.tag, until, self.count, bare);
        });
        Ok(match queued {
            Ok(()) => atoms::queued(),
            Err(refused) => atoms::refused(refused),
        })
    }
}

fn hot_lane(name: Term<'_>) -> NifResult<LaneRef<'static>> {
    let name: Atom = name.decode()?;
    let lanes = [
        (atoms::batch(), LaneRef::Generic),
        (atoms::put_batch(), LaneRef::Put),
        (atoms::delete_batch(), LaneRef::Delete),
    ];
    let lane = lanes.into_iter().find(|&(atom, _)| atom == name);
    lane.map(|(_, lane)| lane).ok_or(Error::BadArg)
}
