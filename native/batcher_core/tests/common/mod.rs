//! What the tests share: a virtual clock, and a driver that drives a shard as its documentation
//! says.
//!
//! Invariant: the clock never goes back; after each input the driver takes commits while a
//! committer is free, then abandoned batches, then barriers, and notes all of it with its time.

// Each test crate uses its part of this file.
#![allow(dead_code)]

use batcher_core::{
    Accepted, Commit, Config, Engine, Group, LONG_PREFIX, LaneId, LaneKey, LaneRef, LongPrefix,
    Reason, Refused,
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
    pub(crate) cost: u64,
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
    pub(crate) cost: u64,
    pub(crate) reason: Reason,
    pub(crate) opened: Duration,
    pub(crate) window: Duration,
    /// It leaves in the same commit as what left before it.
    pub(crate) is_part: bool,
}

struct InFlight {
    id: LaneId,
    /// The first part of its commit.
    head: LaneId,
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
        let commits = self.in_flight.iter().filter(|commit| commit.id == commit.head).count();
        self.committers.saturating_sub(commits)
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

    pub(crate) fn configure(&mut self, config: Config) {
        self.shard.configure(self.instant(), config);
        self.settle();
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
            let Group { cost, writer, .. } = group;
            let Accepted { ticket, contents, lane, is_alone } = accepted;
            let alone = is_alone.then_some(lane);
            contents.push(Write { ticket, cost, writer });
            (ticket, alone)
        });
        let ticket = ticket.map(|(ticket, alone)| {
            if let Some(id) = alone {
                self.leave_alone(id, ticket, group, window);
            }
            ticket
        });
        self.settle();
        ticket
    }

    /// The commit of this lane has ended, and all its callers are being answered. False if nothing
    /// is in flight there.
    pub(crate) fn answering(&mut self, lane: LaneRef<'_>) -> bool {
        let now = self.instant();
        let mut commits = self.in_flight.iter_mut();
        let Some(commit) = commits.find(|commit| commit.lane.borrow() == lane) else {
            return false;
        };
        if !commit.answering {
            commit.answering = true;
            // As when they are many.
            let (some, others) = commit.writers.split_at(commit.writers.len() / 2);
            self.shard.handle_answering(|| now, commit.id, some.iter().copied());
            self.shard.handle_answering(|| now, commit.id, others.iter().copied());
        }
        self.settle();
        true
    }

    /// The commit that this lane is a part of has ended and its callers have been answered; the lane's groups, or
    /// `None` if nothing was in flight there.
    pub(crate) fn done(&mut self, lane: LaneRef<'_>) -> Option<Vec<u64>> {
        let Some(head) =
            self.in_flight.iter().find(|part| part.lane.borrow() == lane).map(|part| part.head)
        else {
            let known = self.shard.lanes().find(|view| view.key().borrow() == lane)?.id();
            let ended = self.shard.handle_commit_done(self.instant(), known);
            assert_eq!(ended, None, "nothing had left {lane:?}");
            return None;
        };
        let (mut parts, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|part| part.head == head);
        self.in_flight = others;
        let now = self.instant();
        for part in parts.iter().filter(|part| !part.answering) {
            let (some, others) = part.writers.split_at(part.writers.len() / 2);
            self.shard.handle_answering(|| now, part.id, some.iter().copied());
            self.shard.handle_answering(|| now, part.id, others.iter().copied());
        }
        // The head is the first of them.
        parts.reverse();
        for part in &parts {
            let contents = self.shard.handle_commit_done(now, part.id);
            let ended = contents.map(|writes| tickets(&writes));
            assert_eq!(ended.as_ref(), Some(&part.tickets), "of {:?}", part.lane);
        }
        self.settle();
        parts.into_iter().find(|part| part.lane.borrow() == lane).map(|part| part.tickets)
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

    /// A group that its own process commits.
    fn leave_alone(&mut self, id: LaneId, ticket: u64, group: Group, window: Duration) {
        let view = self.shard.lane(id).expect("it has something in flight");
        let lane = view.key().clone();
        let (tickets, writers) = (vec![ticket], vec![group.writer]);
        self.in_flight.push(InFlight {
            id,
            head: id,
            lane: lane.clone(),
            tickets: tickets.clone(),
            writers,
            answering: false,
        });
        let (reason, cost, opened) = (Reason::Alone, group.cost, self.now);
        let departed = Departed { lane, tickets, cost, reason, opened, window, is_part: false };
        self.happened.push((self.now, Event::Commit(departed)));
    }

    fn settle(&mut self) {
        while self.free_committers() > 0 {
            let now = self.instant();
            let Some(commit) = self.shard.poll_commit(now) else { break };
            let head = commit.lane;
            let (part, departed) = left(self.start, commit, head);
            self.note(part, departed);
            while let Some(commit) = self.shard.poll_part(now) {
                let (part, departed) = left(self.start, commit, head);
                self.note(part, departed);
            }
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

    fn note(&mut self, part: InFlight, departed: Departed) {
        let busy =
            self.in_flight.iter().any(|other| other.id == part.id || other.lane == part.lane);
        assert!(!busy, "two commits in flight in {:?}, the second is {departed:?}", part.id);
        self.in_flight.push(part);
        self.happened.push((self.now, Event::Commit(departed)));
    }
}

fn left(start: Instant, commit: Commit<'_, Vec<Write>>, head: LaneId) -> (InFlight, Departed) {
    let (id, lane, reason) = (commit.lane, commit.key.clone(), commit.reason);
    let (cost, window) = (commit.slot.cost, commit.slot.window);
    let contents = &commit.slot.contents;
    assert_eq!(cost, contents.iter().map(|write| write.cost).sum::<u64>());
    assert_eq!(commit.slot.groups, contents.len() as u64);
    let writers = contents.iter().map(|write| write.writer).collect();
    let tickets = tickets(contents);
    let key = lane.clone();
    let opened = commit.slot.opened.duration_since(start);
    let part =
        InFlight { id, head, lane: key, tickets: tickets.clone(), writers, answering: false };
    let is_part = id != head;
    (part, Departed { lane, tickets, cost, reason, opened, window, is_part })
}
