//! The engine of one shard: all its lanes, what is due, what is in flight, who waits for a barrier.

use crate::barrier::{BarrierId, Barriers};
use crate::config::{Config, Overflow, Pacing};
use crate::due::DueLanes;
use crate::lane::{Epochs, LaneView, State};
use crate::lanes::Lanes;
use crate::name::{LaneId, LaneRef};
use crate::offer::{Accepted, Group, Refused, items};
use crate::phase::Phase;
use crate::schedule::{Cause, Schedule};
use crate::slot::{Commit, Reason, Slot};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// So many slots' contents are kept for the next ones.
const SPARES: usize = 4;
/// So many windows end in one call.
const TIMERS_AT_ONCE: usize = 256;

/// What one shard decides by: lanes, their slots, what is in flight, barriers and limits.
///
/// `B` is what the driver keeps in a slot.
///
/// # Driving
///
/// 1. Feed inputs as they happen, each with the time: [`open`](Self::open),
///    [`offer`](Self::offer), [`handle_flush`](Self::handle_flush),
///    [`handle_stop`](Self::handle_stop), [`handle_answering`](Self::handle_answering),
///    [`handle_commit_done`](Self::handle_commit_done),
///    [`handle_owner_down`](Self::handle_owner_down), [`close`](Self::close), and
///    [`handle_timeout`](Self::handle_timeout) once [`next_deadline`](Self::next_deadline) has come,
///    and again while that is over. A prefix of [`LONG_PREFIX`](crate::LONG_PREFIX) bytes or more is
///    given as a [`LongPrefix`](crate::LongPrefix), made before the engine is locked.
/// 2. After each input, while somebody can commit, take [`poll_commit`](Self::poll_commit); each
///    batch taken must come back once through `handle_commit_done`, after its callers were answered.
/// 3. Then empty [`poll_abandoned`](Self::poll_abandoned) (answer these with an error) and
///    [`poll_barrier`](Self::poll_barrier) (tell who waits), in this order.
/// 4. Sleep until `next_deadline`.
///
/// Each call takes a bounded time for any number of lanes, but for the batches that it hands out;
/// [`lanes`](Self::lanes) and [`into_contents`](Self::into_contents) visit all of them.
///
/// # Invariant
///
/// Every accepted group is in exactly one place: a queued slot, a commit in flight, or abandoned;
/// and a lane with queued slots is waiting for a deadline, due, or busy.
///
/// The counts that each write or batch changes come first.
#[derive(Debug)]
#[repr(C)]
pub struct Engine<B> {
    pub(crate) next_ticket: u64,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    pub(crate) epochs: Epochs,
    pub(crate) config: Config,
    pub(crate) phase: Phase,
    pub(crate) lanes: Lanes<B>,
    pub(crate) schedule: Schedule,
    pub(crate) barriers: Barriers,
    pub(crate) flights: Flights,
    /// Queues that nobody will commit.
    pub(crate) abandoned: VecDeque<VecDeque<Slot<B>>>,
    /// Lanes that held something when their life was closed: what is stale in them is abandoned too.
    pub(crate) closed: VecDeque<DueLanes>,
    /// For the next slots.
    spares: Vec<B>,
}

/// What is in flight, of this life and of earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    /// How many of them are of this life: those of earlier ones may hang, and take no room (11.1).
    pub(crate) of_life: usize,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    /// In no order; each lane knows its place here.
    pub(crate) lanes: Vec<LaneId>,
}

impl<B> Default for Engine<B> {
    fn default() -> Self {
        Engine {
            next_ticket: 0,
            items: 0,
            bytes: 0,
            epochs: Epochs::default(),
            config: Config::default(),
            phase: Phase::Closed,
            lanes: Lanes::default(),
            schedule: Schedule::default(),
            barriers: Barriers::default(),
            flights: Flights::default(),
            abandoned: VecDeque::new(),
            closed: VecDeque::new(),
            spares: Vec::new(),
        }
    }
}

