//! The writes that the library keeps in a slot.
//!
//! Invariant: the items of all parts, one after the other, are the groups in queue order; the
//! slot's answers have one caller for each of them.

use crate::arena::{Arena, Elements, Kept, list_of};
use crate::atoms;
use batcher_core::LaneKey;
use rustler::{Atom, Encoder, Env, Term, TermType};

/// Some groups in one arena. A slot has one part, unless a long list came with its own.
#[derive(Default)]
pub(crate) struct Part {
    arena: Arena,
    items: Vec<Kept>,
}

impl Part {
    pub(crate) fn of(item: Term<'_>) -> Self {
        let mut part = Part::default();
        part.push(item);
        part
    }

    fn push(&mut self, item: Term<'_>) {
        self.items.push(self.arena.keep(item));
    }

    pub(crate) fn into_parts(self) -> (Arena, Vec<Kept>) {
        (self.arena, self.items)
    }
}

/// Which commit function fits a command, or all commands of a slot (7.2).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Empty,
    Put,
    Delete,
    Mixed,
}

impl Shape {
    /// `{:put, k, v, exp}` with binary `k` and `v` and integer `exp`; `{:delete, k}` with binary `k`.
    pub(crate) fn of(command: Term<'_>) -> Self {
        let Some(elements) = Elements::of(command) else {
            return Shape::Mixed;
        };
        let named = |name: Atom| elements.at(0).as_c_arg() == name.as_c_arg();
        match elements.len() {
            4 if named(atoms::put())
                && elements.at(1).is_binary()
                && elements.at(2).is_binary()
                && elements.at(3).get_type() == TermType::Integer =>
            {
                Shape::Put
            }
            2 if named(atoms::delete()) && elements.at(1).is_binary() => Shape::Delete,
            _ => Shape::Mixed,
        }
    }

    fn and(self, other: Shape) -> Shape {
        if self == Shape::Empty || self == other { other } else { Shape::Mixed }
    }

    /// What goes to the backend of a command in a slot of this shape.
    fn entry<'a>(self, env: Env<'a>, command: Term<'a>) -> Term<'a> {
        let Some(elements) = Elements::of(command) else {
            return command;
        };
        match self {
            Shape::Put => (elements.at(1), elements.at(2), elements.at(3)).encode(env),
            Shape::Delete => elements.at(1),
            Shape::Empty | Shape::Mixed => command,
        }
    }
}

/// A group on its way into a slot.
pub(crate) enum Item<'a> {
    /// To be copied into the slot's arena.
    Term(Term<'a>),
    /// Copied beforehand, because copying takes long.
    Part(Part),
}

/// The writes of a slot.
#[derive(Default)]
pub(crate) struct Writes {
    parts: Vec<Part>,
    pub(crate) shape: Shape,
    /// Replies that the backend must give (6.2).
    pub(crate) replies: u64,
    pub(crate) bytes: u64,
}

impl Writes {
    pub(crate) fn push(&mut self, item: Item<'_>, shape: Shape, replies: u64, bytes: u64) {
        match (item, self.parts.last_mut()) {
            (Item::Term(term), Some(part)) => part.push(term),
            (Item::Term(term), None) => self.parts.push(Part::of(term)),
            (Item::Part(part), _) => self.parts.push(part),
        }
        self.shape = self.shape.and(shape);
        self.replies += replies;
        self.bytes += bytes;
    }

    pub(crate) fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// The queued groups, for a look from outside.
    pub(crate) fn items<'a>(&self, env: Env<'a>) -> Vec<Term<'a>> {
        let copy = |part: &Part| -> Vec<Term<'a>> {
            let items = part.items.iter();
            part.arena.enter(|inside| items.map(|&kept| inside.term(kept).in_env(env)).collect())
        };
        self.parts.iter().flat_map(copy).collect()
    }
}

/// The function that commits a slot of this lane and shape (7.2, 7.3).
pub(crate) fn commit_function(lane: &LaneKey, shape: Shape) -> Atom {
    match (lane, shape) {
        (LaneKey::Put, _) | (LaneKey::Prefix(_), Shape::Put) => atoms::commit_put_batch(),
        (LaneKey::Delete, _) | (LaneKey::Prefix(_), Shape::Delete) => atoms::commit_delete_batch(),
        (LaneKey::Generic | LaneKey::Prefix(_), _) => atoms::commit_batch(),
    }
}

/// One part as the committer gets it: entries of a namespace lane, groups of a hot lane.
pub(crate) fn entries<'a>(
    inside: crate::arena::Inside<'a>,
    items: &[Kept],
    lane: &LaneKey,
    shape: Shape,
) -> Term<'a> {
    let env = inside.env();
    let terms = items.iter().map(|&kept| inside.term(kept));
    match lane {
        LaneKey::Prefix(_) => list_of(env, terms.map(|command| shape.entry(env, command))),
        _ => list_of(env, terms),
    }
}
