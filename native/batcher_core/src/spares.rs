//! What slots have held that are done, emptied: slots to come get it, and its memory with it.
//!
//! Invariant: a bounded number is kept, of spares with memory for many groups a few.

/// Above this a slot holds many groups.
const FEW: u64 = 32;
/// So many are kept that have held few at most: two for each lane of a commit of 64.
const SMALL: usize = 128;
/// So many of the others.
const LARGE: usize = 4;

#[derive(Debug)]
pub(crate) struct Spares<B> {
    small: Vec<B>,
    large: Vec<B>,
}

impl<B> Default for Spares<B> {
    fn default() -> Self {
        Spares { small: Vec::new(), large: Vec::new() }
    }
}

impl<B> Spares<B> {
    /// One for a slot that may come to hold so many groups.
    pub(crate) fn take(&mut self, groups: u64) -> Option<B> {
        let (fitting, others) = match groups > FEW {
            true => (&mut self.large, &mut self.small),
            false => (&mut self.small, &mut self.large),
        };
        fitting.pop().or_else(|| others.pop())
    }

    /// One that has held so many groups at most. Returned if there are enough of these.
    pub(crate) fn keep(&mut self, contents: B, groups: u64) -> Option<B> {
        let (kept, most) = match groups > FEW {
            true => (&mut self.large, LARGE),
            false => (&mut self.small, SMALL),
        };
        if kept.len() == most {
            return Some(contents);
        }
        kept.push(contents);
        None
    }
}
