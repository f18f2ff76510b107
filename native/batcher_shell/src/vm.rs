//! What the runtime is plugged into: the BEAM in the library, a few vectors in the models.

use crate::callers::Callers;
use crate::failure::Failure;

/// Processes and messages of a VM, and what writes and callers are there.
///
/// None of these functions may block, but for the lock of a batch, and none is called under the lock of the shard. A
/// `sender` is the calling process, `None` on the thread of a timer.
pub trait Vm: Sized + 'static {
    /// A calling process.
    type Env<'a>: Copy;
    /// Names a process.
    type Pid: Clone + PartialEq;
    /// Tells of an owner's death, with [`Event::OwnerDown`](crate::Event::OwnerDown), as long as it is kept.
    type Watch;
    /// A way to wake a committing process. When that dies, [`Event::WorkerDown`](crate::Event::WorkerDown) is due.
    type Committer: Clone;
    /// A process that answers the callers of one scheduler.
    type Responder: Clone;
    /// The writes of a slot.
    type Writes: Default + Send;
    /// The process that waits for the reply to a group.
    type Caller: Clone;
    /// The callers of a slot, and whatever is needed to answer them.
    type Answers: Default + Send + AsMut<Callers<Self::Caller>>;
    /// The process that waits for a barrier.
    type Waiter;
    /// Replies that only a process can send.
    type Proxied;
    /// What the callers of a dead committer's batch are told.
    type Reply;

    /// Whether the calling process may be exiting while its call still runs, so that nothing that it sends arrives.
    /// The timer sends instead.
    fn may_be_exiting(sender: Self::Env<'_>) -> bool;

    /// Tells a committer that there is work to [take](crate::Shard::take).
    fn wake(committer: &Self::Committer, sender: Option<Self::Env<'_>>);

    /// Tells that a barrier is done, or that it never will be.
    fn tell(waiter: Self::Waiter, sender: Option<Self::Env<'_>>, failure: Option<&Failure>);

    /// Tells an owner.
    fn notify(owner: &Self::Pid, sender: Option<Self::Env<'_>>, notice: Notice<'_>);

    /// Tells all callers of a batch that are left of the failure, from the thread of a timer. Replies that only a
    /// process can send are added to `proxied`.
    fn fail(answers: &mut Self::Answers, failure: &Failure, proxied: &mut Vec<Self::Proxied>);

    /// Tells a caller of this slot that it has waited too long, from the thread of a timer.
    fn tell_late(answers: &mut Self::Answers, caller: Self::Caller);

    /// Empties what held the answers of a batch, to be used again.
    fn clear(answers: &mut Self::Answers);
}

/// What an owner hears from its shard.
pub enum Notice<'a> {
    /// So many more committers are wanted.
    Committers(usize),
    /// Responders are wanted, one for each scheduler.
    Responders,
    /// The library has failed (10.5).
    Crashed(&'a str),
}
