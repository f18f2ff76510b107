//! The engine of one shard: all its lanes, what is due, what is in flight, which barriers are open.

use crate::auto::{Backlog, Learned};
use crate::barrier::{BarrierId, Barriers};
use crate::cause::Cause;
use crate::config::{CommitScope, Config, Pacing};
use crate::due::DueLanes;
use crate::lane::{Epochs, LaneView, State};
use crate::lanes::Lanes;
use crate::name::{LaneId, LaneRef};
use crate::offer::{Accepted, Bound, Group, Refused};
use crate::pace::{Arrival, Leave, Pace};
use crate::phase::Phase;
use crate::schedule::Schedule;
use crate::slot::{Commit, Reason, Slot};
use crate::slots::Slots;
use crate::spares::Spares;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

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
///    [`handle_owner_down`](Self::handle_owner_down), [`configure`](Self::configure), [`close`](Self::close), and
///    [`handle_timeout`](Self::handle_timeout) once [`next_deadline`](Self::next_deadline) has come,
///    and again while that is over. A prefix of [`LONG_PREFIX`](crate::LONG_PREFIX) bytes or more is
///    given as a [`LongPrefix`](crate::LongPrefix), made before the engine is locked.
/// 2. After each input, while somebody can commit, take [`poll_commit`](Self::poll_commit), and what
///    leaves in the same commit from [`poll_part`](Self::poll_part), until there is no more; each
///    batch taken must come back once through `handle_commit_done`, after its callers were answered,
///    of a commit of several parts the first one last.
/// 3. Then empty [`poll_abandoned`](Self::poll_abandoned) (answer these with an error) and
///    [`poll_barrier`](Self::poll_barrier) (tell the waiters), in this order.
/// 4. Sleep until `next_deadline`.
///
/// Each call takes a bounded time for any number of lanes, but for the batches that it hands out;
/// [`close`](Self::close) visits the lanes in flight, [`lanes`](Self::lanes) and
/// [`take_contents`](Self::take_contents) all of them.
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
    /// Calls that are queued.
    pub(crate) queued: u64,
    pub(crate) epochs: Epochs,
    pub(crate) config: Config,
    pub(crate) phase: Phase,
    pub(crate) lanes: Lanes<B>,
    pub(crate) schedule: Schedule,
    /// When what gathers leaves, if one commit takes what is due of all lanes.
    pub(crate) pace: Pace,
    pub(crate) learned: Learned,
    pub(crate) barriers: Barriers,
    pub(crate) flights: Flights,
    /// Queues that nobody will commit.
    pub(crate) abandoned: VecDeque<Slots<B>>,
    /// Lanes that held something when their life was closed: what is stale in them is abandoned too.
    pub(crate) closed: VecDeque<DueLanes>,
    pub(crate) spares: Spares<B>,
}

