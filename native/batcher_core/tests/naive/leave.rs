//! What leaves next in the model, and why.
//!
//! Invariant: only `depart` moves a slot, from the queue to its lane's flight.

use super::slot::Due;
use super::{ALL, Cause, Life, Naive, Place, Slot};
use batcher_core::{CommitScope, Group, Pacing, Reason};
use std::collections::BTreeSet;
use std::time::Duration;

impl Naive {
    /// The slots of which one is to leave next; empty when nothing may.
    pub(crate) fn next_to_leave(&self) -> Vec<usize> {
        let due = |slot: &usize| self.slots[*slot].due.as_ref().map(|due| due.since);
        let waiting = if self.wanted() == 0 {
            Vec::new()
        } else if self.together() {
            return self.next_front();
        } else {
            self.due()
        };
        let first = waiting.iter().filter_map(due).min();
        waiting.into_iter().filter(|slot| due(slot) == first).collect()
    }

    /// Of what waits in all lanes: first what another owner had leave lane by lane, and then the oldest.
    fn next_front(&self) -> Vec<usize> {
        let fronts = self.fronts();
        let due = |slot: &usize| self.slots[*slot].due.as_ref().map(|due| due.since);
        let first = fronts.iter().filter_map(due).min();
        if first.is_some() {
            return fronts.into_iter().filter(|slot| due(slot) == first).collect();
        }
        let oldest = fronts.into_iter().min_by_key(|&slot| self.slots[slot].tickets()[0]);
        oldest.into_iter().collect()
    }

    /// The slots of which one is the next part of the commit that has just been begun; none if nothing is left.
    pub(crate) fn parts(&self) -> Vec<usize> {
        if self.loading.is_empty() || !self.together() { Vec::new() } else { self.next_front() }
    }

    /// Whether a slot may be in one commit with the parts that are in it.
    pub(crate) fn fits(&self, slot: usize) -> bool {
        let slots = self.loading.iter().chain([&slot]).map(|&slot| &self.slots[slot]);
        let groups: Vec<Group> =
            slots.clone().flat_map(|slot| &slot.groups).map(|&(_, group)| group).collect();
        let cost: u64 = groups.iter().map(|group| group.cost).sum();
        let fits = self.config.hot_max.is_none_or(|max| max > 0 && cost <= max);
        fits && !slots.clone().any(Slot::is_apart) && self.above_budgets(&groups).is_none()
    }

    /// The slot leaves with those before it.
    pub(crate) fn leave_too(&mut self, slot: usize) {
        let head = self.loading[0];
        self.depart(slot, head);
    }

    /// Nothing more leaves in this commit.
    pub(crate) fn complete(&mut self) {
        self.loading.clear();
    }

    /// How many slots may leave now.
    pub(crate) fn wanted(&self) -> usize {
        let due = match self.together() {
            true => usize::from(self.gate.is_some() && !self.fronts().is_empty()),
            false => self.due().len(),
        };
        match self.life {
            Life::Running | Life::Stopping => due.min(self.room()),
            Life::Closed | Life::Orphaned(_) => 0,
        }
    }

    /// How many more commits may be in flight.
    fn room(&self) -> usize {
        let heads = (0..self.slots.len()).filter(|&slot| self.slots[slot].head == slot);
        let of_life = |slot: &usize| self.is_of_life(*slot);
        let in_flight = |slot: &usize| self.slots[*slot].place == Place::InFlight;
        let count = heads.filter(in_flight).filter(of_life).count();
        self.config.max_in_flight.saturating_sub(count)
    }

    pub(super) fn is_of_life(&self, slot: usize) -> bool {
        self.slots[slot].tickets().iter().any(|&ticket| ticket >= self.closed_until)
    }

    /// All slots that are to leave as soon as somebody may and can commit them.
    fn due(&self) -> Vec<usize> {
        let wanted = |slot: &Slot| slot.place == Place::Queued && slot.due.is_some();
        (0..self.slots.len()).filter(|&slot| wanted(&self.slots[slot])).collect()
    }

    /// The slot leaves, as the first of a commit. Each of the reasons returned explains it.
    pub(crate) fn leave(&mut self, slot: usize) -> Vec<Reason> {
        let due = self.slots[slot].due.as_ref().map(|due| due.reasons.clone());
        let mut reasons = if self.together() { self.gate.clone() } else { due }.unwrap_or_default();
        if self.life == Life::Stopping {
            reasons.push(Reason::Stop);
        }
        let better = [Reason::Stop, Reason::Flush, Reason::Immediate];
        self.slots[slot].paced = reasons.contains(&Reason::Commit)
            && !reasons.iter().any(|reason| better.contains(reason));
        self.loading.clear();
        self.depart(slot, slot);
        reasons
    }

