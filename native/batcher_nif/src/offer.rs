//! One call's writes on their way into a shard.
//!
//! Invariant: what the engine is told of a group is what its slot gets.

use crate::arena::{Arena, Kept};
use crate::beam::Shard;
use crate::caller::Caller;
use crate::writes::{GroupTerm, Shape, commit_function};
use crate::{atoms, measure};
use batcher_core::{Group, LONG_PREFIX, LaneRef, LongPrefix, Usage};
use batcher_shell::Alone;
use rustler::{Atom, Binary, Encoder, Env, NifResult, Term};
use std::time::Duration;

/// A usage, as the BEAM side measures it: command items, compound members, visits (16.3).
pub(crate) type Numbers = (u64, u64, u64);

pub(crate) fn usage((command_items, compound_members, visits): Numbers) -> Usage {
    Usage { command_items, compound_members, visits }
}

/// The arguments of an offer.
pub(crate) struct Offer<'a> {
    pub(crate) lane: Term<'a>,
    pub(crate) item: Term<'a>,
    pub(crate) count: u64,
    pub(crate) window_ms: u64,
    pub(crate) from: Term<'a>,
    pub(crate) wait_ms: Option<u64>,
    pub(crate) usage: Option<Numbers>,
}

impl<'a> Offer<'a> {
    /// On a scheduler: `:large` if that would take too long.
    pub(crate) fn make(self, env: Env<'a>, shard: &'static Shard) -> NifResult<Term<'a>> {
        if self.usage.is_none() && shard.measures() {
            return Ok(shard.refuses().map_or(atoms::measure(), atoms::refused).encode(env));
        }
        let caller = Caller::of(env, self.from)?;
        let mut words_left = measure::SHORT;
        let prefix = self.prefix();
        let is_long = prefix.as_ref().is_some_and(|prefix| measure::is_long(prefix.len()));
        let (Some(bytes), false) = (measure::bytes_within(self.item, &mut words_left), is_long)
        else {
            return Ok(atoms::large().encode(env));
        };
        let words = measure::SHORT - words_left;
        let Some(tag_bytes) = caller.bytes_within(&mut words_left) else {
            return Ok(atoms::large().encode(env));
        };
        measure::consume(env, measure::percent(words));
        let item = GroupTerm::of(self.item, words, bytes);
        self.queue(env, shard, prefix, caller, (tag_bytes, None), item)
    }

    /// On a dirty scheduler: what is large is copied before the lock is taken.
    pub(crate) fn make_large(self, env: Env<'a>, shard: &'static Shard) -> NifResult<Term<'a>> {
        let caller = Caller::of(env, self.from)?;
        let tag = match caller.bytes_within(&mut { measure::SHORT }) {
            Some(bytes) => (bytes, None),
            None => (measure::bytes(self.from), Some(caller.copy_tag())),
        };
        let item = GroupTerm::large(self.item);
        let prefix = self.prefix();
        self.queue(env, shard, prefix, caller, tag, item)
    }

    /// The name of a namespace lane.
    fn prefix(&self) -> Option<Binary<'a>> {
        Binary::from_term(self.lane).ok()
    }

    /// `tag`: how many bytes the caller's takes, and a copy of it, if it takes long to copy.
    fn queue(
        self,
        env: Env<'a>,
        shard: &'static Shard,
        prefix: Option<Binary<'a>>,
        caller: Caller<'a>,
        (tag_bytes, tag): (u64, Option<(Arena, Kept)>),
        item: GroupTerm<'a>,
    ) -> NifResult<Term<'a>> {
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
        let cost = if namespace { 1 } else { self.count };
        let shape = if namespace { Shape::of(item.term) } else { Shape::Mixed };
        let bare = (namespace || single) && self.count == 1;
        let window = Duration::from_millis(self.window_ms);
        let wait = self.wait_ms.map(Duration::from_millis);
        let usage = self.usage.map_or_else(Usage::default, usage);
        let name_bytes = prefix.as_ref().map_or(0, |prefix| prefix.len() as u64);
        let bytes = item.bytes.saturating_add(tag_bytes).saturating_add(name_bytes);
        let waits = self.wait_ms.is_some();
        // Where lanes are committed by themselves nobody looks, and what is queued may meet another scope yet.
        let apart = matches!(lane, LaneRef::Put | LaneRef::Delete)
            && !(shard.commits_together() && is_plain(lane, item.term));
        let group = Group { cost, bytes, writer: caller.writer(), usage, waits, apart };
        let told_bytes = item.bytes;
        let queued = shard.offer(env, lane, group, window, wait, |contents, until| {
            contents.writes.push(item, shape, self.count);
            contents.answers.add(caller, tag, until, self.count, bare);
        });
        Ok(match queued {
            Ok(None) => atoms::queued().encode(env),
            Ok(Some(Alone(permit))) => {
                let function = commit_function(lane, shape);
                (atoms::alone(), permit, told_bytes, function).encode(env)
            }
            Err(refused) => atoms::refused(refused).encode(env),
        })
    }
}

fn hot_lane(name: Term<'_>) -> NifResult<LaneRef<'static>> {
    let name: Atom = name.decode()?;
    atoms::one_of(
        name,
        [
            (atoms::batch(), LaneRef::Generic),
            (atoms::put_batch(), LaneRef::Put),
            (atoms::delete_batch(), LaneRef::Delete),
        ],
    )
}

/// Whether what a group holds can stand among commands: entries and keys do if they are what these are made of (4.4).
fn is_plain(lane: LaneRef<'_>, list: Term<'_>) -> bool {
    let is_binary = |term: Term<'_>| term.is_binary();
    let is_entry = |term: Term<'_>| {
        rustler::types::tuple::get_tuple(term).is_ok_and(|it| it.len() == 3 && is_binary(it[0]))
    };
    let all = |is: &dyn Fn(Term<'_>) -> bool| {
        list.into_list_iterator().is_ok_and(|mut items| items.all(is))
    };
    match lane {
        LaneRef::Put => all(&is_entry),
        LaneRef::Delete => all(&is_binary),
        LaneRef::Prefix(_) | LaneRef::Long(_) | LaneRef::Generic => true,
    }
}
