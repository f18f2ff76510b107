//! The contract once more, as plainly as it can be written: a list of all slots that ever were,
//! searched from end to end at each question. Slow, and nothing is kept that can be counted.
//!
//! Invariant: every group is in exactly one slot and no slot is ever removed or moved, so that
//! the order of the list is the order of arrival.

mod slot;

use batcher_core::{Config, Group, Overflow, Pacing, Reason, Refused, Usage};
use slot::Due;
pub(crate) use slot::{Place, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Closed,
    Running,
    Stopping,
    Orphaned(Duration),
}

/// Why lanes are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Offer {
        window_0: bool,
        returns: bool,
    },
    /// `follows`: the first slot belongs to the commit that has ended.
    CommitDone {
        follows: bool,
    },
    Clock,
    Other,
}

pub(crate) struct Naive {
    pub(crate) life: Life,
    pub(crate) slots: Vec<Slot>,
    config: Config,
    inputs: u64,
    tickets: u64,
    barriers: Vec<Barrier>,
    /// The first ticket of this life.
    life_from: u64,
    /// Lanes whose commit has ended and whose callers are being answered: the first ticket after that.
    answering: BTreeMap<usize, u64>,
    /// By lane, the processes that its last commit has answered.
    answered: BTreeMap<usize, BTreeSet<u64>>,
    /// Lanes whose last commit was paced by the one before, and until when that counts.
    paced: BTreeMap<usize, Duration>,
}

struct Barrier {
    id: u64,
    done: bool,
    waits_for: Vec<u64>,
}

impl Naive {
    pub(crate) fn new() -> Self {
        Naive {
            life: Life::Closed,
            slots: Vec::new(),
            config: Config::default(),
            inputs: 0,
            tickets: 0,
            barriers: Vec::new(),
            life_from: 0,
            answering: BTreeMap::new(),
            answered: BTreeMap::new(),
            paced: BTreeMap::new(),
        }
    }

    pub(crate) fn open(&mut self, config: Config) {
        self.inputs += 1;
        self.config = config;
        if self.life == Life::Closed {
            self.life_from = self.tickets;
        }
        self.life = Life::Running;
    }

    pub(crate) fn offer(
        &mut self,
        now: Duration,
        lane: usize,
        is_hot: bool,
        group: Group,
        window: Duration,
    ) -> Result<u64, Refused> {
        self.inputs += 1;
        let max = if is_hot { self.config.hot_max } else { self.config.namespace_max };
        match self.life {
            Life::Closed => return Err(Refused::NotRunning),
            Life::Stopping => return Err(Refused::ShuttingDown),
            Life::Running | Life::Orphaned(_) => {}
        }
        let over = |weight: u64| max.is_some_and(|max| weight > max);
        if self.config.budgets.is_some() && is_hot && over(group.weight) {
            return Err(Refused::Overloaded);
        }
        if let Some(refused) = self.above_budgets(&[group]) {
            return Err(refused);
        }
        let held = self.slots.iter().filter(|slot| slot.is_held()).flat_map(|slot| &slot.groups);
        let held: Vec<Group> = held.map(|&(_, group)| group).chain([group]).collect();
        let items: u64 = held.iter().map(|group| group.weight.max(1)).sum();
        let bytes: u64 = held.iter().map(|group| group.bytes).sum();
        let too_much = items > self.config.max_items || bytes > self.config.max_bytes;
        if held.len() > 1 && too_much {
            return Err(Refused::Overloaded);
        }

        // Why the group can't be in one commit with what a slot holds.
        let apart = |slot: Option<&Slot>| {
            let with = slot.into_iter().flat_map(|slot| &slot.groups).map(|&(_, group)| group);
            let with: Vec<Group> = with.chain([group]).collect();
            let weight = with.iter().map(|group| group.weight).sum();
            if over(weight) { Some(Refused::Overloaded) } else { self.above_budgets(&with) }
        };
        let mut behind = self.queued(lane);
        let leaves = behind.first().is_some_and(|&first| self.slots[first].due.is_some());
        if leaves {
            behind.remove(0);
        }
        if self.config.overflow == Overflow::Refuse && (leaves || self.in_flight(lane).is_some()) {
            let gathering = behind.last().map(|&slot| &self.slots[slot]);
            if let Some(refused) = apart(gathering.filter(|slot| !slot.flushed)) {
                return Err(refused);
            }
        }
        let last = self.queued(lane).last().copied();
        if let Some(last) = last
            && !self.slots[last].shut
            && apart(Some(&self.slots[last])).is_some()
        {
            self.slots[last].shut = true;
            self.slots[last].full = true;
        }
        let joins = last.filter(|&last| !self.slots[last].shut);
        let slot = joins.unwrap_or_else(|| {
            let (place, groups) = (Place::Queued, Vec::new());
            self.slots.push(Slot {
                lane,
                groups,
                opened: now,
                window,
                place,
                shut: false,
                full: false,
                flushed: false,
                paced: false,
                follows: false,
                due: None,
            });
            self.slots.len() - 1
        });
        let lingers = self.paced.get(&lane).is_some_and(|&until| now < until);
        let answering = self.answering.contains_key(&lane);
        let answered = self.answered.get(&lane);
        let returns = (lingers || answering)
            && answered.is_some_and(|answered| answered.contains(&group.writer));
        let slot = &mut self.slots[slot];
        slot.follows |= answering && (returns || window.is_zero());
        let ticket = self.tickets;
        self.tickets += 1;
        slot.groups.push((ticket, group));
        if over(slot.weight() + 1) {
            slot.shut = true;
            slot.full = true;
        }
        self.look(now, lane, Cause::Offer { window_0: window.is_zero(), returns });
        Ok(ticket)
    }

