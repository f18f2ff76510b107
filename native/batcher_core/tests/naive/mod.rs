//! The contract once more, as plainly as it can be written: a list of all slots that ever were,
//! searched from end to end at each question. Slow, and nothing is kept that can be counted.
//!
//! Invariant: every group is in exactly one slot and no slot is ever removed or moved, so that
//! the order of the list is the order of arrival.

mod leave;
mod slot;

use batcher_core::{Bound, Config, Group, Overflow, Pacing, Reason, Refused, Usage};
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
    /// `looks`: at the clock as well, where lanes leave together.
    Offer {
        window_0: bool,
        returns: bool,
        looks: bool,
    },
    /// `follows`: what is first belongs to the commit that has ended.
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
    /// The first ticket of this life, from its begin on.
    life_from: u64,
    /// The first ticket after the last close.
    closed_until: u64,
    /// The commits whose callers are being answered, by channel and first slot: the first ticket after that had begun.
    answering: BTreeMap<(usize, usize), u64>,
    /// By channel, the processes that its last commits have answered.
    answered: BTreeMap<usize, BTreeSet<u64>>,
    /// Channels whose last commit was paced by the one before, and until when that counts.
    paced: BTreeMap<usize, Duration>,
    /// Why what waits in all lanes leaves, if that leaves together, and does.
    gate: Option<Vec<Reason>>,
    /// The slots of the commit that is being put together.
    loading: Vec<usize>,
}