    fn depart(&mut self, slot: usize, head: usize) {
        self.inputs += 1;
        let left = &mut self.slots[slot];
        left.due = None;
        (left.place, left.head, left.left) = (Place::InFlight, head, self.inputs);
        self.loading.push(slot);
        if self.fronts().is_empty() {
            self.gate = None;
        }
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
        let shut = !self.together() || self.gate.is_none() && self.room() > 0;
        let windows = first.filter(|slot| shut && slot.due.is_none()).map(Slot::deadline);
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

    /// Whether one commit takes what is due of all lanes.
    pub(super) fn together(&self) -> bool {
        self.config.commit_scope == CommitScope::Shard
    }

    /// The first slots of all lanes that are not in flight.
    pub(super) fn fronts(&self) -> Vec<usize> {
        let idle = self.lanes().into_iter().filter(|&lane| self.in_flight(lane).is_none());
        idle.filter_map(|lane| self.queued(lane).first().copied()).collect()
    }

    /// What is in flight here paces what is queued there. A commit of a closed life keeps only its lane waiting.
    pub(super) fn channel_of(&self, slot: usize) -> usize {
        if self.together() && self.is_of_life(slot) { ALL } else { self.slots[slot].lane }
    }

    pub(super) fn is_answering(&self, channel: usize) -> bool {
        self.answering.keys().any(|&(other, _)| other == channel)
    }

    pub(super) fn lanes(&self) -> BTreeSet<usize> {
        self.slots.iter().map(|slot| slot.lane).collect()
    }

    pub(super) fn look_at_all(&mut self, now: Duration, cause: Cause) {
        if self.together() {
            return self.look_at_gate(now, cause);
        }
        for lane in self.lanes() {
            self.look_at(now, lane, cause);
        }
    }

    /// Something has happened in this lane.
    pub(super) fn look(&mut self, now: Duration, lane: usize, cause: Cause) {
        match self.together() {
            // What is queued there can't leave, whatever has come.
            true if self.in_flight(lane).is_some() => {}
            true => self.look_at_gate(now, cause),
            false => self.look_at(now, lane, cause),
        }
    }

    /// Is the first slot of an idle lane to leave now?
    pub(super) fn look_at(&mut self, now: Duration, lane: usize, cause: Cause) {
        let Some(&first) = self.queued(lane).first() else { return };
        if self.in_flight(lane).is_some() || self.slots[first].due.is_some() {
            return;
        }
        // A write that comes late does not end the window; whoever watches the clock does.
        let looks_at_clock = !matches!(cause, Cause::Offer { .. });
        let reasons = self.reasons(now, &[first], cause, looks_at_clock);
        if reasons.is_empty() {
            return;
        }
        let slot = &mut self.slots[first];
        let deadline = if cause == Cause::Clock { slot.deadline() } else { Duration::ZERO };
        slot.due = Some(Due { since: (self.inputs, deadline), reasons });
    }

    /// Is what waits in all lanes to leave now?
    pub(super) fn look_at_gate(&mut self, now: Duration, cause: Cause) {
        let fronts = self.fronts();
        if self.gate.is_some() || fronts.is_empty() || self.room() == 0 {
            return;
        }
        let looks_at_clock = !matches!(cause, Cause::Offer { looks: false, .. });
        let reasons = self.reasons(now, &fronts, cause, looks_at_clock);
        self.gate = Some(reasons).filter(|reasons| !reasons.is_empty());
    }

    /// Why these slots are to leave now.
    fn reasons(&self, now: Duration, slots: &[usize], cause: Cause, looks: bool) -> Vec<Reason> {
        let any = |holds: fn(&Slot) -> bool| slots.iter().any(|&slot| holds(&self.slots[slot]));
        let over = |&slot: &usize| self.slots[slot].deadline() <= now;
        let paced = self.config.pacing == Pacing::Commit;
        let reasons = [
            (self.life == Life::Stopping, Reason::Stop),
            (any(|slot| slot.flushed), Reason::Flush),
            (any(|slot| slot.full), Reason::Size),
            (matches!(cause, Cause::Offer { window_0: true, .. }), Reason::Immediate),
            (paced && cause == Cause::CommitDone { follows: true }, Reason::Commit),
            (matches!(cause, Cause::Offer { returns: true, .. }), Reason::Commit),
            (looks && slots.iter().any(over), Reason::Window),
        ];
        reasons.into_iter().filter(|&(holds, _)| holds).map(|(_, reason)| reason).collect()
    }
}