    /// Why these groups can't be in one commit, however few there are.
    fn above_budgets(&self, groups: &[Group]) -> Option<Refused> {
        let Usage { command_items, compound_members, visits } = self.config.budgets?;
        let sum =
            |part: fn(&Usage) -> u64| groups.iter().map(|group| part(&group.usage)).sum::<u64>();
        let checks = [
            (sum(|usage| usage.command_items) > command_items, Refused::CommandBudget),
            (sum(|usage| usage.compound_members) > compound_members, Refused::CompoundBudget),
            (sum(|usage| usage.visits) > visits, Refused::CommandBudget),
        ];
        checks.into_iter().find(|&(above, _)| above).map(|(_, refused)| refused)
    }

    pub(crate) fn flush(&mut self, now: Duration) -> u64 {
        self.inputs += 1;
        let id = self.barriers.len() as u64;
        let unanswered = self.slots.iter().filter(|slot| slot.place != Place::Answered);
        let waits_for = unanswered.flat_map(Slot::tickets);
        let waits_for = waits_for.filter(|&ticket| ticket >= self.life_from).collect();
        self.barriers.push(Barrier { id, done: false, waits_for });
        for slot in self.slots.iter_mut().filter(|slot| slot.place == Place::Queued) {
            slot.shut = true;
            slot.flushed = true;
        }
        self.look_at_all(now, Cause::Other);
        id
    }

    pub(crate) fn stop(&mut self, now: Duration) -> u64 {
        if self.life == Life::Running {
            self.life = Life::Stopping;
        }
        self.flush(now)
    }

    pub(crate) fn owner_down(&mut self, now: Duration) {
        self.inputs += 1;
        if matches!(self.life, Life::Running | Life::Stopping) {
            self.life = Life::Orphaned(now + self.config.adoption_timeout);
        }
    }

    pub(crate) fn close(&mut self) {
        self.inputs += 1;
        self.life = Life::Closed;
        for slot in self.slots.iter_mut().filter(|slot| slot.place == Place::Queued) {
            slot.place = Place::Abandoned;
        }
    }

    /// The commit of this lane has ended, its callers are being answered.
    pub(crate) fn answering(&mut self, lane: usize) {
        self.inputs += 1;
        let slot = self.in_flight(lane).expect("the test names what is in flight");
        if self.answering.contains_key(&lane) {
            return;
        }
        self.answering.insert(lane, self.tickets);
        let writers = self.slots[slot].groups.iter().map(|(_, group)| group.writer);
        let paced = self.config.pacing == Pacing::Commit;
        self.answered.insert(lane, writers.filter(|_| paced).collect());
    }

    /// The slot that was in flight. A lane that is not kept while it is idle forgets its pace.
    pub(crate) fn commit_done(&mut self, now: Duration, lane: usize, kept: bool) -> usize {
        self.answering(lane);
        let slot = self.in_flight(lane).expect("the test ends what it began");
        self.slots[slot].place = Place::Answered;
        self.paced.remove(&lane);
        let forgotten = !kept && self.queued(lane).is_empty();
        if self.slots[slot].paced && self.config.pacing == Pacing::Commit && !forgotten {
            self.paced.insert(lane, now + self.config.linger);
        }
        let from = self.answering.remove(&lane).expect("as above");
        let first = self.queued(lane).first().map(|&slot| &self.slots[slot]);
        let follows = first.is_some_and(|slot| slot.follows || slot.tickets()[0] < from);
        self.look(now, lane, Cause::CommitDone { follows });
        slot
    }

    pub(crate) fn timeout(&mut self, now: Duration) {
        if matches!(self.life, Life::Orphaned(until) if until <= now) {
            self.close();
        }
        self.inputs += 1;
        self.look_at_all(now, Cause::Clock);
    }

    /// The slots of which one is to leave next; empty when nothing may.
    pub(crate) fn next_to_leave(&self) -> Vec<usize> {
        let due = |slot: &usize| self.slots[*slot].due.as_ref().map(|due| due.since);
        let waiting = if self.wanted() > 0 { self.due() } else { Vec::new() };
        let first = waiting.iter().filter_map(due).min();
        waiting.into_iter().filter(|slot| due(slot) == first).collect()
    }

