//! The committers of a shard and what each of them does.
//!
//! Invariant: a worker is in the list of the idle, is awake and about to take work, sends replies, has the batches of one
//! commit, or is dead and has left such batches; their lanes are free only when the callers of all of them have been answered.

use crate::responders::Handover;
use crate::vm::Vm;
use batcher_core::{LaneId, Reason};
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// An owner that has not said by then why a committer has died won't.
const SILENCE: Duration = Duration::from_millis(500);

/// Names a committer of a shard. None has the number of another, be that dead or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u64);

/// Replies that only a process can send. Each stays here until that is about to send it.
pub type Proxied<V> = Handover<<V as Vm>::Terms>;

/// The lanes of a commit, mostly one.
pub(crate) type LaneIds = SmallVec<[LaneId; 2]>;

/// What a committer does.
pub(crate) enum Worker<V: Vm> {
    /// Does nothing more until it is woken.
    Idle,
    /// Has been woken, or is about to ask anyway.
    Awake,
    /// Sends replies that only a process can send, for as long as that takes. If it dies, another one sends the rest.
    Sending(Proxied<V>),
    /// Has what is in flight of these lanes, which left together for this reason.
    Committing(LaneIds, Reason),
    /// Has died with that. Its callers are told what its owner says.
    Dead(LaneIds, Reason, Option<V::Terms>),
}

struct Entry<V: Vm> {
    committer: V::Committer,
    waker: V::Waker,
    worker: Worker<V>,
}

impl<V: Vm> Entry<V> {
    fn lives(&self) -> bool {
        !matches!(self.worker, Worker::Dead(..))
    }
}

#[derive(Default)]
pub(crate) struct Workers<V: Vm> {
    entries: HashMap<WorkerId, Entry<V>, RandomState>,
    idle: Vec<WorkerId>,
    awake: usize,
    /// The dead whose batches are to be answered, in order.
    dead: VecDeque<WorkerId>,
    /// Replies that only a process can send, until a worker takes them.
    proxied: VecDeque<Proxied<V>>,
    /// The dead that the owner has not spoken of yet, and how long it may take to.
    unexplained: VecDeque<(Instant, WorkerId)>,
    /// How many the owner was asked for that have not joined yet.
    asked_for: usize,
    /// How many have died since that was last asked for.
    deaths: u64,
}

impl<V: Vm> Workers<V> {
    pub(crate) fn join(&mut self, id: WorkerId, committer: V::Committer, waker: V::Waker) {
        self.asked_for = self.asked_for.saturating_sub(1);
        self.entries.insert(id, Entry { committer, waker, worker: Worker::Idle });
        self.idle.push(id);
    }

    /// The next one to be woken.
    pub(crate) fn wake(&mut self) -> Option<V::Waker> {
        let id = self.idle.pop()?;
        let entry = self.entries.get_mut(&id).expect("the idle are there");
        entry.worker = Worker::Awake;
        self.awake += 1;
        Some(entry.waker.clone())
    }