impl<B: Default> Engine<B> {
    /// A call's writes arrive. `window` counts if they open a slot (5.1).
    ///
    /// The driver must put the writes, or a place for them, into [`Accepted::contents`] before it polls.
    ///
    /// # Panics
    ///
    /// If the engine has contradicted itself: see [`into_contents`](Self::into_contents).
    pub fn offer(
        &mut self,
        now: Instant,
        lane: LaneRef<'_>,
        group: Group,
        window: Duration,
    ) -> Result<Accepted<'_, B>, Refused> {
        let (max, budgets) = (self.config.max(lane), self.config.budgets);
        self.admit(lane, group)?;
        let id = self.lanes.find_or_open(lane);
        let lane = self.lanes.lane(id).expect("just found or opened");
        let keeps_out = |held: Option<&Slot<B>>| Slot::keeps_out(held, group, max, budgets);
        let opens = match lane.queue.back() {
            Some(last) if last.epoch == self.epochs.now => {
                last.sealed || keeps_out(Some(last)).is_some()
            }
            Some(_) => {
                self.abandoned.extend(lane.catch_up(self.epochs));
                true
            }
            None => true,
        };
        if self.config.overflow == Overflow::Refuse
            && lane.is_behind()
            && let Some(refused) = keeps_out(lane.gathering(self.epochs.now))
        {
            return Err(refused);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.items += items(group);
        self.bytes += group.bytes;

        let answering = lane.answering_from.is_some();
        let queue = &mut lane.queue;
        if opens {
            if let Some(full) = queue.back_mut() {
                full.sealed = true;
            }
            let contents = self.spares.pop().unwrap_or_default();
            queue.push_back(Slot::open(now, window, ticket, self.epochs.now, contents));
            self.barriers.opened();
        }
        let slot = queue.back_mut().expect("just opened or found to fit");
        slot.count(group);
        slot.sealed = max.is_some_and(|max| slot.weight >= max);
        // Mostly the first to come back was one of those just answered, and the rest need not be asked.
        let asks = !slot.follows;
        let sealed = slot.sealed;
        let returns = asks && lane.returns(now, group.writer);
        if answering && asks {
            let slot = lane.queue.back_mut().expect("as above");
            slot.follows = returns || window.is_zero();
        }

        if opens || sealed || returns || window.is_zero() {
            let immediate = window.is_zero().then_some(Reason::Immediate);
            let ready = immediate.or(returns.then_some(Reason::Commit));
            self.schedule.place(
                id,
                lane,
                Cause { now, ready, epoch: self.epochs.now, stopping: false },
            );
        }
        let contents = &mut lane.queue.back_mut().expect("as above").contents;
        Ok(Accepted { ticket, contents })
    }

    fn admit(&self, lane: LaneRef<'_>, group: Group) -> Result<(), Refused> {
        self.phase.refuses().map_or(Ok(()), Err)?;
        self.config.admit(lane, group)?;
        let items = self.items.saturating_add(items(group));
        let bytes = self.bytes.saturating_add(group.bytes);
        let over = items > self.config.max_items || bytes > self.config.max_bytes;
        if over && self.items > 0 { Err(Refused::Overloaded) } else { Ok(()) }
    }

    /// The commit of this lane has ended, and these processes are about to be answered. May be
    /// called several times for one commit, with some of them each time, before they can know.
    ///
    /// Whatever comes from any other process from here on has nothing to do with this commit (5.4).
    pub fn handle_answering(&mut self, id: LaneId, writers: impl Iterator<Item = u64>) {
        let paced = self.config.pacing == Pacing::Commit;
        let Some(lane) = self.lanes.lane(id).filter(|lane| lane.in_flight.is_some()) else {
            return;
        };
        if lane.answering_from.is_none() {
            lane.answering_from = Some(self.next_ticket);
            lane.answered.forget();
        }
        if paced {
            lane.answered.add(writers);
        }
    }

    /// The commit of this lane has ended and its callers have been answered.
    ///
    /// Returns what the driver kept in the batch; `None` if nothing was in flight there.
    pub fn handle_commit_done(&mut self, now: Instant, id: LaneId) -> Option<B> {
        let paced = self.config.pacing == Pacing::Commit;
        let lane = self.lanes.lane(id)?;
        let slot = lane.in_flight.take()?;
        lane.state = State::Idle;
        if let Some(queue) = lane.take_stale(self.epochs) {
            self.abandoned.push_back(queue);
        }
        lane.lingers_until = (paced && lane.paced).then(|| now + self.config.linger);
        let follows = paced && lane.follows();
        lane.answering_from = None;
        if lane.lingers_until.is_none() {
            lane.answered.forget();
        }
        let ready = follows.then_some(Reason::Commit);
        let stopping = self.phase == Phase::Stopping;
        self.schedule.place(id, lane, Cause { now, ready, epoch: self.epochs.now, stopping });
        let flight = lane.flight;
        self.land(flight);
        self.flights.of_life -= usize::from(slot.epoch >= self.epochs.life_from);
        self.flights.items -= slot.items;
        self.flights.bytes -= slot.bytes;
        self.items -= slot.items;
        self.bytes -= slot.bytes;
        self.barriers.answered(slot.epoch);
        self.lanes.rest(id);
        Some(slot.contents)
    }

