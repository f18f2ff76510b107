//! What decides when a batch leaves: the engine, or a hold of a fixed time, to compare with.

use super::{Nanos, Write};
use batcher_core::{Config, Engine, Group, LaneId, LaneRef, Pacing};
use std::time::{Duration, Instant};

/// Decides when what has gathered leaves. `now` never goes back.
pub(crate) trait Policy {
    /// A write comes.
    fn offer(&mut self, now: Nanos, write: Write);
    /// What leaves now, if anything does. Asked while nothing is in flight.
    fn take(&mut self, now: Nanos) -> Option<Vec<Write>>;
    /// What has left has been committed and answered.
    fn done(&mut self, now: Nanos);
    /// When to call `timeout`, if nothing else happens.
    fn deadline(&self) -> Option<Nanos>;
    fn timeout(&mut self, now: Nanos);
}

/// Holds what has gathered so long, from the first write or the end of a commit on.
pub(crate) struct Fixed {
    hold: Nanos,
    queue: Vec<Write>,
    held_since: Nanos,
    is_due: bool,
    busy: bool,
}

impl Fixed {
    pub(crate) fn new(hold: Nanos) -> Self {
        Fixed { hold, queue: Vec::new(), held_since: 0, is_due: false, busy: false }
    }
}

impl Policy for Fixed {
    fn offer(&mut self, now: Nanos, write: Write) {
        if self.queue.is_empty() && !self.busy {
            self.held_since = self.held_since.max(now);
        }
        self.queue.push(write);
        self.is_due |= !self.busy && self.held_since + self.hold <= now;
    }

    fn take(&mut self, _now: Nanos) -> Option<Vec<Write>> {
        let leaves = std::mem::take(&mut self.is_due) && !self.queue.is_empty();
        self.busy |= leaves;
        leaves.then(|| std::mem::take(&mut self.queue))
    }

    fn done(&mut self, now: Nanos) {
        (self.busy, self.held_since) = (false, now);
        self.is_due = self.hold == 0 && !self.queue.is_empty();
    }

    fn deadline(&self) -> Option<Nanos> {
        (!self.queue.is_empty() && !self.busy).then_some(self.held_since + self.hold)
    }

    fn timeout(&mut self, now: Nanos) {
        self.is_due |= !self.queue.is_empty() && self.held_since + self.hold <= now;
    }
}

/// The engine itself, with one lane.
pub(crate) struct Learning {
    engine: Engine<Vec<Write>>,
    start: Instant,
    /// What its own process commits.
    alone: Option<Vec<Write>>,
    lane: Option<LaneId>,
}

const WINDOW: Duration = Duration::from_secs(10);
const LANE: LaneRef<'static> = LaneRef::Generic;

impl Learning {
    pub(crate) fn new(pacing: Pacing) -> Self {
        let (mut engine, start) = (Engine::default(), Instant::now());
        engine.open(start, Config { pacing, ..Config::default() });
        Learning { engine, start, alone: None, lane: None }
    }

    fn at(&self, now: Nanos) -> Instant {
        self.start + Duration::from_nanos(now)
    }
}

impl Policy for Learning {
    fn offer(&mut self, now: Nanos, write: Write) {
        let at = self.at(now);
        let group =
            Group { cost: 1, bytes: 1, writer: write.writer, waits: true, ..Group::default() };
        let accepted = self.engine.offer(at, LANE, group, WINDOW).expect("there is room");
        match accepted.is_alone {
            true => (self.alone, self.lane) = (Some(vec![write]), Some(accepted.lane)),
            false => accepted.contents.push(write),
        }
    }

    fn take(&mut self, now: Nanos) -> Option<Vec<Write>> {
        let at = self.at(now);
        if self.alone.is_some() {
            return self.alone.take();
        }
        let commit = self.engine.poll_commit(at)?;
        self.lane = Some(commit.lane);
        Some(std::mem::take(&mut commit.slot.contents))
    }

    fn done(&mut self, now: Nanos) {
        let lane = self.lane.take().expect("something was in flight");
        let ended = self.engine.handle_commit_done(self.at(now), lane);
        assert!(ended.is_some(), "it was in flight");
    }

    fn deadline(&self) -> Option<Nanos> {
        let at = self.engine.next_deadline()?;
        let since = at.saturating_duration_since(self.start).as_nanos();
        Some(Nanos::try_from(since).expect("a run is short"))
    }

    fn timeout(&mut self, now: Nanos) {
        self.engine.handle_timeout(self.at(now));
    }
}
