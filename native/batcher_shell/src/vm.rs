//! What the runtime is plugged into: the BEAM in the library, a few vectors in the models.

use crate::callers::Expired;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Processes and messages of a VM, and what writes and callers are there.
///
/// None of these functions may block, but for the lock of a batch, and none but `process` is called under the lock of the
/// shard. A `sender` is the calling process, `None` on the thread of a timer.
pub trait Vm: Clone + Default + 'static {
    /// A calling process.
    type Env<'a>: Copy;
    /// A process that runs a shard. Its death is told, with [`Event::OwnerDown`](crate::Event::OwnerDown), as long as
    /// this is kept.
    type Owner: Clone;
    /// A process that commits. When it dies, [`Event::WorkerDown`](crate::Event::WorkerDown) is due, as long as this is
    /// kept.
    type Committer: Clone;
    /// What wakes one. To copy it touches nothing that its process touches.
    type Waker: Clone;
    /// A process that answers the callers of one scheduler.
    type Responder: Clone;
    /// The writes of a slot.
    type Writes: Default + Send;
    /// The callers of a slot, and whatever is needed to answer them.
    type Answers: Default + Send;
    /// The process that waits for a barrier.
    type Waiter;
    /// A process that commits a write of its own.
    type Process: Clone;
    /// What watches it, as long as it is kept.
    type Watch;
    /// What belongs to no process yet: what the callers of a dead committer's batch are told, or replies that only a
    /// process can send.
    type Terms;

    /// Whether the calling process may be exiting while its call still runs, so that nothing that it sends arrives.
    /// The timer sends instead.
    fn may_be_exiting(sender: Self::Env<'_>) -> bool;

    /// The calling process.
    fn process(sender: Self::Env<'_>) -> Self::Process;

    /// Has the death of a process told to the timer of the shard of this index, as
    /// [`Event::AloneDown`](crate::Event::AloneDown). `None`: it is dead.
    fn watch(
        sender: Option<Self::Env<'_>>,
        process: Self::Process,
        index: u64,
        alone: Alone,
    ) -> Option<Self::Watch>;

    /// What wakes a committer.
    fn waker(committer: &Self::Committer) -> Self::Waker;

    /// Tells a committer that there is work to [take](crate::Shard::take).
    fn wake(waker: Self::Waker, sender: Option<Self::Env<'_>>);

    /// Tells that a barrier is done, or that it never will be.
    fn tell(waiter: Self::Waiter, sender: Option<Self::Env<'_>>, failure: Option<&Failure>);

    /// Tells an owner.
    fn notify(owner: &Self::Owner, sender: Option<Self::Env<'_>>, notice: Notice<'_>);

    /// Tells all callers of a batch that are left of the failure, from the thread of a timer. Replies that only a
    /// process can send are added to `proxied`.
    fn fail(answers: &mut Self::Answers, failure: &Failure, proxied: &mut Option<Self::Terms>);

    /// Tells [some callers](crate::Callers::expire) of a slot, from this one on, that they have waited too long, from
    /// the thread of a timer.
    fn expire(answers: &mut Self::Answers, now: Instant, from: usize) -> Expired;
}

/// Names a write that its own process commits (5.6). None has the number of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alone(pub u64);

/// What an owner hears from its shard.
pub enum Notice<'a> {
    /// So many more committers are wanted.
    Committers(usize),
    /// Responders are wanted, one for each scheduler.
    Responders,
    /// The library has failed (10.5).
    Crashed(&'a str),
}

/// Why callers get no answer from the backend.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The batcher was stopped before the write left (10.3).
    ShuttingDown,
    /// The owner died, and no other came (10.4).
    OwnerDown,
    /// The committing process died with the batch (9.5).
    CommitterDown,
    /// The library itself failed (10.5).
    Crashed(Arc<str>),
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> Arc<str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => Arc::from(*text),
        (None, Some(text)) => Arc::from(text.as_str()),
        (None, None) => Arc::from("panic without a text"),
    }
}