    /// How many slots may leave now.
    pub(crate) fn wanted(&self) -> usize {
        let of_life = |slot: &&Slot| slot.tickets().iter().any(|&ticket| ticket >= self.life_from);
        let in_flight = self.slots.iter().filter(|slot| slot.place == Place::InFlight);
        let in_flight = in_flight.filter(of_life).count();
        match self.life {
            Life::Running | Life::Stopping => {
                self.due().len().min(self.config.max_in_flight.saturating_sub(in_flight))
            }
            Life::Closed | Life::Orphaned(_) => 0,
        }
    }

    /// All slots that are to leave as soon as somebody may and can commit them.
    fn due(&self) -> Vec<usize> {
        let wanted = |slot: &Slot| slot.place == Place::Queued && slot.due.is_some();
        (0..self.slots.len()).filter(|&slot| wanted(&self.slots[slot])).collect()
    }

    /// The slot leaves. Each of the reasons returned explains it.
    pub(crate) fn leave(&mut self, slot: usize) -> Vec<Reason> {
        let slot = &mut self.slots[slot];
        slot.place = Place::InFlight;
        let mut reasons = slot.due.take().map_or(Vec::new(), |due| due.reasons);
        if self.life == Life::Stopping {
            reasons.push(Reason::Stop);
        }
        let better = [Reason::Stop, Reason::Flush, Reason::Immediate];
        slot.paced = reasons.contains(&Reason::Commit)
            && !reasons.iter().any(|reason| better.contains(reason));
        reasons
    }

    /// Barriers that have been passed since the last call.
    pub(crate) fn passed(&mut self) -> Vec<u64> {
        let unanswered = self.slots.iter().filter(|slot| slot.place != Place::Answered);
        let unanswered: Vec<u64> = unanswered.flat_map(Slot::tickets).collect();
        let open = self.barriers.iter_mut().filter(|barrier| !barrier.done);
        let passed = open
            .filter(|barrier| barrier.waits_for.iter().all(|ticket| !unanswered.contains(ticket)));
        passed
            .map(|barrier| {
                barrier.done = true;
                barrier.id
            })
            .collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let idle = self.lanes().into_iter().filter(|&lane| self.in_flight(lane).is_none());
        let first =
            idle.filter_map(|lane| self.queued(lane).first().map(|&slot| &self.slots[slot]));
        let windows = first.filter(|slot| slot.due.is_none()).map(Slot::deadline);
        let adoption = match self.life {
            Life::Orphaned(until) => Some(until),
            _ => None,
        };
        windows.chain(adoption).min()
    }

    /// What is queued in this lane, in the order of arrival.
    pub(crate) fn queued(&self, lane: usize) -> Vec<usize> {
        let here = |slot: &Slot| slot.lane == lane && slot.place == Place::Queued;
        (0..self.slots.len()).filter(|&slot| here(&self.slots[slot])).collect()
    }

    pub(crate) fn in_flight(&self, lane: usize) -> Option<usize> {
        self.slots.iter().position(|slot| slot.lane == lane && slot.place == Place::InFlight)
    }

    fn lanes(&self) -> BTreeSet<usize> {
        self.slots.iter().map(|slot| slot.lane).collect()
    }

    fn look_at_all(&mut self, now: Duration, cause: Cause) {
        for lane in self.lanes() {
            self.look(now, lane, cause);
        }
    }

    /// Is the first slot of an idle lane to leave now?
    fn look(&mut self, now: Duration, lane: usize, cause: Cause) {
        let Some(&first) = self.queued(lane).first() else { return };
        if self.in_flight(lane).is_some() || self.slots[first].due.is_some() {
            return;
        }
        let slot = &self.slots[first];
        // A write that comes late does not end the window; whoever watches the clock does.
        let looks_at_clock = !matches!(cause, Cause::Offer { .. });
        let window_ended = looks_at_clock && slot.deadline() <= now;
        let paced = self.config.pacing == Pacing::Commit;
        let reasons = [
            (self.life == Life::Stopping, Reason::Stop),
            (slot.flushed, Reason::Flush),
            (slot.full, Reason::Size),
            (matches!(cause, Cause::Offer { window_0: true, .. }), Reason::Immediate),
            (paced && cause == Cause::CommitDone { follows: true }, Reason::Commit),
            (matches!(cause, Cause::Offer { returns: true, .. }), Reason::Commit),
            (window_ended, Reason::Window),
        ];
        let reasons: Vec<Reason> =
            reasons.into_iter().filter(|&(holds, _)| holds).map(|(_, reason)| reason).collect();
        if reasons.is_empty() {
            return;
        }
        let deadline = if cause == Cause::Clock { slot.deadline() } else { Duration::ZERO };
        self.slots[first].due = Some(Due { since: (self.inputs, deadline), reasons });
    }
}
