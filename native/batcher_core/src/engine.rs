//! The engine of one shard: all its lanes, what is due, what is in flight, who waits for a barrier.

use crate::barrier::{BarrierId, Barriers};
use crate::config::{Config, Overflow, Pacing};
use crate::lane::{LaneId, LaneRef, LaneView, State};
use crate::lanes::Lanes;
use crate::offer::{Accepted, Group, Refused, items};
use crate::phase::Phase;
use crate::slot::{Commit, Reason, Slot};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// So many slots' contents are kept for the next ones.
const SPARES: usize = 4;

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
///    [`handle_timeout`](Self::handle_timeout) once [`next_deadline`](Self::next_deadline) has come.
/// 2. After each input, while somebody can commit, take [`poll_commit`](Self::poll_commit); each
///    batch taken must come back once through `handle_commit_done`, after its callers were answered.
/// 3. Then empty [`poll_abandoned`](Self::poll_abandoned) (answer these with an error) and
///    [`poll_barrier`](Self::poll_barrier) (tell who waits), in this order.
/// 4. Sleep until `next_deadline`.
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
    next_ticket: u64,
    items: u64,
    bytes: u64,
    in_flight: usize,
    config: Config,
    phase: Phase,
    lanes: Lanes<B>,
    timers: BTreeSet<(Instant, LaneId)>,
    due: VecDeque<LaneId>,
    barriers: Barriers,
    abandoned: VecDeque<Slot<B>>,
    /// Tickets before this one are of a life that has been closed.
    life_from: u64,
    /// For the next slots.
    spares: Vec<B>,
}

impl<B: Default> Default for Engine<B> {
    fn default() -> Self {
        Engine {
            config: Config::default(),
            phase: Phase::Closed,
            lanes: Lanes::default(),
            timers: BTreeSet::new(),
            due: VecDeque::new(),
            barriers: Barriers::default(),
            abandoned: VecDeque::new(),
            life_from: 0,
            spares: Vec::new(),
            next_ticket: 0,
            in_flight: 0,
            items: 0,
            bytes: 0,
        }
    }
}

impl<B: Default> Engine<B> {
    /// An owner takes the shard over, with whatever is queued or still in flight (10.4).
    pub fn open(&mut self, now: Instant, config: Config) {
        self.config = config;
        if self.phase == Phase::Closed {
            self.life_from = self.next_ticket;
        }
        self.phase = Phase::Running;
        for id in self.lanes.ids() {
            self.reschedule(now, id, None);
        }
    }

    /// A call's writes arrive. `window` counts if they open a slot (5.1).
    ///
    /// The driver must put the writes, or a place for them, into [`Accepted::contents`] before it polls.
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
        if self.config.overflow == Overflow::Refuse
            && lane.is_behind()
            && let Some(refused) = keeps_out(lane.gathering())
        {
            return Err(refused);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.items += items(group);
        self.bytes += group.bytes;

        let answering = lane.answering_from.is_some();
        let queue = &mut lane.queue;
        let opens =
            !queue.back().is_some_and(|slot| !slot.sealed && keeps_out(Some(slot)).is_none());
        if opens {
            if let Some(full) = queue.back_mut() {
                full.sealed = true;
            }
            let contents = self.spares.pop().unwrap_or_default();
            queue.push_back(Slot::open(now, window, ticket, contents));
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
            self.reschedule(now, id, immediate.or(returns.then_some(Reason::Commit)));
        }
        let queue = &mut self.lanes.lane(id).expect("lanes with slots stay").queue;
        let contents = &mut queue.back_mut().expect("as above").contents;
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

    /// Everything accepted so far is to be committed, windows aside. The barrier is done when all
    /// of it has been answered; later writes neither delay it nor are hurried by it (11.1).
    pub fn handle_flush(&mut self, now: Instant) -> BarrierId {
        let barrier = self.barriers.open();
        let last_ticket = self.next_ticket.checked_sub(1);
        let life_from = self.life_from;
        for id in self.lanes.ids() {
            let Some(lane) = self.lanes.lane(id) else { continue };
            lane.flush_through = last_ticket;
            if let Some(last) = lane.last_mut().filter(|last| last.first_ticket >= life_from) {
                last.sealed = true;
                last.barriers.push(barrier);
                self.barriers.wait_for_one(barrier);
            }
            self.reschedule(now, id, None);
        }
        self.barriers.settle(barrier);
        barrier
    }

    /// The owner wants to end: nothing new is taken, everything leaves. The barrier tells when the
    /// shard is drained (11.3).
    pub fn handle_stop(&mut self, now: Instant) -> BarrierId {
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping;
        }
        self.handle_flush(now)
    }

