//! Barriers: flushes and stops that wait until everything accepted so far has been answered (11.1).
//!
//! Time is cut into *epochs*: a barrier ends one, and what is accepted afterwards is of the next one.
//! Invariant: each epoch counts the slots that were opened in it and have not been answered; its
//! barriers pass when it and all earlier epochs of its life count none.

use std::collections::{BTreeMap, VecDeque};

/// Names a flush or a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BarrierId(pub u64);

/// The open barriers of a shard.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    next: u64,
    life: Life,
    /// Earlier lives with commits in flight or abandoned slots, by their first epochs.
    closed: BTreeMap<u64, Life>,
    done: VecDeque<BarrierId>,
}

/// The epochs between an owner that starts anew and the next one that does.
#[derive(Debug)]
struct Life {
    /// The number of its first epoch.
    from: u64,
    /// The number of the first epoch that is still here.
    first: u64,
    /// Never empty: slots are opened in the last one, which no barrier has ended.
    epochs: VecDeque<Epoch>,
}

#[derive(Debug, Default)]
struct Epoch {
    unanswered: u64,
    barriers: Vec<BarrierId>,
}

impl Default for Life {
    fn default() -> Self {
        Life::new(0)
    }
}

impl Life {
    fn new(from: u64) -> Self {
        Life { from, first: from, epochs: VecDeque::from([Epoch::default()]) }
    }

    fn epoch(&self) -> u64 {
        self.first + self.epochs.len() as u64 - 1
    }

    fn last(&mut self) -> &mut Epoch {
        self.epochs.back_mut().expect("a life has an epoch")
    }

    /// Epochs that ended and count nothing are over.
    fn settle(&mut self, done: &mut VecDeque<BarrierId>) {
        while self.epochs.len() > 1 && self.epochs[0].unanswered == 0 {
            self.end_first(done);
        }
    }

    #[cold]
    fn end_first(&mut self, done: &mut VecDeque<BarrierId>) {
        let over = self.epochs.pop_front();
        self.first += 1;
        done.extend(over.into_iter().flat_map(|epoch| epoch.barriers));
    }

    fn is_over(&self) -> bool {
        self.epochs.iter().all(|epoch| epoch.unanswered == 0)
    }
}

impl Barriers {
    /// No barriers. Barriers to come have other numbers than these have had.
    pub(crate) fn successor(&self) -> Self {
        Barriers { next: self.next, ..Barriers::default() }
    }

    /// The epoch in which slots are opened now.
    pub(crate) fn epoch(&self) -> u64 {
        self.life.epoch()
    }

    /// A slot was opened.
    pub(crate) fn opened(&mut self) {
        self.life.last().unanswered += 1;
    }

    /// A slot that was opened in this epoch has been answered.
    pub(crate) fn answered(&mut self, epoch: u64) {
        let closed = &mut self.closed;
        let is_closed = epoch < self.life.from;
        let life = match is_closed {
            false => &mut self.life,
            true => closed.range_mut(..=epoch).next_back().expect("a life is kept until then").1,
        };
        let index = usize::try_from(epoch - life.first).expect("as many as are kept");
        life.epochs[index].unanswered -= 1;
        life.settle(&mut self.done);
        if is_closed && life.is_over() {
            let from = life.from;
            closed.remove(&from);
        }
    }

    /// A new barrier, which waits for what has been opened in this life.
    pub(crate) fn open(&mut self) -> BarrierId {
        let id = BarrierId(self.next);
        self.next += 1;
        self.life.last().barriers.push(id);
        self.end_epoch();
        id
    }

    /// What was opened until now is of an earlier epoch than what comes.
    pub(crate) fn end_epoch(&mut self) {
        self.life.epochs.push_back(Epoch::default());
        self.life.settle(&mut self.done);
    }

    /// Barriers from here on wait for nothing that was opened until now.
    pub(crate) fn start_life(&mut self) {
        let next = Life::new(self.epoch() + 1);
        let life = std::mem::replace(&mut self.life, next);
        if !life.is_over() {
            self.closed.insert(life.from, life);
        }
    }

    /// The next barrier that is done.
    pub(crate) fn poll(&mut self) -> Option<BarrierId> {
        self.done.pop_front()
    }
}
