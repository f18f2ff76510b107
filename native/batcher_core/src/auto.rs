//! Pacing that learns how long to hold what gathers: from how long commits take, how many of those just answered come
//! back and how fast, and how often a first write is followed by others (5.6).
//!
//! To hold a batch costs each write in it the time that it is held; to send it off without a write that comes a moment
//! later costs that one a whole commit. So a batch is held while the writes that are still expected would lose more
//! than the writes that wait.
//!
//! Invariant: nothing is held longer than a quarter of a commit, and what is learned does not depend on what was held:
//! writes are counted whether a batch still waits for them or has left.

use std::time::{Duration, Instant};

/// What is new counts so much of what is learned.
const GAIN: f64 = 1.0 / 8.0;
/// The same of deviations.
const DEVIATION_GAIN: f64 = 1.0 / 4.0;
/// The longest hold, as a part of a commit.
const LONGEST: f64 = 1.0 / 4.0;
/// After so many first writes in a row that none has followed, none is expected to: a busy time is over.
const OVER: u32 = 4;

/// What a shard has learned. Times are in nanoseconds.
#[derive(Debug)]
pub(crate) struct Learned {
    /// How long a commit takes.
    commit: f64,
    /// Which part of the callers just answered come back within the longest hold.
    returning: f64,
    /// How many writes follow the first one of an idle channel within the longest hold.
    followers: f64,
    /// How many first writes in a row none has followed.
    unfollowed: u32,
    /// How long after the answers the last of the callers that come back is there, and how far that is off as a rule.
    gap: f64,
    deviation: f64,
    /// How many other writes come while a commit is in flight.
    others: f64,
}

impl Default for Learned {
    fn default() -> Self {
        Learned {
            commit: 0.0,
            returning: 0.5,
            followers: 0.0,
            unfollowed: 0,
            gap: 0.0,
            deviation: 0.0,
            others: 0.0,
        }
    }
}

impl Learned {
    fn longest(&self) -> f64 {
        self.commit * LONGEST
    }

    fn commit_took(&mut self, took: f64) {
        let first = self.commit == 0.0;
        self.commit = if first { took } else { smooth(self.commit, took, GAIN) };
    }

    fn first_write_had(&mut self, followers: u64) {
        self.unfollowed = if followers == 0 { self.unfollowed.saturating_add(1) } else { 0 };
        let is_over = self.unfollowed >= OVER;
        self.followers = if is_over { 0.0 } else { smooth(self.followers, followers as f64, GAIN) };
    }
}

fn smooth(old: f64, new: f64, gain: f64) -> f64 {
    old + (new - old) * gain
}

/// What is expected of a channel.
#[derive(Debug, Default)]
pub(crate) struct AutoPace {
    /// How many callers wait for what is in flight.
    callers: u64,
    gathering: Option<Gathering>,
    /// How many writes that were not expected have come behind what is in flight.
    others: u64,
}

/// What comes within the longest hold behind a trigger.
#[derive(Debug)]
struct Gathering {
    since: Instant,
    trigger: Trigger,
    /// How many writes have come since.
    seen: u64,
    /// When the last one came.
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Trigger {
    /// So many callers were answered.
    Answers(u64),
    /// A first write came to an idle channel.
    FirstWrite,
}

impl AutoPace {
    /// A batch leaves that so many callers wait for.
    pub(crate) fn begin(&mut self, callers: u64) {
        self.callers = callers;
    }

    /// A part of the same commit, with more callers.
    pub(crate) fn join(&mut self, callers: u64) {
        self.callers += callers;
    }

    /// The callers are about to be answered, and may write from now on.
    pub(crate) fn answering(&mut self, now: Instant, learned: &mut Learned) {
        let callers = std::mem::take(&mut self.callers);
        if callers > 0 {
            self.gather(now, Trigger::Answers(callers), learned);
        }
    }

