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

    /// Sends the replies of one relay, but for those that the process itself is to send. True: there are more relays.
    pub(crate) fn work<'a>(&self, env: Env<'a>) -> (bool, Vec<Term<'a>>) {
        let mut proxied = Vec::new();
        let more = self.inbox.work(|replies| proxied = replies.send(env));
        (more, proxied)
    }
}

/// Replies for callers of one scheduler, as messages that are ready to be sent.
#[derive(Default)]
pub(crate) struct Replies {
    arena: Arena,
    messages: Vec<(LocalPid, Kept)>,
    /// Those that only a process can send, `{to, message}`.
    proxied: Vec<Kept>,
}

impl Replies {
    pub(crate) fn len(&self) -> usize {
        self.messages.len() + self.proxied.len()
    }

    fn add(&mut self, pid: LocalPid, tag: Term<'_>, reply: Term<'_>) {
        let message = self.arena.build(|inside| {
            let env = inside.env();
            (tag.in_env(env), reply.in_env(env)).encode(env)
        });
        self.messages.push((pid, message));
    }

    /// `build` makes `{to, message}`.
    fn add_proxied(&mut self, build: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        self.proxied.push(self.arena.build(|inside| build(inside.env())));
    }

    /// Sends what the library can send. `sender` is the calling process, `None` on a thread of our own.
    fn send_direct(&mut self, sender: Option<Env<'_>>) {
        // Who has waited longest is sent its reply first.
        for (pid, message) in self.messages.drain(..) {
            // One that is no more need not know.
            let _ = self.arena.send_copy(sender, pid, message);
        }
    }

    /// Sends what is left, but for what the calling process is to send at once, which is returned.
    pub(crate) fn send<'a>(&mut self, sender: Env<'a>) -> Vec<Term<'a>> {
        self.send_direct(Some(sender));
        let arena = &self.arena;
        let copy = |kept| arena.enter(|inside| inside.term(kept).in_env(sender));
        let proxied = self.proxied.drain(..).map(copy).collect();
        // The herald may look at it much later.
        self.arena.clear();
        proxied
    }

    /// Sends what is left, from a thread of our own or where the calling process has failed. What only a process can
    /// send is copied to `left`, as `{to, message}`.
    pub(crate) fn fail(
        &mut self,
        sender: Option<Env<'_>>,
        left: &mut Arena,
        proxied: &mut Vec<Kept>,
    ) {
        self.send_direct(sender);
        let arena = &self.arena;
        let copy = |kept| arena.enter(|inside| left.keep(inside.term(kept)));
        proxied.extend(self.proxied.drain(..).map(copy));
        self.arena.clear();
    }
}

/// Replies and the herald that will be given them: without one, they are left for the end of the batch.
type Given = (Option<ResourceArc<Herald>>, Replies);

/// The replies of one call of a committer that are not its own to send.
pub(crate) struct Relays<'a> {
    env: Env<'a>,
    shard: &'static Shard,
    here: Home,
    found: Vec<(Home, Given)>,
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
            (Some(_herald), replies) => replies.add(pid, tag, reply),
            (None, _) => return false,
        }
        true
    }

    /// This reply, `{to, message}`, will be sent by a process.
    pub(crate) fn take_proxied(
        &mut self,
        home: Home,
        build: impl for<'b> FnOnce(Env<'b>) -> Term<'b>,
    ) {
        self.at(home).1.add_proxied(build);
    }

    fn at(&mut self, home: Home) -> &mut Given {
        let place = self.found.iter().position(|&(found, _)| found == home);
        let place = place.unwrap_or_else(|| {
            let lives = home != Home::NOWHERE;
            let herald = lives.then(|| self.shard.herald(self.env, home.index())).flatten();
            self.found.push((home, (herald, Replies::default())));
            self.found.len() - 1
        });
        &mut self.found[place].1
    }

    /// Gives each herald what is its, and answers the relays that have to be sent before the batch ends.
    pub(crate) fn leave(mut self) -> Vec<Arc<Relay<Replies>>> {
        let mut relays = Vec::new();
        for (_home, (herald, mut replies)) in self.found.drain(..) {
            let herald = herald.filter(|herald| replies.len() >= FEW && !herald.inbox.is_full());
            if herald.is_none() {
                replies.send_direct(Some(self.env));
            }
            if replies.len() == 0 {
                continue;
            }
            let relay = Arc::new(Relay::new(replies));
            if let Some(herald) = herald
                && herald.inbox.push(Arc::clone(&relay))
            {
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
        let (mut left, mut proxied) = (Arena::default(), Vec::new());
        for (_home, (_herald, replies)) in &mut self.found {
            replies.fail(Some(self.env), &mut left, &mut proxied);
        }
        if let Some(mail) = left.list_of_kept(&proxied) {
            self.shard.deliver(Some(self.env), mail);
        }
    }
}
