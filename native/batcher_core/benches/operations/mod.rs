//! What the benchmarks share: the operations of the engine, and shards to try them on.
//!
//! Invariant: every operation finds each lane as its `before` says and leaves it at rest by its `after`, so
//! that any number of rounds cost the same; no clock is read, times are made up.

use batcher_core::{Config, Engine, Group, LaneId, LaneRef, Usage};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How many lanes a shard has, in turn.
pub(crate) const LANES: [usize; 2] = [1, 10_000];

/// Single lanes are measured together, each in a shard of its own: one alone is too fast for a clock.
const LEAST: usize = 64;

const WINDOW: Duration = Duration::from_millis(1);
const NOT_MEASURED: Usage = Usage { command_items: 0, compound_members: 0, visits: 0 };
const SMALL: Group =
    Group { cost: 1, bytes: 100, writer: 1, usage: NOT_MEASURED, waits: true, apart: false };
/// Shares no factor with the numbers of lanes: steps through them in no order that a cache likes.
const STRIDE: usize = 7_919;
/// Longer than a window or the time that a lane lingers.
const LATER: Duration = Duration::from_secs(1);

/// What is done with each lane in turn.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// The first write of a window arrives: a slot and its deadline.
    Open,
    /// A write arrives and joins the open slot, or opens one behind a commit.
    Offer,
    /// The earliest window ends: its batch is to be committed.
    Expire,
    /// A commit has ended, with nothing behind it. Above 1 024 lanes an idle one is forgotten.
    Complete,
    /// A commit has ended, and what gathered behind it is to be committed.
    Follow,
}

/// One step to be measured, with what comes before and after it.
pub(crate) struct Operation {
    /// In lists of figures.
    pub(crate) name: &'static str,
    before: &'static [Step],
    measured: Step,
    after: &'static [Step],
}

/// All of them.
pub(crate) const OPERATIONS: [Operation; 5] = [
    Operation {
        name: "open",
        before: &[],
        measured: Step::Open,
        after: &[Step::Expire, Step::Complete],
    },
    Operation {
        name: "offer",
        before: &[Step::Open],
        measured: Step::Offer,
        after: &[Step::Expire, Step::Complete],
    },
    Operation {
        name: "expire",
        before: &[Step::Open],
        measured: Step::Expire,
        after: &[Step::Complete],
    },
    Operation {
        name: "complete",
        before: &[Step::Open, Step::Expire],
        measured: Step::Complete,
        after: &[],
    },
    Operation {
        name: "follow",
        before: &[Step::Open, Step::Expire, Step::Offer],
        measured: Step::Follow,
        after: &[Step::Complete],
    },
];

impl Operation {
    /// Takes all lanes through the operation once; `measure` is called with what is to be measured.
    pub(crate) fn round<R>(
        &self,
        fleet: &mut Fleet,
        measure: impl FnOnce(&mut Fleet, Step) -> R,
    ) -> R {
        self.before.iter().for_each(|&step| fleet.take(step));
        let measured = measure(fleet, self.measured);
        self.after.iter().for_each(|&step| fleet.take(step));
        measured
    }
}

/// Shards, all with the same lanes. What they keep of a slot's writes is a number of them.
pub(crate) struct Fleet {
    shards: Vec<Engine<u64>>,
    /// The names of lanes, in the order in which they are visited.
    names: Vec<String>,
    now: Instant,
    /// Of each shard, the lanes in flight.
    in_flight: Vec<Vec<LaneId>>,
}

impl Fleet {
    /// Shards with so many lanes each, all at rest; as many as it takes for a few lanes in total.
    pub(crate) fn new(lanes: usize) -> Self {
        let now = Instant::now();
        let config = Config { namespace_max: None, max_in_flight: usize::MAX, ..Config::default() };
        let shards = (0..LEAST.div_ceil(lanes)).map(|_| {
            let mut shard = Engine::default();
            shard.open(now, config.clone());
            shard
        });
        let shards: Vec<_> = shards.collect();
        let names = (0..lanes).map(|lane| format!("ns{}", lane * STRIDE % lanes)).collect();
        let in_flight = shards.iter().map(|_| Vec::with_capacity(lanes)).collect();
        Fleet { shards, names, now, in_flight }
    }

    /// How many lanes one step visits.
    pub(crate) fn lanes(&self) -> usize {
        self.shards.len() * self.names.len()
    }

    /// Takes one step with every lane.
    #[inline(always)]
    pub(crate) fn take(&mut self, step: Step) {
        self.now += LATER;
        match step {
            Step::Open | Step::Offer => self.offer(),
            Step::Expire => self.expire(),
            Step::Complete => self.complete(),
            Step::Follow => self.follow(),
        }
    }

    fn offer(&mut self) {
        for shard in &mut self.shards {
            for name in &self.names {
                // Else all windows would end at once.
                self.now += Duration::from_nanos(100);
                let lane = LaneRef::Prefix(name.as_bytes());
                let accepted = shard.offer(self.now, black_box(lane), black_box(SMALL), WINDOW);
                *accepted.expect("there is room").contents += 1;
            }
        }
    }

    fn expire(&mut self) {
        for (shard, in_flight) in self.shards.iter_mut().zip(&mut self.in_flight) {
            while let Some(deadline) = shard.next_deadline() {
                shard.handle_timeout(deadline);
                in_flight.push(shard.poll_commit(self.now).expect("its window has ended").lane);
            }
        }
    }

    fn complete(&mut self) {
        for (shard, in_flight) in self.shards.iter_mut().zip(&mut self.in_flight) {
            for lane in in_flight.drain(..) {
                shard.handle_answering(|| self.now, lane, [1].into_iter());
                let contents = shard.handle_commit_done(self.now, lane);
                black_box(contents.expect("it was in flight"));
            }
        }
    }

    fn follow(&mut self) {
        for (shard, in_flight) in self.shards.iter_mut().zip(&mut self.in_flight) {
            for lane in in_flight {
                shard.handle_answering(|| self.now, *lane, [1].into_iter());
                let contents = shard.handle_commit_done(self.now, *lane);
                black_box(contents.expect("it was in flight"));
                *lane = shard.poll_commit(self.now).expect("a slot was behind it").lane;
            }
        }
    }
}