/// What is in flight, of this life and of earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    /// How many commits are of this life: commits of earlier ones may hang, and take no room (11.1).
    pub(crate) of_life: usize,
    /// When one ended last.
    pub(crate) freed: Option<Instant>,
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
            queued: 0,
            epochs: Epochs::default(),
            config: Config::default(),
            phase: Phase::Closed,
            lanes: Lanes::default(),
            schedule: Schedule::default(),
            pace: Pace::default(),
            learned: Learned::default(),
            barriers: Barriers::default(),
            flights: Flights::default(),
            abandoned: VecDeque::new(),
            closed: VecDeque::new(),
            spares: Spares::default(),
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
    /// If the engine has contradicted itself: see [`take_contents`](Self::take_contents).
    pub fn offer(
        &mut self,
        now: Instant,
        lane: LaneRef<'_>,
        group: Group,
        window: Duration,
    ) -> Result<Accepted<'_, B>, Refused> {
        let (max, pacing) = (self.config.max(lane), self.config.pacing);
        let together = self.config.commit_scope == CommitScope::Shard;
        self.admit(lane, group)?;
        let (id, lane) = self.lanes.find_or_open(lane);
        if lane.queue.back().is_some_and(|last| last.epoch < self.epochs.now) {
            self.abandoned.extend(lane.catch_up(self.epochs));
        }
        let gate_is_open = self.schedule.gate.open.is_some();
        let opens = lane.fit(group, max, &self.config, self.epochs.now, gate_is_open)?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.items += group.items();
        self.bytes += group.bytes;

        let is_first = lane.state == State::Idle
            && (!together || self.queued + self.flights.of_life as u64 == 0);
        if opens {
            // As many as left the lane last.
            let contents = self.spares.take(lane.last_groups).unwrap_or_default();
            let slot = Slot::open(now, window, ticket, self.epochs.now, contents);
            lane.queue.push_back(slot);
            self.barriers.opened();
        }
        let slot = lane.queue.back_mut().expect("just opened or found to fit");
        slot.count(group);
        slot.sealed = max.is_some_and(|max| slot.cost >= max);
        self.queued += 1;

        let waiting = match together {
            true => {
                let window = self.schedule.gate.window(slot.window);
                Backlog { groups: self.queued, window }
            }
            false => Backlog { groups: slot.groups, window: slot.window },
        };
        let pace = if together { &mut self.pace } else { &mut lane.pace };
        // Mostly the first to come back was one of the callers just answered, and the rest need not be asked.
        let leave = if slot.follows {
            Leave::Window
        } else {
            let (writer, life_from) = (group.writer, self.epochs.life_from);
            let arrival = Arrival { now, writer, life_from, is_first, waiting };
            pace.arrive(pacing, &arrival, &mut self.learned)
        };
        slot.follows |= pace.is_answering() && (leave == Leave::Now || window.is_zero());
        let ready = match leave {
            _ if window.is_zero() => Some(Reason::Immediate),
            // What the callers of a commit write while they are being answered leaves together, when it ends.
            Leave::Now if !pace.is_answering() => Some(Reason::Commit),
            Leave::Now | Leave::By(_) | Leave::Window => None,
        };
        let goes_now = ready.is_some() || slot.sealed;
        let can_be_alone = is_first && group.waits && pacing == Pacing::Auto;
        let is_alone =
            can_be_alone && goes_now && self.phase == Phase::Running && !self.is_at_limit();
        if is_alone {
            self.depart(now, id, Reason::Alone, id);
        } else if opens || goes_now || leave != Leave::Window {
            self.place(id, self.cause(now, ready, leave));
        }
        let lane = self.lanes.lane(id).expect("as above");
        let slot = if is_alone { lane.in_flight.as_mut() } else { lane.queue.back_mut() };
        let contents = &mut slot.expect("it holds the group").contents;
        Ok(Accepted { ticket, contents, lane: id, is_alone })
    }

    fn admit(&self, lane: LaneRef<'_>, group: Group) -> Result<(), Refused> {
        self.phase.refuses().map_or(Ok(()), Err)?;
        self.config.admit(lane, group)?;
        let items = self.items.saturating_add(group.items());
        let bytes = self.bytes.saturating_add(group.bytes);
        match self.items {
            // It takes any one group.
            0 => Ok(()),
            _ if items > self.config.max_items => Err(Refused::Overloaded(Bound::Items)),
            _ if bytes > self.config.max_bytes => Err(Refused::Overloaded(Bound::Bytes)),
            _ => Ok(()),
        }
    }

    pub(crate) fn cause(&self, now: Instant, ready: Option<Reason>, leave: Leave) -> Cause {
        let held_until = if let Leave::By(until) = leave { Some(until) } else { None };
        let stopping = self.phase == Phase::Stopping;
        Cause { now, ready, held_until, epoch: self.epochs.now, stopping }
    }

    /// Decides what a lane waits for.
    pub(crate) fn place(&mut self, id: LaneId, cause: Cause) {
        let is_at_limit = self.is_at_limit();
        let lane = self.lanes.lane(id).expect("it was just written to or answered");
        match self.config.commit_scope {
            CommitScope::Lane => self.schedule.place(id, lane, cause),
            CommitScope::Shard => self.schedule.place_in_shard(id, lane, cause, is_at_limit),
        }
    }

    /// The first slot of a lane leaves, in the commit that the slot of `head` leads: its own, if that is this lane.
    pub(crate) fn depart(
        &mut self,
        now: Instant,
        id: LaneId,
        reason: Reason,
        head: LaneId,
    ) -> Commit<'_, B> {
        let leads = head == id;
        let lane = self.lanes.lane(id).expect("a due lane holds a slot");
        (lane.state, lane.head, lane.place_in_flight) =
            (State::Busy, head, self.flights.lanes.len());
        lane.in_flight = lane.queue.pop_front();
        let slot = lane.in_flight.as_mut().expect("a due lane holds a slot");
        let together = self.config.commit_scope == CommitScope::Shard;
        let pace = if together { &mut self.pace } else { &mut lane.pace };
        let freed = if together { self.flights.freed } else { lane.freed };
        slot.left = Some(now);
        slot.ready = Some(freed.map_or(slot.opened, |freed| freed.max(slot.opened)));
        if together {
            slot.held_until = self.schedule.gate.held_until;
        }
        (lane.last_groups, lane.done) = (slot.groups, lane.done.and(slot));
        if leads {
            slot.paced = reason == Reason::Commit;
            pace.begin(self.config.pacing, slot.callers);
        } else {
            pace.join(self.config.pacing, slot.callers);
        }
        if together && leads {
            self.schedule.gate.begin(id, slot, reason);
        }
        if together && self.schedule.count() == 0 {
            self.schedule.gate.shut();
        }
        self.queued -= slot.groups;
        self.flights.lanes.push(id);
        self.flights.of_life += usize::from(leads);
        self.flights.items += slot.items;
        self.flights.bytes += slot.bytes;
        Commit { lane: id, key: &lane.key, slot, reason }
    }

    /// Whether so many commits are in flight as may be.
    pub(crate) fn is_at_limit(&self) -> bool {
        self.flights.of_life >= self.config.max_in_flight
    }

    /// What the driver kept in a slot, emptied: a slot to come gets it, and its memory with it. So many groups are the
    /// most that it has ever held. Returned if there are enough of these.
    pub fn recycle(&mut self, contents: B, groups: u64) -> Option<B> {
        self.spares.keep(contents, groups)
    }

    /// Time has passed: windows end, and so does the wait for a successor, in which case the shard
    /// is closed. Ends a bounded number of windows: while `next_deadline` is over, call it again.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Orphaned(until) if until <= now) {
            self.close();
        }
        if self.gate_deadline().is_some_and(|deadline| deadline <= now) {
            self.schedule.gate.open = Some(Reason::Window);
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
        let window = [window, self.gate_deadline()].into_iter().flatten().min();
        match self.phase {
            Phase::Orphaned(until) => Some(window.map_or(until, |window| window.min(until))),
            _ => window,
        }
    }

    /// When the gate opens, if what waits there could leave then.
    fn gate_deadline(&self) -> Option<Instant> {
        self.schedule.gate.next_deadline().filter(|_| !self.is_at_limit())
    }

    /// The next barrier that is done.
    pub fn poll_barrier(&mut self) -> Option<BarrierId> {
        self.barriers.poll()
    }

    /// Its limits and habits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The life of the shard.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Lanes in flight.
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
}
