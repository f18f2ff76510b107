//! How much memory a term takes, for the limits of a shard and its telemetry, and whether it is
//! small enough to be copied on a scheduler.
//!
//! Counts words as the VM lays them out and the bytes of every binary, on the heap or off it.
//! Small things (references, floats) count a flat amount.
//!
//! Invariant: a term is visited no further than there are words left to spend on it.

use crate::arena::Elements;
use batcher_shell::sync::age_us;
use rustler::{Binary, Env, MapIterator, Term, TermType};
use std::time::Instant;

pub(crate) const WORD: u64 = 8;
const CELL: u64 = 2;
/// What the rarer kinds of terms count.
const FLAT: u64 = 5;
/// A binary is a reference; its bytes are copied with it up to this size.
const REFERENCE: u64 = 3;
const ON_HEAP: u64 = 64;

/// Words that a scheduler visits and copies at a stretch: half a millisecond where none of them is
/// in its cache. What takes more is left to a dirty scheduler.
pub(crate) const SHORT: u64 = 16_384;

/// Whether so many bytes in one piece are too many for a scheduler.
pub(crate) fn is_long(bytes: usize) -> bool {
    bytes as u64 / WORD > SHORT
}

/// How much of a process's time slice of a millisecond visiting and copying so many words takes.
pub(crate) fn percent(words: u64) -> i32 {
    i32::try_from(words / (SHORT / 50)).unwrap_or(i32::MAX)
}

/// How much of a time slice of a millisecond has passed since then, in percent.
pub(crate) fn percent_since(started: Instant) -> i32 {
    i32::try_from(age_us(started) / 10).unwrap_or(i32::MAX)
}

/// Takes so many percent from the time slice of the calling process.
pub(crate) fn consume(env: Env<'_>, percent: i32) {
    if percent > 0 {
        rustler::schedule::consume_timeslice(env, percent.min(100));
    }
}

/// Bytes that the term takes, itself included.
pub(crate) fn bytes(term: Term<'_>) -> u64 {
    // More words than there is memory.
    bytes_within(term, &mut { u64::MAX }).unwrap_or(u64::MAX)
}

/// The same, if no more than `words` are to be copied of it; takes them from `words`.
pub(crate) fn bytes_within(term: Term<'_>, words: &mut u64) -> Option<u64> {
    let mut measure = Measure { bytes: WORD, words, containers: Vec::new() };
    measure.add_parts(term)?;
    while let Some(container) = measure.containers.pop() {
        measure.add_parts(container)?;
    }
    Some(measure.bytes)
}

/// Words that are copied of it, if they are no more than `most`.
pub(crate) fn words_within(term: Term<'_>, most: u64) -> Option<u64> {
    let mut words = most;
    bytes_within(term, &mut words).map(|_bytes| most - words)
}

/// The same of an item of a list, its cell included.
pub(crate) fn item_within(item: Term<'_>, words: &mut u64) -> Option<u64> {
    *words = words.checked_sub(CELL)?;
    // As most replies are.
    if item.is_atom() {
        return Some(CELL * WORD);
    }
    Some(CELL * WORD + bytes_within(item, words)? - WORD)
}

struct Measure<'w, 'a> {
    bytes: u64,
    /// Left to be spent.
    words: &'w mut u64,
    /// Tuples, lists and maps whose parts are still to be counted: no recursion, since a term may
    /// be nested deeper than any stack.
    containers: Vec<Term<'a>>,
}

impl<'a> Measure<'_, 'a> {
    /// These words are visited and copied. `None`: they are too many.
    fn spend(&mut self, words: u64) -> Option<()> {
        *self.words = self.words.checked_sub(words)?;
        Some(())
    }

    fn take(&mut self, words: u64) -> Option<()> {
        self.bytes += words * WORD;
        self.spend(words)
    }

    /// What commands are mostly made of is asked for first: each question is a call into the VM.
    fn add(&mut self, term: Term<'a>) -> Option<()> {
        if let Ok(binary) = Binary::from_term(term) {
            let size = binary.len() as u64;
            self.bytes += size;
            if size <= ON_HEAP {
                self.spend(size.div_ceil(WORD))?;
            }
            return self.take(REFERENCE);
        }
        if term.decode::<i64>().is_ok() {
            return Some(());
        }
        match term.get_type() {
            TermType::Atom => Some(()),
            TermType::Tuple | TermType::List | TermType::Map => {
                self.containers.push(term);
                Some(())
            }
            TermType::Integer if term.decode::<u64>().is_ok() => self.take(FLAT),
            // Nobody tells how long a number is, or what a function has closed over.
            TermType::Integer | TermType::Fun => {
                self.spend(SHORT)?;
                self.take(FLAT)
            }
            _ => self.take(FLAT),
        }
    }

    /// The same, but a tuple's elements are counted at once, as most commands and entries are tuples: nothing to
    /// remember, so nothing to allocate. Not for what stands in a tuple, or this would go as deep as that.
    fn add_flat(&mut self, term: Term<'a>) -> Option<()> {
        match Elements::of(term) {
            Some(elements) => self.add_elements(elements),
            None => self.add(term),
        }
    }

    fn add_elements(&mut self, elements: Elements<'a>) -> Option<()> {
        self.take(1 + elements.len() as u64)?;
        (0..elements.len()).try_for_each(|index| self.add(elements.at(index)))
    }

    /// What a tuple, a map or a list holds; any other term itself.
    fn add_parts(&mut self, term: Term<'a>) -> Option<()> {
        if let Some(elements) = Elements::of(term) {
            return self.add_elements(elements);
        }
        if let Some(mut pairs) = MapIterator::new(term) {
            self.take(3)?;
            return pairs.try_for_each(|(key, value)| {
                self.take(2)?;
                self.add(key)?;
                self.add(value)
            });
        }
        let mut tail = term;
        while let Ok((head, rest)) = tail.list_get_cell() {
            self.take(CELL)?;
            self.add_flat(head)?;
            tail = rest;
        }
        if tail.is_empty_list() { Some(()) } else { self.add(tail) }
    }
}