    /// The owner is gone without a word. What is queued waits for a successor (10.4).
    pub fn handle_owner_down(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Running | Phase::Stopping) {
            self.phase = Phase::Orphaned(now + self.config.adoption_timeout);
        }
    }

    /// No batcher runs any more: what is still queued is abandoned, what is in flight may end.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
        let life_from = self.life_from;
        self.due.clear();
        self.timers.clear();
        for id in self.lanes.ids() {
            let Some(lane) = self.lanes.lane(id) else { continue };
            if lane.state != State::Busy {
                lane.state = State::Idle;
            }
            for slot in lane.queue.drain(..) {
                self.items -= slot.items;
                self.bytes -= slot.bytes;
                // What is in flight is answered apart from what was queued behind it.
                let in_flight = lane.in_flight.as_mut();
                if let Some(in_flight) = in_flight.filter(|slot| slot.first_ticket >= life_from) {
                    for &barrier in &slot.barriers {
                        self.barriers.wait_for_one(barrier);
                        in_flight.barriers.push(barrier);
                    }
                }
                self.abandoned.push_back(slot);
            }
            self.lanes.rest(id);
        }
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
        lane.lingers_until = (paced && lane.paced).then(|| now + self.config.linger);
        let follows = paced && lane.follows();
        lane.answering_from = None;
        if lane.lingers_until.is_none() {
            lane.answered.forget();
        }
        self.in_flight -= 1;
        self.items -= slot.items;
        self.bytes -= slot.bytes;
        self.barriers.passed(&slot.barriers);
        self.reschedule(now, id, follows.then_some(Reason::Commit));
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

    /// Time has passed: windows end, and so does the wait for a successor, in which case
    /// the shard is closed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Orphaned(until) if until <= now) {
            self.close();
        }
        while let Some(&(deadline, id)) = self.timers.first()
            && deadline <= now
        {
            self.timers.pop_first();
            self.set_state(id, State::Due(Reason::Window));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is wanted next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let window = self.timers.first().map(|&(deadline, _)| deadline);
        match self.phase {
            Phase::Orphaned(until) => Some(window.map_or(until, |window| window.min(until))),
            _ => window,
        }
    }

    /// The next batch to commit; its lane is busy from here on. Nothing while no owner is there.
    pub fn poll_commit(&mut self) -> Option<Commit<'_, B>> {
        if self.wanted() == 0 {
            return None;
        }
        let id = self.due.pop_front()?;
        self.in_flight += 1;
        let stopping = self.phase == Phase::Stopping;
        let lane = self.lanes.lane(id).expect("a due lane holds a slot");
        let reason = match lane.state {
            _ if stopping => Reason::Stop,
            State::Due(reason) => reason,
            _ => unreachable!("the lanes in `due` are due"),
        };
        lane.state = State::Busy;
        lane.paced = reason == Reason::Commit;
        let slot = lane.queue.pop_front().expect("a due lane holds a slot");
        let slot = lane.in_flight.insert(slot);
        Some(Commit { lane: id, key: &lane.key, slot, reason })
    }

    /// How many batches [`poll_commit`](Self::poll_commit) would yield now.
    pub fn wanted(&self) -> usize {
        match self.phase {
            Phase::Running | Phase::Stopping => self.due.len(),
            Phase::Closed | Phase::Orphaned(_) => 0,
        }
    }

    /// The next batch that nobody will commit. Its barriers pass.
    pub fn poll_abandoned(&mut self) -> Option<B> {
        let slot = self.abandoned.pop_front()?;
        self.barriers.passed(&slot.barriers);
        Some(slot.contents)
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
        self.in_flight
    }

    /// The lane of this number, while it holds something.
    pub fn lane(&self, id: LaneId) -> Option<LaneView<'_, B>> {
        self.lanes.view(id)
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneView<'_, B>> {
        self.lanes.iter()
    }

    /// Decides what an unbusy lane waits for. `ready` is a reason to leave now, if there is one
    /// beside those that the slot itself carries.
    fn reschedule(&mut self, now: Instant, id: LaneId, ready: Option<Reason>) {
        let stopping = self.phase == Phase::Stopping;
        let Some(lane) = self.lanes.lane(id) else { return };
        if matches!(lane.state, State::Busy | State::Due(_)) {
            return;
        }
        let state = match lane.queue.front() {
            None => State::Idle,
            Some(_) if stopping => State::Due(Reason::Stop),
            Some(slot) if lane.is_flushed(slot) => State::Due(Reason::Flush),
            Some(slot) => match ready {
                Some(Reason::Commit) => State::Due(Reason::Commit),
                _ if slot.sealed => State::Due(Reason::Size),
                Some(reason) => State::Due(reason),
                None if slot.deadline() <= now => State::Due(Reason::Window),
                None => State::Waiting(slot.deadline()),
            },
        };
        self.set_state(id, state);
    }

    fn set_state(&mut self, id: LaneId, state: State) {
        let Some(lane) = self.lanes.lane(id) else { return };
        if let State::Waiting(deadline) = lane.state {
            self.timers.remove(&(deadline, id));
        }
        lane.state = state;
        match state {
            State::Waiting(deadline) => {
                self.timers.insert((deadline, id));
            }
            State::Due(_) => self.due.push_back(id),
            State::Idle | State::Busy => {}
        }
    }
}

impl<B> Engine<B> {
    /// Everything that it still holds, whatever state it is in: for a driver whose engine has failed.
    pub fn into_contents(self) -> impl Iterator<Item = B> {
        let abandoned = self.abandoned.into_iter().map(|slot| slot.contents);
        abandoned.chain(self.lanes.into_contents())
    }
}
