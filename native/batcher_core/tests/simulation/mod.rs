//! A lane under a virtual clock: writes come, commits take their time, and each write is timed.
//!
//! Invariant: one commit is in flight at most; what leaves is decided by a [`Policy`] alone, and the same seed brings
//! the same writes to each.

pub(crate) mod load;
pub(crate) mod policy;

use load::{Load, Source};
use policy::Policy;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds since the start.
pub(crate) type Nanos = u64;

/// Whole ones of so many, as far as a run goes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "runs are short, and a part of one does not matter"
)]
pub(crate) fn whole(count: f64) -> u64 {
    count as u64
}

/// What is run: a load, and how long a commit takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) load: Load,
    pub(crate) commit: Nanos,
}

/// A write, by the number of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Write {
    pub(crate) came: Nanos,
    pub(crate) writer: u64,
}

/// How long each commit's writes took together, and how many they were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) writes: u64,
    pub(crate) latency: u64,
}

/// Runs a case until so many writes have been answered, or `each` says that it is enough: it sees each commit, and may
/// change the case.
pub(crate) fn run(
    case: Case,
    seed: u64,
    writes: u64,
    policy: &mut dyn Policy,
    mut each: impl FnMut(&mut Case, Commit) -> bool,
) {
    let mut case = case;
    let mut source = Source::new(case, seed);
    let mut coming: BinaryHeap<Reverse<Write>> = source.first().into_iter().map(Reverse).collect();
    let mut flight: Option<(Nanos, Vec<Write>)> = None;
    let (mut now, mut answered) = (0, 0);
    while answered < writes {
        if flight.is_none()
            && let Some(batch) = policy.take(now)
        {
            flight = Some((now + case.commit, batch));
        }
        let next_write = coming.peek().map(|Reverse(write)| write.came);
        let ends = flight.as_ref().map(|(ends, _)| *ends);
        let looks = policy.deadline().filter(|_| flight.is_none()).map(|at| at.max(now));
        now = [next_write, ends, looks].into_iter().flatten().min().expect("something comes");
        if next_write == Some(now) {
            let Reverse(write) = coming.pop().expect("just seen");
            policy.offer(now, write);
            coming.extend(source.after(write).map(Reverse));
        } else if ends == Some(now) {
            let (_, batch) = flight.take().expect("just seen");
            policy.done(now);
            let latency = batch.iter().map(|write| now - write.came).sum();
            let commit = Commit { writes: batch.len() as u64, latency };
            answered += commit.writes;
            if !each(&mut case, commit) {
                return;
            }
            source.set(case);
            for write in batch {
                coming.extend(source.answered(now, write.writer).map(Reverse));
            }
        } else {
            policy.timeout(now);
        }
    }
}

/// The mean latency of a run in commits, without the first tenth of its writes.
pub(crate) fn mean_latency(case: Case, seed: u64, writes: u64, policy: &mut dyn Policy) -> f64 {
    let (mut seen, mut counted, mut latency) = (0, 0, 0);
    run(case, seed, writes, policy, |_, commit| {
        seen += commit.writes;
        if seen > writes / 10 {
            counted += commit.writes;
            latency += commit.latency;
        }
        true
    });
    latency as f64 / counted as f64 / case.commit as f64
}
