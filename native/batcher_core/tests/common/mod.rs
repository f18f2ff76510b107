//! What the tests share: a virtual clock, and a driver that drives a shard as its documentation
//! says.
//!
//! Invariant: the clock never goes back; after each input the driver takes commits while a
//! committer is free, then abandoned batches, then barriers, and notes all of it with its time.

// Each test crate uses its part of this file.
#![allow(dead_code)]

use batcher_core::{
    Config, Engine, Group, LONG_PREFIX, LaneId, LaneKey, LaneRef, LongPrefix, Reason, Refused,
};
use std::time::{Duration, Instant};

/// Milliseconds.
pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The lane of a namespace.
pub(crate) fn namespace(prefix: &str) -> LaneKey {
    LaneKey::Prefix(prefix.as_bytes().into())
}

/// An accepted group, as the driver keeps it in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) ticket: u64,
    pub(crate) weight: u64,
    pub(crate) writer: u64,
}

/// The numbers of these groups.
pub(crate) fn tickets(writes: &[Write]) -> Vec<u64> {
    writes.iter().map(|write| write.ticket).collect()
}

/// What the engine made the driver do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Commit(Departed),
    Abandoned { tickets: Vec<u64> },
    Barrier { id: u64 },
}

/// A batch that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departed {
    pub(crate) lane: LaneKey,
    pub(crate) tickets: Vec<u64>,
    pub(crate) weight: u64,
    pub(crate) reason: Reason,
    pub(crate) opened: Duration,
    pub(crate) window: Duration,
}

struct InFlight {
    id: LaneId,
    lane: LaneKey,
    tickets: Vec<u64>,
    writers: Vec<u64>,
    /// Its callers are being answered.
    answering: bool,
}

pub(crate) struct Driver {
    pub(crate) shard: Engine<Vec<Write>>,
    /// How many commits may be in flight at once.
    committers: usize,
    /// Abandoned batches are not taken for the time being.
    lags: bool,
    start: Instant,
    now: Duration,
    in_flight: Vec<InFlight>,
    happened: Vec<(Duration, Event)>,
}

impl Default for Driver {
    fn default() -> Self {
        Driver {
            shard: Engine::default(),
            committers: usize::MAX,
            lags: false,
            start: Instant::now(),
            now: Duration::ZERO,
            in_flight: Vec::new(),
            happened: Vec::new(),
        }
    }
}

impl Driver {
    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// A time of the engine's, since the start.
    pub(crate) fn since_start(&self, at: Instant) -> Duration {
        at.checked_duration_since(self.start).expect("the engine knows no time before the start")
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.shard.next_deadline().map(|at| self.since_start(at))
    }

    pub(crate) fn free_committers(&self) -> usize {
        self.committers.saturating_sub(self.in_flight.len())
    }

    /// What has happened since the last call.
    pub(crate) fn take_happened(&mut self) -> Vec<(Duration, Event)> {
        std::mem::take(&mut self.happened)
    }

    pub(crate) fn set_committers(&mut self, committers: usize) {
        self.committers = committers;
        self.settle();
    }

    /// Whether abandoned batches stay where they are for the time being.
    pub(crate) fn set_lags(&mut self, lags: bool) {
        self.lags = lags;
        self.settle();
    }

    pub(crate) fn lags(&self) -> bool {
        self.lags
    }

    pub(crate) fn open(&mut self, config: Config) {
        self.shard.open(self.instant(), config);
        self.settle();
    }

    pub(crate) fn offer(
        &mut self,
        lane: LaneRef<'_>,
        group: Group,
        window: Duration,
    ) -> Result<u64, Refused> {
        let (now, long);
        now = self.instant();
        let lane = match lane {
            LaneRef::Prefix(prefix) if prefix.len() >= LONG_PREFIX => {
                long = LongPrefix::new(prefix);
                LaneRef::Long(&long)
            }
            lane => lane,
        };
        let offered = self.shard.offer(now, lane, group, window);
        let ticket = offered.map(|accepted| {
            let Group { weight, writer, .. } = group;
            accepted.contents.push(Write { ticket: accepted.ticket, weight, writer });
            accepted.ticket
        });
        self.settle();
        ticket
    }

