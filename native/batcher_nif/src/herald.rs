//! Heralds as processes of the BEAM, and the replies that they are given.
//!
//! Invariant: only callers that wait for their own call are answered through a herald: each has one
//! reply to come, so that none can overtake another (8).

use crate::arena::{self, Arena, Kept};
use crate::atoms;
use crate::host::Shard;
use batcher_shell::{Inbox, Relay};
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below this many callers a herald is not worth waking.
const FEW: usize = 3;

/// The scheduler on which a process calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u16);

static SCHEDULERS: AtomicU16 = AtomicU16::new(0);

thread_local! {
    static HERE: Cell<Option<Home>> = const { Cell::new(None) };
}

impl Home {
    /// No scheduler, or one where nobody lives: a dirty one.
    pub(crate) const NOWHERE: Home = Home(u16::MAX);

    /// That of the calling process.
    pub(crate) fn here() -> Home {
        HERE.get().unwrap_or_else(|| {
            let home = match arena::on_scheduler() {
                true => Home(SCHEDULERS.fetch_add(1, Ordering::Relaxed)),
                false => Home::NOWHERE,
            };
            HERE.set(Some(home));
            home
        })
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A process that is bound to a scheduler.
pub(crate) struct Herald {
    shard: &'static Shard,
    pid: LocalPid,
    inbox: Inbox<Replies>,
}

#[rustler::resource_impl(name = "batcher_herald")]
impl Resource for Herald {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        self.shard.herald_down(|herald| herald.pid == pid);
    }
}

impl Herald {
    /// The calling process as the herald of the scheduler that it runs on, unless there is one.
    pub(crate) fn attend(env: Env<'_>, shard: &'static Shard) -> Option<ResourceArc<Herald>> {
        let pid = env.pid();
        let herald = ResourceArc::new(Herald { shard, pid, inbox: Inbox::default() });
        herald.monitor(Some(env), &pid);
        shard.attend(Home::here().index(), herald.clone()).then_some(herald)
    }

    /// Sends the replies of one relay. True: there are more.
    pub(crate) fn work(&self, env: Env<'_>) -> bool {
        self.inbox.work(|replies| replies.send(Some(env)))
    }
}

/// Replies for callers of one scheduler, as messages that are ready to be sent.
pub(crate) struct Replies {
    arena: Arena,
    messages: Vec<(LocalPid, Kept)>,
}

impl Replies {
    fn add(&mut self, pid: LocalPid, tag: Term<'_>, reply: Term<'_>) {
        let message = self.arena.build(|inside| {
            let env = inside.env();
            (tag.in_env(env), reply.in_env(env)).encode(env)
        });
        self.messages.push((pid, message));
    }

    /// Sends what is left, and says how many that were. `sender` is the calling process, `None` on a
    /// thread of our own.
    pub(crate) fn send(&mut self, sender: Option<Env<'_>>) -> usize {
        let count = self.messages.len();
        while let Some((pid, message)) = self.messages.pop() {
            // One that is no more need not know.
            let _ = self.arena.send_copy(sender, pid, message);
        }
        // The herald may look at it much later.
        self.arena.clear();
        count
    }
}

/// What a herald will be given.
type Given = (ResourceArc<Herald>, Replies);

/// The replies of one call of a committer that are not its own to send.
pub(crate) struct Relays<'a> {
    env: Env<'a>,
    shard: &'static Shard,
    here: Home,
    found: Vec<(Home, Option<Given>)>,
}

impl<'a> Relays<'a> {
    /// None yet, for a committer that runs here.
    pub(crate) fn new(env: Env<'a>, shard: &'static Shard) -> Self {
        Relays { env, shard, here: Home::here(), found: Vec::new() }
    }

    /// True if this reply will be sent by a herald.
    pub(crate) fn take(
        &mut self,
        home: Home,
        pid: LocalPid,
        tag: Term<'_>,
        reply: Term<'_>,
    ) -> bool {
        if home == self.here || home == Home::NOWHERE || self.here == Home::NOWHERE {
            return false;
        }
        match self.at(home) {
            Some((_herald, replies)) => replies.add(pid, tag, reply),
            None => return false,
        }
        true
    }

    fn at(&mut self, home: Home) -> Option<&mut Given> {
        let place = self.found.iter().position(|&(found, _)| found == home);
        let place = place.unwrap_or_else(|| {
            let herald = self.shard.herald(self.env, home.index());
            let empty = || Replies { arena: Arena::default(), messages: Vec::new() };
            self.found.push((home, herald.map(|herald| (herald, empty()))));
            self.found.len() - 1
        });
        self.found[place].1.as_mut()
    }

    /// Gives each herald what is its, and answers those relays.
    pub(crate) fn leave(mut self) -> Vec<Arc<Relay<Replies>>> {
        let mut relays = Vec::new();
        for (herald, mut replies) in self.found.drain(..).filter_map(|(_home, given)| given) {
            // Who has waited longest is sent its reply first.
            replies.messages.reverse();
            if replies.messages.len() < FEW || herald.inbox.is_full() {
                replies.send(Some(self.env));
                continue;
            }
            let relay = Arc::new(Relay::new(replies));
            if herald.inbox.push(Arc::clone(&relay)) {
                Arena::default().send(Some(self.env), herald.pid, |inside| {
                    (&herald, atoms::relay()).encode(inside.env())
                });
            }
            relays.push(relay);
        }
        relays
    }
}

impl Drop for Relays<'_> {
    /// Whoever is in here counts as answered: so it is, even if the call that has put it here fails.
    fn drop(&mut self) {
        for (_herald, replies) in self.found.iter_mut().filter_map(|(_home, given)| given.as_mut())
        {
            replies.send(Some(self.env));
        }
    }
}