    /// What the driver kept in a slot, emptied: a slot to come gets it, and its memory with it.
    /// Returned if there are enough of these.
    pub fn recycle(&mut self, contents: B) -> Option<B> {
        if self.spares.len() == SPARES {
            return Some(contents);
        }
        self.spares.push(contents);
        None
    }

    /// Time has passed: windows end, and so does the wait for a successor, in which case the shard
    /// is closed. Ends a bounded number of windows: while `next_deadline` is over, call it again.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Orphaned(until) if until <= now) {
            self.close();
        }
        for _ in 0..TIMERS_AT_ONCE {
            let Some(&(_, id)) =
                self.schedule.timers.first().filter(|&&(deadline, _)| deadline <= now)
            else {
                return;
            };
            self.schedule.timers.pop_first();
            if let Some(lane) = self.lanes.lane(id) {
                lane.state = State::Due;
                self.schedule.due.push(id, Reason::Window);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is wanted next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let window = self.schedule.timers.first().map(|&(deadline, _)| deadline);
        match self.phase {
            Phase::Orphaned(until) => Some(window.map_or(until, |window| window.min(until))),
            _ => window,
        }
    }

    /// The next batch to commit; its lane is busy from here on. Nothing while no owner is there.
    ///
    /// # Panics
    ///
    /// As [`offer`](Self::offer).
    pub fn poll_commit(&mut self) -> Option<Commit<'_, B>> {
        if self.wanted() == 0 {
            return None;
        }
        let (id, reason) = self.schedule.due.pop()?;
        let stopping = self.phase == Phase::Stopping;
        let reason = if stopping { Reason::Stop } else { reason };
        let lane = self.lanes.lane(id).expect("a due lane holds a slot");
        lane.state = State::Busy;
        lane.paced = reason == Reason::Commit;
        lane.flight = self.flights.lanes.len();
        let slot = lane.queue.pop_front().expect("a due lane holds a slot");
        self.flights.lanes.push(id);
        self.flights.of_life += 1;
        self.flights.items += slot.items;
        self.flights.bytes += slot.bytes;
        let slot = lane.in_flight.insert(slot);
        Some(Commit { lane: id, key: &lane.key, slot, reason })
    }

    /// How many batches [`poll_commit`](Self::poll_commit) would yield now.
    pub fn wanted(&self) -> usize {
        match self.phase {
            Phase::Running | Phase::Stopping => self
                .schedule
                .due
                .len()
                .min(self.config.max_in_flight.saturating_sub(self.flights.of_life)),
            Phase::Closed | Phase::Orphaned(_) => 0,
        }
    }

    /// The next barrier that is done.
    pub fn poll_barrier(&mut self) -> Option<BarrierId> {
        self.barriers.poll()
    }

    /// The life of the shard.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Commits in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.lanes.len()
    }

    /// The lane of this number, while it holds something.
    pub fn lane(&self, id: LaneId) -> Option<LaneView<'_, B>> {
        self.lanes.view(id, self.epochs)
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneView<'_, B>> {
        self.lanes_in(0..self.places())
    }

    /// How many places for lanes there are. A lane keeps its own while it holds something.
    pub fn places(&self) -> u32 {
        self.lanes.places()
    }

    /// The lanes in these places: for a driver that looks at some of them at a time.
    pub fn lanes_in(&self, places: Range<u32>) -> impl Iterator<Item = LaneView<'_, B>> {
        self.lanes.iter(places, self.epochs)
    }

    /// One less is in flight.
    fn land(&mut self, flight: usize) {
        self.flights.lanes.swap_remove(flight);
        if let Some(&moved) = self.flights.lanes.get(flight)
            && let Some(lane) = self.lanes.lane(moved)
        {
            lane.flight = flight;
        }
    }
}
