//! The committers of the models, which are woken through a queue that their crew shares.
//!
//! Invariant: what only records, as the number of batches in flight, is none of loom's, so that it adds no orders to try.

use crate::vm::{Caller, Model, Shard, answer};
use batcher_shell::{Alone, Ended, Flight, Taken, Verdict, WorkerId};
use loom::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A process that commits. In a model one commit is in flight at a time.
pub(crate) struct Committer {
    id: WorkerId,
    crew: Arc<Crew>,
}

impl Committer {
    pub(crate) fn is(&self, id: WorkerId) -> bool {
        self.id == id
    }

    pub(crate) fn wake(&self) {
        self.crew.woken.lock().unwrap().push_back(self.id);
        self.crew.arrived.notify_one();
    }
}

/// The committers of a model.
pub(crate) struct Crew {
    /// Those that have been woken, in order.
    woken: Mutex<VecDeque<WorkerId>>,
    arrived: Condvar,
    in_flight: AtomicUsize,
}

impl Crew {
    /// Committers of these numbers join the shard.
    pub(crate) fn join(shard: &'static Shard, numbers: &[u64]) -> Arc<Self> {
        let (woken, arrived) = Default::default();
        let crew = Arc::new(Crew { woken, arrived, in_flight: AtomicUsize::new(0) });
        numbers.iter().for_each(|&number| crew.join_one(shard, number));
        crew
    }

    pub(crate) fn join_one(self: &Arc<Self>, shard: &'static Shard, number: u64) {
        let id = WorkerId(number);
        shard.join((), id, Arc::new(Committer { id, crew: Arc::clone(self) }));
    }

    fn next_woken(&self) -> WorkerId {
        let mut woken = self.woken.lock().unwrap();
        loop {
            if let Some(id) = woken.pop_front() {
                return id;
            }
            woken = self.arrived.wait(woken).unwrap();
        }
    }

    /// Waits until a committer is woken, which works until nothing is left to take. Returns whose writes were
    /// committed.
    pub(crate) fn work(&self, shard: &'static Shard) -> Vec<Arc<Caller>> {
        self.work_as(self.next_woken(), shard)
    }

    fn work_as(&self, id: WorkerId, shard: &'static Shard) -> Vec<Arc<Caller>> {
        let mut committed = Vec::new();
        loop {
            match shard.take((), id, Ended::default()) {
                Taken::Commit(flights) => {
                    self.begin();
                    let writes = self.answer(&flights);
                    let is_one = writes.len() == 1;
                    committed.extend(writes);
                    drop(flights);
                    let ended =
                        Ended { answered: Some(batcher_shell::sync::now()), ..Ended::default() };
                    // Behind several it asks, as a committer does.
                    if is_one && shard.rest((), id, ended) {
                        return committed;
                    }
                }
                Taken::Answer(flights, _reply) => drop(self.answer(&flights)),
                Taken::Send(callers) => {
                    callers.lock().drain(..).for_each(|caller| caller.reply());
                }
                Taken::Rest | Taken::Leave => return committed,
            }
        }
    }

    fn begin(&self) {
        assert_eq!(self.in_flight.fetch_add(1, Relaxed), 0, "one in flight");
    }

    /// A caller commits its own write, and the next commit may begin.
    pub(crate) fn commit_alone(&self, shard: &'static Shard, caller: &Caller, alone: Alone) {
        self.begin();
        caller.reply();
        self.in_flight.fetch_sub(1, Relaxed);
        shard.give_back(Some(()), alone, Verdict::Ok);
    }

    /// Returns whose writes these were.
    fn answer(&self, flights: &[Flight<Model>]) -> Vec<Arc<Caller>> {
        let mut writes = Vec::new();
        for flight in flights {
            let batch = &flight.batch;
            writes.extend(batch.take_writes());
            let proxied = answer(&mut batch.lock().answers);
            proxied.iter().for_each(|caller| caller.reply());
            batch.lock().answers.clear();
        }
        self.in_flight.fetch_sub(1, Relaxed);
        writes
    }

    /// A committer takes a batch, and dies before it has answered that.
    pub(crate) fn kill(&self, shard: &'static Shard) -> WorkerId {
        self.kill_with(shard, 1)
    }

    /// The same with the batches of so many lanes.
    pub(crate) fn kill_with(&self, shard: &'static Shard, lanes: usize) -> WorkerId {
        let id = self.next_woken();
        let taken = shard.take((), id, Ended::default());
        assert!(matches!(taken, Taken::Commit(flights) if flights.len() == lanes));
        self.begin();
        id
    }

    /// A committer that has been woken dies before it has taken anything.
    pub(crate) fn kill_woken(&self) -> WorkerId {
        self.next_woken()
    }

    /// Works until nothing is left to do, for none that another thread works for.
    pub(crate) fn finish(&self, shard: &'static Shard) {
        let next = || self.woken.lock().unwrap().pop_front();
        while let Some(id) = next() {
            self.work_as(id, shard);
        }
    }
}
