//! Who writes when.
//!
//! Invariant: it is the same for the same seed; only callers of a closed loop wait for answers.

use super::{Case, Nanos, Write, whole};

/// A load. Times are in commits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Writes that come independently of each other, so many in the time of a commit.
    Poisson(f64),
    /// So many writes within a fiftieth of a commit, every so often.
    Bursts(u64, f64),
    /// So many callers, each of which writes again so long after its answer, in the mean.
    Closed(u64, f64),
}

pub(crate) struct Source {
    case: Case,
    random: Random,
    next_writer: u64,
    /// Of a burst that has begun.
    left: u64,
    burst: Nanos,
}

/// The least time in which a caller is back, in nanoseconds.
const BACK: f64 = 5_000.0;

impl Source {
    pub(crate) fn new(case: Case, seed: u64) -> Self {
        Source { case, random: Random(seed), next_writer: 0, left: 0, burst: 0 }
    }

    pub(crate) fn set(&mut self, case: Case) {
        self.case = case;
    }

    /// Who writes first.
    pub(crate) fn first(&mut self) -> Vec<Write> {
        match self.case.load {
            Load::Closed(callers, _) => {
                (0..callers).map(|writer| Write { came: self.think(), writer }).collect()
            }
            Load::Poisson(_) | Load::Bursts(..) => {
                self.after(Write { came: 0, writer: 0 }).into_iter().collect()
            }
        }
    }

    /// The write that comes after this one, whatever becomes of it.
    pub(crate) fn after(&mut self, write: Write) -> Option<Write> {
        let commit = self.case.commit as f64;
        self.next_writer += 1;
        let writer = self.next_writer;
        match self.case.load {
            Load::Poisson(rate) => {
                let gap = self.random.exponential() * commit / rate;
                Some(Write { came: write.came + whole(gap), writer })
            }
            Load::Bursts(size, every) => {
                if self.left == 0 {
                    self.left = size;
                    self.burst += whole(commit * every);
                    self.left -= 1;
                    return Some(Write { came: self.burst, writer });
                }
                self.left -= 1;
                let gap = self.random.exponential() * commit / 50.0 / size as f64;
                Some(Write { came: write.came + whole(gap), writer })
            }
            Load::Closed(..) => None,
        }
    }

    /// The next write of a process that was answered.
    pub(crate) fn answered(&mut self, now: Nanos, writer: u64) -> Option<Write> {
        matches!(self.case.load, Load::Closed(..))
            .then(|| Write { came: now + self.think(), writer })
    }

    fn think(&mut self) -> Nanos {
        let Load::Closed(_, think) = self.case.load else { unreachable!("a closed loop") };
        whole(BACK + self.random.exponential() * think * self.case.commit as f64)
    }
}

/// Numbers that look random: SplitMix64.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }
}