    /// The commit of this lane has ended, and all its callers are being answered. False if nothing
    /// is in flight there.
    pub(crate) fn answering(&mut self, lane: LaneRef<'_>) -> bool {
        let mut commits = self.in_flight.iter_mut();
        let Some(commit) = commits.find(|commit| commit.lane.borrow() == lane) else {
            return false;
        };
        if !commit.answering {
            commit.answering = true;
            // As when they are many.
            let (some, others) = commit.writers.split_at(commit.writers.len() / 2);
            self.shard.handle_answering(commit.id, some.iter().copied());
            self.shard.handle_answering(commit.id, others.iter().copied());
        }
        self.settle();
        true
    }

    /// The commit of this lane has ended and its callers have been answered; its groups, or `None` if nothing was in flight there.
    pub(crate) fn done(&mut self, lane: LaneRef<'_>) -> Option<Vec<u64>> {
        self.answering(lane);
        let index = self.in_flight.iter().position(|commit| commit.lane.borrow() == lane);
        let known = self.shard.lanes().find(|view| view.key().borrow() == lane);
        let id = match index {
            Some(index) => self.in_flight[index].id,
            None => known?.id(),
        };
        let contents = self.shard.handle_commit_done(self.instant(), id);
        let ended = contents.map(|writes| tickets(&writes));
        let expected = index.map(|index| self.in_flight.swap_remove(index).tickets);
        assert_eq!(ended, expected, "what came back from {lane:?} is not what had left");
        self.settle();
        ended
    }

    pub(crate) fn flush(&mut self) -> u64 {
        let barrier = self.shard.handle_flush(self.instant());
        self.settle();
        barrier.0
    }

    pub(crate) fn stop(&mut self) -> u64 {
        let barrier = self.shard.handle_stop(self.instant());
        self.settle();
        barrier.0
    }

    pub(crate) fn owner_down(&mut self) {
        self.shard.handle_owner_down(self.instant());
        self.settle();
    }

    pub(crate) fn close(&mut self) {
        self.shard.close();
        self.settle();
    }

    pub(crate) fn timeout(&mut self) {
        self.shard.handle_timeout(self.instant());
        // One call ends so many windows and no more.
        let mut calls = 1;
        while self.next_deadline().is_some_and(|at| at <= self.now) {
            assert!(calls < 10_000, "a deadline that is over at {:?} stayed", self.now);
            self.shard.handle_timeout(self.instant());
            calls += 1;
        }
        self.settle();
    }

    /// Time passes and nobody looks, as when the shard's thread is late.
    pub(crate) fn drift(&mut self, to: Duration) {
        assert!(to >= self.now, "the clock is at {:?} and can't go back to {to:?}", self.now);
        self.now = to;
    }

    /// Goes to the next deadline and handles it, if there is one until then.
    pub(crate) fn step(&mut self, until: Duration) -> bool {
        let Some(deadline) = self.next_deadline().filter(|&at| at <= until) else {
            return false;
        };
        self.drift(deadline.max(self.now));
        self.timeout();
        true
    }

    /// Time passes, and each deadline is handled when it comes.
    pub(crate) fn advance(&mut self, to: Duration) {
        while self.step(to) {}
        self.drift(to);
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn settle(&mut self) {
        while self.free_committers() > 0
            && let Some(departed) = self.take_commit()
        {
            self.happened.push((self.now, Event::Commit(departed)));
        }
        while !self.lags
            && let Some(writes) = self.shard.poll_abandoned()
        {
            self.happened.push((self.now, Event::Abandoned { tickets: tickets(&writes) }));
        }
        while let Some(barrier) = self.shard.poll_barrier() {
            self.happened.push((self.now, Event::Barrier { id: barrier.0 }));
        }
    }

    fn take_commit(&mut self) -> Option<Departed> {
        let commit = self.shard.poll_commit()?;
        let (id, lane, reason) = (commit.lane, commit.key.clone(), commit.reason);
        let (weight, opened, window) = (commit.slot.weight, commit.slot.opened, commit.slot.window);
        let contents = &commit.slot.contents;
        assert_eq!(weight, contents.iter().map(|write| write.weight).sum::<u64>());
        assert_eq!(commit.slot.groups, contents.len() as u64);
        let writers = contents.iter().map(|write| write.writer).collect();
        let tickets = tickets(contents);
        let busy = self.in_flight.iter().any(|commit| commit.id == id || commit.lane == lane);
        assert!(!busy, "two commits in flight in {id:?}, the second with {tickets:?}");
        let key = lane.clone();
        let in_flight =
            InFlight { id, lane: key, tickets: tickets.clone(), writers, answering: false };
        self.in_flight.push(in_flight);
        let opened = self.since_start(opened);
        Some(Departed { lane, tickets, weight, reason, opened, window })
    }
}
