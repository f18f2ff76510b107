//! How much memory a term takes, for the limits of a shard and its telemetry.
//!
//! Counts words as the VM lays them out and the bytes of every binary, on the heap or off it.
//! Small things of little weight (big integers, references, funs) count a flat amount.

use crate::arena::Elements;
use rustler::{Binary, MapIterator, Term, TermType};

const WORD: u64 = 8;
/// What the rarer kinds of terms count.
const FLAT: u64 = 5 * WORD;

/// Bytes that the term takes, itself included.
pub(crate) fn bytes(term: Term<'_>) -> u64 {
    let mut measure = Measure { total: WORD, containers: Vec::new() };
    measure.add(term);
    while let Some(container) = measure.containers.pop() {
        measure.add_parts(container);
    }
    measure.total
}

struct Measure<'a> {
    total: u64,
    /// Tuples, lists and maps whose parts are still to be counted: no recursion, since a term may
    /// be nested deeper than any stack.
    containers: Vec<Term<'a>>,
}

impl<'a> Measure<'a> {
    fn add(&mut self, term: Term<'a>) {
        self.total += match term.get_type() {
            TermType::Atom => 0,
            TermType::Integer if term.decode::<i64>().is_ok() => 0,
            TermType::Binary => match Binary::from_term(term) {
                Ok(binary) => 3 * WORD + binary.len() as u64,
                Err(_) => FLAT,
            },
            TermType::Tuple | TermType::List | TermType::Map => {
                self.containers.push(term);
                0
            }
            _ => FLAT,
        }
    }

    fn add_parts(&mut self, container: Term<'a>) {
        if let Some(elements) = Elements::of(container) {
            self.total += WORD * (1 + elements.len() as u64);
            (0..elements.len()).for_each(|index| self.add(elements.at(index)));
        } else if let Some(pairs) = MapIterator::new(container) {
            self.total += 3 * WORD;
            for (key, value) in pairs {
                self.total += 2 * WORD;
                self.add(key);
                self.add(value);
            }
        } else {
            let mut tail = container;
            while let Ok((head, rest)) = tail.list_get_cell() {
                self.total += 2 * WORD;
                self.add(head);
                tail = rest;
            }
            if !tail.is_empty_list() {
                self.add(tail);
            }
        }
    }
}
