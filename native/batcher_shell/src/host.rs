//! What the shell is plugged into: the BEAM in the library, a few vectors in the models.

use crate::callers::Callers;
use crate::committer::{Departure, Seat};
use crate::contents::Contents;
use crate::failure::Failure;

/// Processes, messages, and what writes and callers are.
///
/// None of these functions may block, but for the lock of a batch; none is called under the lock of the shard but
/// [`seat`](Self::seat), [`is_current`](Self::is_current), [`deliver`](Self::deliver) and
/// [`reply`](Self::reply). A `sender` is the calling process, `None` on the shard's own thread.
pub trait Host: Sized + 'static {
    /// A calling process.
    type Env<'a>: Copy;
    /// Names a process.
    type Pid: Clone + PartialEq;
    /// Tells of an owner's death, with [`Event::OwnerDown`](crate::Event::OwnerDown), as long as
    /// it is kept.
    type Watch;
    /// A committing process. When it dies, [`Event::CommitterDown`](crate::Event::CommitterDown)
    /// is due.
    type Committer: Clone;
    /// A process that answers the callers of one scheduler.
    type Herald: Clone;
    /// The writes of a slot.
    type Writes: Default + Send;
    /// Who waits for a group's reply.
    type Caller: Clone;
    /// The callers of a slot, and whatever is needed to answer them.
    type Answers: Default + Send + AsMut<Callers<Self::Caller>>;
    /// Who waits for a barrier.
    type Waiter;
    /// Replies that only a process can send.
    type Mail;
    /// What the callers of a dead committer's batch are told.
    type Reply;

    /// Whether the calling process may be exiting while its call still runs, so that nothing that
    /// it sends arrives. The shard's thread sends instead.
    fn may_be_exiting(sender: Self::Env<'_>) -> bool;

    /// Whether the committer can still answer a batch: not after the library was loaded anew.
    fn is_current(_committer: &Self::Committer) -> bool {
        true
    }

    /// The committer's seat in the shell.
    fn seat(committer: &Self::Committer) -> &Seat<Self>;

    /// How many messages these writes are on their way to a committer.
    fn messages(_writes: &Self::Writes) -> usize {
        1
    }

    /// Sends the writes of a batch to its committer. Returns what held them, empty, to be used again.
    fn depart(
        departure: &Departure<Self>,
        writes: Self::Writes,
        sender: Option<Self::Env<'_>>,
    ) -> Self::Writes;

    /// Empties what held the answers of a batch, to be used again.
    fn clear(answers: &mut Self::Answers);

    /// Tells that a barrier is done, or that it never will be.
    fn tell(waiter: Self::Waiter, sender: Option<Self::Env<'_>>, failure: Option<&Failure>);

    /// Asks an owner for more committers.
    fn ask_for_committers(owner: Self::Pid, sender: Option<Self::Env<'_>>, count: usize);

    /// Asks an owner for heralds, one for each scheduler.
    fn ask_for_heralds(owner: Self::Pid, sender: Self::Env<'_>);

    /// Tells all callers that are left in these batches of the failure, from the shard's thread.
    /// Returns the replies that only a process can send.
    fn fail(batches: impl Iterator<Item = Contents<Self>>, failure: &Failure)
    -> Option<Self::Mail>;

    /// Tells a caller of this slot that it has waited too long, from the shard's thread.
    fn tell_late(answers: &mut Self::Answers, caller: Self::Caller);

    /// Has a committer answer the batch of one that has died: it is in its seat.
    fn take_over(committer: &Self::Committer, sender: Option<Self::Env<'_>>, reply: Self::Reply);

    /// What a failure comes to, as a reply.
    fn reply(failure: &Failure) -> Self::Reply;

    /// Has a committer send replies. Under the lock, so that it can't leave before they have come.
    fn deliver(committer: &Self::Committer, sender: Option<Self::Env<'_>>, mail: Self::Mail);

    /// Tells a committer to exit, from the shard's thread.
    fn dismiss(committer: &Self::Committer);

    /// Tells an owner that the library has failed, from the shard's thread (10.5).
    fn tell_of_crash(owner: Self::Pid, text: &str);
}
