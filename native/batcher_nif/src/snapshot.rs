//! A look at a shard from outside.

use crate::atoms;
use crate::beam::{Beam, Shard};
use crate::committer::lane_term;
use batcher_core::{LaneKey, Slot, Usage};
use batcher_shell::sync::{micros, millis};
use batcher_shell::{Batch, LaneLook};
use rustler::{Encoder, Env, Term};

/// `[{lane, [{items, froms, weight, window_ms, age_us, usage}], committer | nil}]`, `usage` as three numbers,
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

/// `None` if it has left meanwhile.
fn slot_term<'a>(env: Env<'a>, lane: &LaneKey, slot: &Slot<Batch<Beam>>) -> Option<Term<'a>> {
    let contents = slot.contents.lock();
    if contents.taken {
        return None;
    }
    let (items, froms) = (contents.writes.items(env), contents.answers.froms(env));
    let weight = contents.answers.weight(lane);
    let Usage { command_items, compound_members, visits } = slot.usage;
    let usage = (command_items, compound_members, visits);
    let (window_ms, age_us) = (millis(slot.window), micros(slot.opened.elapsed()));
    Some((items, froms, weight, window_ms, age_us, usage).encode(env))
}