    /// They have been answered; the commit had left at the given time, if it is one to learn from. Answers until when
    /// what has gathered meanwhile is held.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        left: Option<Instant>,
        waiting: Backlog,
        learned: &mut Learned,
    ) -> Option<Instant> {
        self.answering(now, learned);
        if let Some(left) = left {
            learned.commit_took(nanos(now, left));
            learned.others = smooth(learned.others, std::mem::take(&mut self.others) as f64, GAIN);
        }
        if let Some(Gathering { since, trigger: Trigger::Answers(_), .. }) = &mut self.gathering {
            *since = now;
        }
        self.hold(now, waiting, learned)
    }

    /// A write has come; `is_first`: to an idle channel. Answers until when it is held, with writes that wait already.
    pub(crate) fn arrive(
        &mut self,
        now: Instant,
        is_first: bool,
        waiting: Backlog,
        learned: &mut Learned,
    ) -> Option<Instant> {
        match &mut self.gathering {
            Some(gathering) if nanos(now, gathering.since) <= learned.longest() => {
                gathering.seen += 1;
                gathering.last = now;
            }
            _ if is_first => self.gather(now, Trigger::FirstWrite, learned),
            _ => {
                self.others += 1;
                self.conclude(learned);
            }
        }
        self.hold(now, waiting, learned)
    }

    fn gather(&mut self, now: Instant, trigger: Trigger, learned: &mut Learned) {
        self.conclude(learned);
        self.gathering = Some(Gathering { since: now, trigger, seen: 0, last: now });
    }

    /// Learns of what has come.
    fn conclude(&mut self, learned: &mut Learned) {
        let Some(Gathering { since, trigger, seen, last }) = self.gathering.take() else { return };
        match trigger {
            Trigger::Answers(callers) => {
                let part = (seen as f64 / callers as f64).min(1.0);
                learned.returning = smooth(learned.returning, part, GAIN);
                if seen > 0 {
                    let gap = nanos(last, since);
                    let off = (gap - learned.gap).abs();
                    learned.gap = smooth(learned.gap, gap, GAIN);
                    learned.deviation = smooth(learned.deviation, off, DEVIATION_GAIN);
                }
            }
            Trigger::FirstWrite => learned.first_write_had(seen),
        }
    }

    /// Until when what waits is held, if it is.
    fn hold(&self, now: Instant, waiting: Backlog, learned: &Learned) -> Option<Instant> {
        let Gathering { since, trigger, seen, last } = *self.gathering.as_ref()?;
        let (expected, ends) = match trigger {
            Trigger::Answers(callers) => {
                let all_back = learned.gap + 2.0 * learned.deviation;
                (learned.returning * callers as f64, all_back)
            }
            Trigger::FirstWrite => {
                let apart = learned.longest() / learned.followers.max(1.0);
                (learned.followers, nanos(last, since) + apart)
            }
        };
        let missing = expected - seen as f64;
        if missing < 0.5 {
            return None;
        }
        let window = in_nanos(waiting.window);
        let left = ends.min(learned.longest()).min(window) - nanos(now, since);
        // Writes that wait lose the time of the hold, and so do others that will wait for this commit to end; writes
        // that are missing gain what is left of a commit.
        let loss = (waiting.groups as f64 + learned.others) * left;
        let gain = missing * (learned.commit - left);
        // Less than a nanosecond is nothing.
        let held = Duration::try_from_secs_f64(left / 1e9).ok().filter(|held| !held.is_zero())?;
        (gain > loss).then(|| now + held)
    }
}

/// What waits in a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// How many calls.
    pub(crate) groups: u64,
    /// The window of its first slot: how long it may be held from the trigger on.
    pub(crate) window: Duration,
}

fn nanos(to: Instant, from: Instant) -> f64 {
    in_nanos(to.saturating_duration_since(from))
}

/// As numbers of 128 bits these would take several times as long.
fn in_nanos(duration: Duration) -> f64 {
    duration.as_secs() as f64 * 1e9 + f64::from(duration.subsec_nanos())
}
