//! A look at a shard from outside.

use crate::atoms;
use crate::beam::{Beam, Shard};
use crate::committer::lane_term;
use crate::writes::Copied;
use batcher_core::{LaneKey, Slot, Usage};
use batcher_shell::sync::{micros, millis};
use batcher_shell::{Batch, LaneLook};
use rustler::{Encoder, Env, Term};

/// `[{lane, [{items, froms, cost, window_ms, age_us, usage}], committer | nil}]`, `usage` as three numbers,
/// `:not_running` for a closed shard. A write that is alone has no committer: a new reference stands for one.
pub(crate) fn lanes<'a>(env: Env<'a>, shard: &'static Shard) -> Term<'a> {
    let Some(lanes) = shard.lanes() else { return atoms::not_running().encode(env) };
    let look = |lane: LaneLook<Beam>| {
        let slots = lane.queue.iter().filter_map(|slot| slot_term(env, &lane.lane, slot));
        let slots: Vec<Term<'a>> = slots.collect();
        // Asked last: what has left the queue since is in flight, or answered.
        let committer = match shard.committer_of(lane.id) {
            None if shard.is_alone(env, lane.id) => Some(env.make_ref().encode(env)),
            committer => committer.map(|committer| committer.encode(env)),
        };
        (lane_term(env, &lane.lane), slots, committer).encode(env)
    };
    lanes.into_iter().map(look).collect::<Vec<_>>().encode(env)
}

/// So many callers are copied under one lock.
const FROMS_AT_ONCE: usize = 256;

/// `None` if it has left meanwhile. Copied in steps, since others write to the slot; what comes later is not seen.
fn slot_term<'a>(env: Env<'a>, lane: &LaneKey, slot: &Slot<Batch<Beam>>) -> Option<Term<'a>> {
    let queued = || Some(slot.contents.lock()).filter(|contents| !contents.taken);
    let first = queued()?;
    let mut copied = Copied::new(env, first.writes.end());
    let (callers, cost) = (first.answers.len(), first.answers.cost(lane));
    drop(first);
    while copied.go_on(&queued()?.writes) {}
    let items = copied.groups();
    let mut froms = Vec::with_capacity(callers);
    while froms.len() < callers {
        let next = froms.len()..callers.min(froms.len() + FROMS_AT_ONCE);
        froms.extend(queued()?.answers.froms(env, next));
    }
    let Usage { command_items, compound_members, visits } = slot.usage;
    let usage = (command_items, compound_members, visits);
    let (window_ms, age_us) = (millis(slot.window), micros(slot.opened.elapsed()));
    Some((items, froms, cost, window_ms, age_us, usage).encode(env))
}
