//! The writes that the library keeps in a slot.
//!
//! Invariant: the items of all parts, one after the other, are the groups in queue order, large
//! lists cut into several; the slot's answers have one caller for each group.

use crate::arena::{Arena, Elements, Kept, list_of};
use crate::{atoms, measure};
use batcher_core::{LaneKey, LaneRef};
use batcher_shell::KEPT;
use rustler::{Atom, Encoder, Env, LocalPid, Term, TermType};

/// Words of one part of a large list. A process that receives a message goes through all its binaries
/// at a stretch: this many take a third of a millisecond.
const PART: u64 = 8 * measure::SHORT;
/// So many items, or so many bytes, are copied under one lock for a look from outside.
const COPIED_AT_ONCE: usize = 256;
const COPIED_BYTES_AT_ONCE: u64 = 65_536;
/// Words of an item that takes longer to copy than an arena of its own takes to make and to send.
const WORTH_AN_ARENA: u64 = 400;

/// Some groups in one arena. A slot has one part, unless an item came with its own. What each write changes comes first.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Part {
    arena: Arena,
    items: Vec<Kept>,
    /// What the items take.
    pub(crate) bytes: u64,
    /// The first item goes on with the list that the part before it ends with.
    goes_on: bool,
}

impl Part {
    fn of(item: Term<'_>, bytes: u64) -> Self {
        let mut part = Part::default();
        part.push(item, bytes);
        part
    }

    fn push(&mut self, item: Term<'_>, bytes: u64) {
        self.items.push(self.arena.keep(item));
        self.bytes += bytes;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds copies of its items, and leaves it empty.
    fn copy<'a>(&mut self, env: Env<'a>, items: &mut Vec<Term<'a>>) {
        self.arena.enter(|inside| {
            items.extend(self.items.iter().map(|&kept| inside.term(kept).in_env(env)));
        });
        self.arena.clear();
        self.clear();
    }

    /// Sends a message made of its items, and leaves it empty.
    pub(crate) fn send(
        &mut self,
        sender: Env<'_>,
        to: LocalPid,
        build: impl for<'a> FnOnce(Env<'a>, &mut dyn Iterator<Item = Term<'a>>) -> Term<'a>,
    ) {
        // If it is being killed, its batch is known to be its own.
        let _ = self.arena.send(Some(sender), to, |inside| {
            build(inside.env(), &mut self.items.iter().map(|&kept| inside.term(kept)))
        });
        self.clear();
    }

    fn clear(&mut self) {
        self.items.clear();
        self.items.shrink_to(KEPT);
        self.bytes = 0;
        self.goes_on = false;
    }
}

/// The first elements of a list, at least one, what they take, and the elements behind them.
fn cut(list: Term<'_>) -> Option<(Vec<Term<'_>>, u64, Term<'_>)> {
    let mut piece = Vec::new();
    let mut bytes = 0;
    let mut words = PART;
    let mut rest = list;
    while let Ok((head, tail)) = rest.list_get_cell() {
        bytes += match measure::item_within(head, &mut words) {
            Some(bytes) => bytes,
            None if piece.is_empty() => measure::WORD + measure::bytes(head),
            None => break,
        };
        piece.push(head);
        rest = tail;
    }
    (!piece.is_empty()).then_some((piece, bytes, rest))
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
pub(crate) struct GroupTerm<'a> {
    pub(crate) term: Term<'a>,
    /// What it takes.
    pub(crate) bytes: u64,
    /// Its copy, if it was copied beforehand, because that takes long.
    parts: Option<Vec<Part>>,
}

impl<'a> GroupTerm<'a> {
    /// One of so many words, few enough to be copied on a scheduler.
    pub(crate) fn of(term: Term<'a>, words: u64, bytes: u64) -> Self {
        let parts = (words >= WORTH_AN_ARENA).then(|| vec![Part::of(term, bytes)]);
        GroupTerm { term, bytes, parts }
    }

    /// One that is too large for that: a list is copied in as many parts as it needs, anything else in one.
    pub(crate) fn large(term: Term<'a>) -> Self {
        let mut parts = Vec::new();
        let mut bytes = measure::WORD;
        let mut rest = term;
        while let Some((piece, piece_bytes, behind)) = cut(rest) {
            let mut arena = Arena::default();
            let items = vec![arena.keep(list_of(term.get_env(), piece.into_iter()))];
            parts.push(Part { arena, items, bytes: piece_bytes, goes_on: !parts.is_empty() });
            bytes += piece_bytes;
            rest = behind;
        }
        if parts.is_empty() {
            bytes = measure::bytes(term);
            parts.push(Part::of(term, bytes));
        }
        GroupTerm { term, bytes, parts: Some(parts) }
    }
}

/// The writes of a slot. What each write changes comes first.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Writes {
    /// The part that takes what comes next.
    last: Option<Part>,
    /// Replies that the backend must give (6.2).
    pub(crate) replies: u64,
    pub(crate) bytes: u64,
    pub(crate) shape: Shape,
    /// Some of them came as copies, since to copy them takes long.
    pub(crate) came_copied: bool,
    /// The parts before the last.
    parts: Vec<Part>,
}