/// The channel of all lanes; those of single lanes have their numbers.
const ALL: usize = usize::MAX;

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
            closed_until: 0,
            answering: BTreeMap::new(),
            answered: BTreeMap::new(),
            paced: BTreeMap::new(),
            gate: None,
            loading: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self, now: Duration, config: Config) {
        if self.life == Life::Closed {
            self.life_from = self.tickets;
        }
        self.life = Life::Running;
        self.configure(now, config);
    }

    pub(crate) fn configure(&mut self, now: Duration, config: Config) {
        if self.life == Life::Closed {
            return;
        }
        self.inputs += 1;
        let other_scope = self.config.commit_scope != config.commit_scope;
        self.config = config;
        if other_scope {
            self.gate = None;
            self.flush_all();
            self.lanes().into_iter().for_each(|lane| self.look_at(now, lane, Cause::Other));
        }
        if self.together() {
            self.look_at_gate(now, Cause::Other);
        }
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
        let over = |cost: u64| max.is_some_and(|max| cost > max);
        if self.config.budgets.is_some() && is_hot && over(group.cost) {
            return Err(Refused::Overloaded(Bound::Slot));
        }
        if let Some(refused) = self.above_budgets(&[group]) {
            return Err(refused);
        }
        let held = self.slots.iter().filter(|slot| slot.is_held()).flat_map(|slot| &slot.groups);
        let held: Vec<Group> = held.map(|&(_, group)| group).chain([group]).collect();
        let items: u64 = held.iter().map(|group| group.cost.max(1)).sum();
        let bytes: u64 = held.iter().map(|group| group.bytes).sum();
        if held.len() > 1 && items > self.config.max_items {
            return Err(Refused::Overloaded(Bound::Items));
        }
        if held.len() > 1 && bytes > self.config.max_bytes {
            return Err(Refused::Overloaded(Bound::Bytes));
        }

        // Why the group can't be in one commit with what a slot holds.
        let apart = |slot: Option<&Slot>| {
            let with = slot.into_iter().flat_map(|slot| &slot.groups).map(|&(_, group)| group);
            let with: Vec<Group> = with.chain([group]).collect();
            let cost = with.iter().map(|group| group.cost).sum();
            if over(cost) {
                Some(Refused::Overloaded(Bound::Slot))
            } else {
                self.above_budgets(&with)
            }
        };
        let mut behind = self.queued(lane);
        let is_busy = self.in_flight(lane).is_some();
        let leaves = behind.first().is_some_and(|&first| {
            let first = &self.slots[first];
            let is_due = first.due.is_some();
            let with_others = self.together() && (self.gate.is_some() || first.shut);
            !is_busy && (is_due || with_others)
        });
        if leaves {
            behind.remove(0);
        }
        if self.config.overflow == Overflow::Refuse && (leaves || is_busy) {
            let gathering = behind.last().map(|&slot| &self.slots[slot]);
            if let Some(refused) = apart(gathering.filter(|slot| !slot.flushed)) {
                return Err(refused);
            }
        }
        let last = self.queued(lane).last().copied();
        if let Some(last) = last
            && !self.slots[last].shut
            && (apart(Some(&self.slots[last])).is_some()
                || self.together() && (group.apart || self.slots[last].is_apart()))
        {
            self.slots[last].shut = true;
            self.slots[last].full = true;
        }
        let joins = last.filter(|&last| !self.slots[last].shut);
        let slot = joins.unwrap_or_else(|| {
            self.slots.push(Slot::new(lane, now, window));
            self.slots.len() - 1
        });
        let channel = if self.together() { ALL } else { lane };
        let lingers = self.paced.get(&channel).is_some_and(|&until| now < until);
        let answering = self.is_answering(channel);
        let answered = self.answered.get(&channel);
        let returns = (lingers || answering)
            && answered.is_some_and(|answered| answered.contains(&group.writer));
        let slot = &mut self.slots[slot];
        let looks = joins.is_none() || returns && !slot.follows;
        slot.follows |= answering && (returns || window.is_zero());
        let ticket = self.tickets;
        self.tickets += 1;
        slot.groups.push((ticket, group));
        if over(slot.cost() + 1) {
            slot.shut = true;
            slot.full = true;
        }
        // While callers are being answered, what they write leaves together, when that ends.
        let returns = returns && !answering;
        self.look(now, lane, Cause::Offer { window_0: window.is_zero(), returns, looks });
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
        self.flush_all();
        self.look_at_all(now, Cause::Other);
        id
    }

    fn flush_all(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.place == Place::Queued) {
            slot.shut = true;
            slot.flushed = true;
        }
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
        self.closed_until = self.tickets;
        for slot in self.slots.iter_mut().filter(|slot| slot.place == Place::Queued) {
            slot.place = Place::Abandoned;
        }
        self.gate = None;
        self.answering.retain(|&(channel, _), _| channel != ALL);
        self.answered.remove(&ALL);
        self.paced.clear();
    }

    /// The commit of this lane has ended, the callers of the lane are being answered.
    pub(crate) fn answering(&mut self, lane: usize) {
        self.inputs += 1;
        let slot = self.in_flight(lane).expect("the test names what is in flight");
        if std::mem::replace(&mut self.slots[slot].answering, true) {
            return;
        }
        let channel = self.channel_of(slot);
        if !self.is_answering(channel) {
            self.answered.remove(&channel);
        }
        let commit = if channel == ALL { self.slots[slot].head } else { slot };
        self.answering.entry((channel, commit)).or_insert(self.tickets);
        let writers = self.slots[slot].groups.iter().map(|(_, group)| group.writer);
        let paced = self.config.pacing == Pacing::Commit;
        self.answered.entry(channel).or_default().extend(writers.filter(|_| paced));
    }

    /// The commit that was in flight in this lane, and perhaps in others; the lane's slot.
    pub(crate) fn commit_done(
        &mut self,
        now: Duration,
        lane: usize,
        is_kept: impl Fn(usize) -> bool,
    ) -> usize {
        let slot = self.in_flight(lane).expect("the test ends what it began");
        let head = self.slots[slot].head;
        let in_flight = |slot: &Slot| slot.head == head && slot.place == Place::InFlight;
        let mut parts: Vec<usize> = (0..self.slots.len()).collect();
        parts.retain(|&part| in_flight(&self.slots[part]));
        parts.sort_by_key(|&part| self.slots[part].left);
        for &part in &parts {
            self.answering(self.slots[part].lane);
        }
        for &part in parts.iter().rev() {
            self.part_done(now, part, is_kept(self.slots[part].lane));
        }
        slot
    }

    /// A lane that is not kept while it is idle forgets its pace.
    fn part_done(&mut self, now: Duration, part: usize, is_kept: bool) {
        let (channel, lane) = (self.channel_of(part), self.slots[part].lane);
        self.slots[part].place = Place::Answered;
        let from = self.answering.remove(&(channel, part));
        self.answering.retain(|&(_, slot), _| slot != part);
        let queued = self.queued(lane);
        let forgotten = !is_kept && queued.is_empty();
        if forgotten {
            self.paced.remove(&lane);
            self.answered.remove(&lane);
        }
        let is_head = self.slots[part].head == part;
        if channel == ALL && !is_head {
            // The commit has not ended yet.
            return;
        }
        self.paced.remove(&channel);
        let follows_one = self.slots[part].paced && self.config.pacing == Pacing::Commit;
        let lingers = follows_one && (channel == ALL || !forgotten);
        if lingers && self.is_of_life(part) {
            self.paced.insert(channel, now + self.config.linger);
        }
        if !lingers && !self.is_answering(channel) {
            self.answered.remove(&channel);
        }
        let first: Vec<usize> =
            if channel == ALL { self.fronts() } else { queued.into_iter().take(1).collect() };
        let mut first = first.iter().map(|&slot| &self.slots[slot]);
        let before = |slot: &Slot| from.is_none_or(|from| slot.tickets()[0] < from);
        let follows = first.any(|slot| slot.follows || before(slot));
        self.look(now, lane, Cause::CommitDone { follows });
    }

    pub(crate) fn timeout(&mut self, now: Duration) {
        if matches!(self.life, Life::Orphaned(until) if until <= now) {
            self.close();
        }
        self.inputs += 1;
        self.look_at_all(now, Cause::Clock);
    }
}
