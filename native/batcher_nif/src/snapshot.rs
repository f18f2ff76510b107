//! A look at a shard from outside.

use crate::atoms;
use crate::committer::lane_term;
use crate::host::Beam;
use batcher_core::{LaneView, Slot, Work};
use batcher_shell::{Contents, State};
use rustler::types::atom::nil;
use rustler::{Encoder, Env, Term};

/// `[{lane, [{items, froms, weight, window_ms, age_us, work}], committer | nil}]`, `work` as three numbers, `:not_running` for
/// a closed shard.
pub(crate) fn lanes<'a>(env: Env<'a>, state: &State<Beam>) -> Term<'a> {
    if state.is_closed() {
        return atoms::not_running().encode(env);
    }
    let look = |lane: LaneView<'_, Contents<Beam>>| {
        let slots: Vec<Term<'a>> = lane.queue().map(|slot| slot_term(env, slot)).collect();
        let committer = match lane.in_flight().and_then(|_| state.committer_of(lane.id())) {
            Some(committer) => committer.encode(env),
            None => nil().encode(env),
        };
        (lane_term(env, lane.key()), slots, committer).encode(env)
    };
    state.lanes().map(look).collect::<Vec<_>>().encode(env)
}

fn slot_term<'a>(env: Env<'a>, slot: &Slot<Contents<Beam>>) -> Term<'a> {
    let held = slot.contents.lock();
    let (items, froms) = (held.writes.items(env), held.answers.froms(env));
    let age_us = slot.opened.elapsed().as_micros() as u64;
    let Work { command_items, compound_members, visits } = slot.work;
    let work = (command_items, compound_members, visits);
    (items, froms, slot.weight, slot.window.as_millis() as u64, age_us, work).encode(env)
}