    /// A worker asks for work, and is awake. Returns what it did before; `None` if it is dead, or not known.
    pub(crate) fn ask(&mut self, id: WorkerId) -> Option<Worker<V>> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.lives())?;
        let did = std::mem::replace(&mut entry.worker, Worker::Awake);
        match did {
            Worker::Awake => return Some(did),
            Worker::Idle => self.idle.retain(|idle| *idle != id),
            _ => {}
        }
        self.awake += 1;
        Some(did)
    }

    /// A worker that is awake has this to do.
    pub(crate) fn begin(&mut self, id: WorkerId, lanes: LaneIds, reason: Reason) {
        self.set(id, Worker::Committing(lanes, reason));
    }

    /// The next replies that only a process can send: a worker that is awake has them to send.
    pub(crate) fn send(&mut self, id: WorkerId) -> Option<Proxied<V>> {
        let proxied = self.proxied.pop_front()?;
        self.set(id, Worker::Sending(Handover::clone(&proxied)));
        Some(proxied)
    }

    /// More of them.
    pub(crate) fn add_proxied(&mut self, replies: Proxied<V>) {
        self.proxied.push_back(replies);
    }

    /// A worker that is awake has nothing to do.
    pub(crate) fn rest(&mut self, id: WorkerId) {
        self.set(id, Worker::Idle);
        self.idle.push(id);
    }

    fn set(&mut self, id: WorkerId, worker: Worker<V>) {
        self.awake -= 1;
        self.entries.get_mut(&id).expect("it has asked for work").worker = worker;
    }

    /// A worker that is awake ends.
    pub(crate) fn leave(&mut self, id: WorkerId) {
        self.awake -= 1;
        self.entries.remove(&id);
    }

    /// An idle one ends, if more than `keep` are idle.
    pub(crate) fn retire(&mut self, id: WorkerId, keep: usize) -> bool {
        let idle = matches!(self.entries.get(&id), Some(Entry { worker: Worker::Idle, .. }));
        let leaves = idle && self.idle.len() > keep;
        if leaves {
            self.forget_idle(id);
        }
        leaves
    }

    fn forget_idle(&mut self, id: WorkerId) {
        self.idle.retain(|idle| *idle != id);
        self.entries.remove(&id);
    }

    /// A worker has died. Its owner, if there is one, hears of that too, and knows why.
    pub(crate) fn died(&mut self, id: WorkerId, now: Instant) {
        if self.mark_dead(id, None) {
            self.unexplained.push_back((now + SILENCE, id));
        }
    }

    /// The owner says that a committer has died, perhaps before it could join, and what the callers of its batch are
    /// told.
    pub(crate) fn explain(&mut self, is: impl Fn(&V::Committer) -> bool, reply: V::Terms) {
        let found = self.entries.iter().find(|(_, entry)| is(&entry.committer));
        match found.map(|(&id, _)| id) {
            Some(id) => {
                // It may be there already, if its owner has been silent for long.
                if self.mark_dead(id, Some(reply)) && !self.dead.contains(&id) {
                    self.unexplained.retain(|&(_, dead)| dead != id);
                    self.dead.push_back(id);
                }
            }
            None => self.asked_for = self.asked_for.saturating_sub(1),
        }
    }

    /// True if it leaves a batch that is not to be answered yet.
    fn mark_dead(&mut self, id: WorkerId, reply: Option<V::Terms>) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        self.deaths += u64::from(entry.lives());
        match std::mem::replace(&mut entry.worker, Worker::Awake) {
            Worker::Idle => self.forget_idle(id),
            Worker::Awake => self.leave(id),
            Worker::Sending(rest) => {
                self.proxied.push_front(rest);
                self.entries.remove(&id);
            }
            Worker::Committing(lanes, reason) => {
                entry.worker = Worker::Dead(lanes, reason, reply);
                return true;
            }
            Worker::Dead(lanes, reason, before) => {
                let explained = before.is_none() && reply.is_some();
                entry.worker = Worker::Dead(lanes, reason, before.or(reply));
                return explained;
            }
        }
        false
    }

    /// How many have died since this was asked last.
    pub(crate) fn take_deaths(&mut self) -> u64 {
        std::mem::take(&mut self.deaths)
    }

    /// The dead that the owner says nothing of are answered without it: all of them where there is none.
    pub(crate) fn handle_timeout(&mut self, now: Instant, is_owned: bool) {
        while let Some(&(until, id)) = self.unexplained.front()
            && (until <= now || !is_owned)
        {
            self.unexplained.pop_front();
            self.dead.push_back(id);
        }
    }

    /// When that is wanted next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.unexplained.front().map(|&(until, _)| until)
    }

    /// The lane of the next batch that a dead one has left, why that left, and what its callers are told, if the owner
    /// has said that.
    pub(crate) fn poll_dead(&mut self) -> Option<(LaneIds, Reason, Option<V::Terms>)> {
        let id = self.dead.pop_front()?;
        match self.entries.remove(&id)?.worker {
            Worker::Dead(lanes, reason, reply) => Some((lanes, reason, reply)),
            _ => unreachable!("only the dead are among the dead"),
        }
    }

    /// Whether replies are left that only a process can send, or are being sent.
    pub(crate) fn have_replies(&self) -> bool {
        let sends = |entry: &Entry<V>| matches!(entry.worker, Worker::Sending(_));
        !self.proxied.is_empty() || self.entries.values().any(sends)
    }

    /// How many there is something to do for: one for each dead one that has left a batch, one to send replies.
    pub(crate) fn wanted(&self) -> usize {
        self.dead.len() + usize::from(!self.proxied.is_empty())
    }

    /// How many rest.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// How many are about to ask for work.
    pub(crate) fn awake(&self) -> usize {
        self.awake
    }

    /// How many are to be asked for where so many are missing.
    pub(crate) fn ask_for(&mut self, missing: usize) -> usize {
        let more = missing.saturating_sub(self.asked_for);
        self.asked_for += more;
        more
    }

    /// Whatever the owner before was asked for does not come.
    pub(crate) fn handle_new_owner(&mut self) {
        self.asked_for = 0;
    }

    /// The committers that live.
    pub(crate) fn living(&self) -> impl Iterator<Item = &V::Committer> {
        self.entries.values().filter(|entry| entry.lives()).map(|entry| &entry.committer)
    }

    /// The committer that has the batch in flight of this lane, be it dead or not.
    pub(crate) fn committer_of(&self, lane: LaneId) -> Option<&V::Committer> {
        self.lanes().find_map(|(other, committer)| (other == lane).then_some(committer))
    }

    /// The lanes of the batches that are being committed and answered, and the committer of each, be it dead or not.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (LaneId, &V::Committer)> {
        self.entries.values().flat_map(|entry| {
            let lanes: &[LaneId] = match &entry.worker {
                Worker::Committing(lanes, _) | Worker::Dead(lanes, ..) => lanes,
                Worker::Idle | Worker::Awake | Worker::Sending(_) => &[],
            };
            lanes.iter().map(|&lane| (lane, &entry.committer))
        })
    }
}
