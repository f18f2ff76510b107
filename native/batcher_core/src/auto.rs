//! Pacing that learns how long to hold what gathers: from how long commits take, how many of those just answered come
//! back and how fast, and how often a first write is followed by others (5.6).
//!
//! To hold a batch costs each write in it the time that it is held; to send it off without a write that comes a moment
//! later costs that one a whole commit. So a batch is held while those that are still expected would lose more than
//! those that wait.
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

/// What a shard has learned. Times are in seconds.
#[derive(Debug)]
pub(crate) struct Learned {
    /// How long a commit takes.
    commit: f64,
    /// Which part of the callers just answered come back within the longest hold.
    returning: f64,
    /// How many writes follow the first one of an idle channel within the longest hold.
    followers: f64,
    /// How long after the answers the last of those that come back is there, and how far that is off as a rule.
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
}

fn smooth(old: f64, new: f64, gain: f64) -> f64 {
    old + (new - old) * gain
}

/// What is expected of a channel.
#[derive(Debug, Default)]
pub(crate) struct AutoPace {
    /// When what is in flight has left.
    left: Option<Instant>,
    /// How many callers wait for it.
    callers: u64,
    watch: Option<Watch>,
    /// How many writes nobody watched for have come behind what is in flight.
    others: u64,
}

/// Who comes within the longest hold behind an event.
#[derive(Debug)]
struct Watch {
    since: Instant,
    event: Event,
    /// How many writes have come since.
    seen: u64,
    /// When the last one came.
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many callers were answered.
    Answers(u64),
    /// A first write came to an idle channel.
    FirstWrite,
}

impl AutoPace {
    /// A batch leaves that so many callers wait for.
    pub(crate) fn begin(&mut self, now: Instant, callers: u64) {
        (self.left, self.callers) = (Some(now), callers);
    }

    /// A part of the same commit, with more callers.
    pub(crate) fn join(&mut self, callers: u64) {
        self.callers += callers;
    }

    /// The callers are about to be answered, and may write from now on.
    pub(crate) fn answering(&mut self, now: Instant, learned: &mut Learned) {
        if self.left.is_some() && self.callers > 0 {
            self.watch(now, Event::Answers(self.callers), learned);
            self.callers = 0;
        }
    }

    /// They have been answered. Answers until when what has gathered meanwhile, so many writes, is held.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        waiting: u64,
        learned: &mut Learned,
    ) -> Option<Instant> {
        self.answering(now, learned);
        if let Some(left) = self.left.take() {
            learned.commit_took(now.saturating_duration_since(left).as_secs_f64());
            learned.others = smooth(learned.others, std::mem::take(&mut self.others) as f64, GAIN);
        }
        if let Some(Watch { since, event: Event::Answers(_), .. }) = &mut self.watch {
            *since = now;
        }
        self.hold(now, waiting, learned)
    }

    /// A write has come; `is_first`: to an idle channel. Answers until when it is held, with those that wait already.
    pub(crate) fn arrive(
        &mut self,
        now: Instant,
        is_first: bool,
        waiting: u64,
        learned: &mut Learned,
    ) -> Option<Instant> {
        let over = self.watch.as_ref().is_none_or(|watch| watch.is_over(now, learned));
        match &mut self.watch {
            Some(watch) if !over => {
                watch.seen += 1;
                watch.last = now;
            }
            _ if is_first => self.watch(now, Event::FirstWrite, learned),
            _ => {
                self.others += 1;
                self.conclude(learned);
            }
        }
        self.hold(now, waiting, learned)
    }

    fn watch(&mut self, now: Instant, event: Event, learned: &mut Learned) {
        self.conclude(learned);
        self.watch = Some(Watch { since: now, event, seen: 0, last: now });
    }

    /// Learns of what was watched.
    fn conclude(&mut self, learned: &mut Learned) {
        let Some(watch) = self.watch.take() else { return };
        let seen = watch.seen as f64;
        match watch.event {
            Event::Answers(callers) => {
                let part = (seen / callers as f64).min(1.0);
                learned.returning = smooth(learned.returning, part, GAIN);
                if watch.seen > 0 {
                    let gap = watch.last.saturating_duration_since(watch.since).as_secs_f64();
                    let off = (gap - learned.gap).abs();
                    learned.gap = smooth(learned.gap, gap, GAIN);
                    learned.deviation = smooth(learned.deviation, off, DEVIATION_GAIN);
                }
            }
            Event::FirstWrite => learned.followers = smooth(learned.followers, seen, GAIN),
        }
    }

    /// Until when so many writes that wait are held, if they are.
    fn hold(&self, now: Instant, waiting: u64, learned: &Learned) -> Option<Instant> {
        let watch = self.watch.as_ref()?;
        let longest = learned.longest();
        let (expected, next) = match watch.event {
            Event::Answers(callers) => {
                let last = learned.gap + 2.0 * learned.deviation;
                (learned.returning * callers as f64, watch.since + seconds(last.min(longest)))
            }
            Event::FirstWrite => {
                let apart = longest / learned.followers.max(1.0);
                let end = watch.since + seconds(longest);
                (learned.followers, end.min(watch.last + seconds(apart)))
            }
        };
        let missing = expected - watch.seen as f64;
        let held = next.checked_duration_since(now).filter(|held| !held.is_zero())?.as_secs_f64();
        // Those that wait lose the time of the hold, and so do others that will wait for this commit to end; those that
        // are missing gain what is left of a commit.
        let loss = (waiting as f64 + learned.others) * held;
        let gain = missing * (learned.commit - held);
        (missing >= 0.5 && gain > loss).then_some(next)
    }
}

impl Watch {
    fn is_over(&self, now: Instant, learned: &Learned) -> bool {
        now.saturating_duration_since(self.since).as_secs_f64() > learned.longest()
    }
}

fn seconds(count: f64) -> Duration {
    Duration::try_from_secs_f64(count).unwrap_or_default()
}