impl Writes {
    pub(crate) fn push(&mut self, item: GroupTerm<'_>, shape: Shape, replies: u64) {
        match item.parts {
            None => self.last.get_or_insert_default().push(item.term, item.bytes),
            Some(parts) => {
                self.came_copied = true;
                self.parts.extend(self.last.take().into_iter().chain(parts));
                self.last = self.parts.pop();
            }
        }
        self.shape = self.shape.and(shape);
        self.replies += replies;
        self.bytes += item.bytes;
    }

    /// How many messages they are.
    pub(crate) fn messages(&self) -> usize {
        self.parts.len() + 1
    }

    /// The last part, and the parts before it.
    pub(crate) fn parts(&mut self) -> (&mut Part, &mut [Part]) {
        (self.last.get_or_insert_default(), &mut self.parts)
    }

    /// The items of all parts, copied, and leaves these empty.
    pub(crate) fn copy<'a>(&mut self, env: Env<'a>) -> Vec<Term<'a>> {
        let mut items = Vec::new();
        for part in self.parts.iter_mut().chain(&mut self.last) {
            part.copy(env, &mut items);
        }
        items
    }

    /// All parts are empty: keeps the memory of the last one.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.parts.shrink_to(KEPT);
        (self.replies, self.bytes, self.shape) = (0, 0, Shape::Empty);
        self.came_copied = false;
    }

    /// How many parts there are, and how many items are in the last of them. What comes later stands behind that.
    pub(crate) fn end(&self) -> (usize, usize) {
        let items = self.last.as_ref().map_or(0, |part| part.items.len());
        (self.parts.len(), items)
    }
}

/// Groups that are copied for a look from outside, some at a time.
pub(crate) struct Copied<'a> {
    env: Env<'a>,
    /// The pieces of each.
    groups: Vec<Vec<Term<'a>>>,
    /// The part and the item in it that come next.
    next: (usize, usize),
    /// See [`Writes::end`].
    end: (usize, usize),
}

impl<'a> Copied<'a> {
    pub(crate) fn new(env: Env<'a>, end: (usize, usize)) -> Self {
        Copied { env, groups: Vec::new(), next: (0, 0), end }
    }

    /// Copies some more. True: there are more.
    pub(crate) fn go_on(&mut self, writes: &Writes) -> bool {
        let (mut items, mut bytes) = (0, 0);
        while self.next < self.end && items < COPIED_AT_ONCE && bytes < COPIED_BYTES_AT_ONCE {
            let (place, first) = self.next;
            let part = writes.parts.get(place).or(writes.last.as_ref());
            let Some(part) = part.filter(|part| first < part.items.len()) else {
                self.next = (place + 1, 0);
                continue;
            };
            let kept = part.items[first];
            let term = part.arena.enter(|inside| inside.term(kept).in_env(self.env));
            match self.groups.last_mut().filter(|_| part.goes_on && first == 0) {
                Some(group) => group.push(term),
                None => self.groups.push(vec![term]),
            }
            self.next = (place, first + 1);
            items += 1;
            bytes += part.bytes / part.items.len() as u64;
        }
        self.next < self.end
    }

    pub(crate) fn groups(self) -> Vec<Term<'a>> {
        let Copied { env, groups, .. } = self;
        groups.into_iter().map(|pieces| join(env, pieces)).collect()
    }
}

/// A group of its pieces.
fn join<'a>(env: Env<'a>, pieces: Vec<Term<'a>>) -> Term<'a> {
    match pieces[..] {
        [whole] => whole,
        _ => list_of(
            env,
            pieces.into_iter().filter_map(|piece| piece.into_list_iterator().ok()).flatten(),
        ),
    }
}

/// The function that commits a slot of this lane and shape (7.2, 7.3).
pub(crate) fn commit_function(lane: LaneRef<'_>, shape: Shape) -> Atom {
    match (lane, shape) {
        (LaneRef::Put, _) => atoms::commit_put_batch(),
        (LaneRef::Delete, _) => atoms::commit_delete_batch(),
        (LaneRef::Generic, _) => atoms::commit_batch(),
        (LaneRef::Prefix(_) | LaneRef::Long(_), Shape::Put) => atoms::commit_put_batch(),
        (LaneRef::Prefix(_) | LaneRef::Long(_), Shape::Delete) => atoms::commit_delete_batch(),
        (LaneRef::Prefix(_) | LaneRef::Long(_), _) => atoms::commit_batch(),
    }
}

/// One part as the committer gets it: entries of a namespace lane, groups of a hot lane.
pub(crate) fn entries<'a>(
    env: Env<'a>,
    terms: impl Iterator<Item = Term<'a>>,
    lane: &LaneKey,
    shape: Shape,
) -> Term<'a> {
    match lane {
        LaneKey::Prefix(_) => list_of(env, terms.map(|command| shape.entry(env, command))),
        _ => list_of(env, terms),
    }
}
