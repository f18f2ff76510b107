//! The metrics of a shard: one table, from which what is read, its documentation and its exporters are made.
//!
//! Invariant: whatever is counted has its line here, and a line says how it is read, and so what kind it is and which
//! labels it has.

use crate::counts::Counts;
use crate::distributions::{Distribution, Distributions};
use crate::gauges::Gauges;
use batcher_core::Tally;

/// A metric.
pub struct Metric {
    /// Its name. The name of a counter ends with `_total`, the name of a time or a size with its unit.
    pub name: &'static str,
    /// What its values count.
    pub unit: Unit,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// How it is read.
    pub read: Read,
}

/// What the values of a metric count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Calls, commits, events.
    None,
    /// Commands, entries, keys.
    Items,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
}

impl Unit {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Unit::None => "none",
            Unit::Items => "items",
            Unit::Bytes => "bytes",
            Unit::Microseconds => "microseconds",
        }
    }
}

/// Where the value of a metric stands.
pub enum Read {
    /// In what a shard holds now.
    Gauge(fn(&Gauges) -> u64),
    /// In what has been counted.
    Counter(fn(&Counts) -> u64),
    /// The same for each kind of lane.
    Lanes(fn(&Tally) -> u64),
    /// Writes that were refused, by cause.
    Refused,
    /// Commits that have ended, by why they had left and by what became of them.
    Commits,
    /// In the lanes: how long ago the oldest slot was opened that is queued, in microseconds.
    OldestWrite,
    /// A distribution, to be told with the number of values up to each of these bounds.
    Distribution(fn(&Distributions) -> Distribution, &'static [u64]),
    /// The same for each kind of lane.
    Distributions(fn(&Distributions, usize) -> Distribution, &'static [u64]),
}

impl Read {
    /// The kind of the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Read::Gauge(_) | Read::OldestWrite => "gauge",
            Read::Counter(_) | Read::Lanes(_) | Read::Refused | Read::Commits => "counter",
            Read::Distribution(..) | Read::Distributions(..) => "distribution",
        }
    }

    /// Whether it is read without a walk over all lanes, or all values of a distribution.
    pub fn is_quick(&self) -> bool {
        !matches!(self, Read::OldestWrite | Read::Distribution(..) | Read::Distributions(..))
    }

    /// Its labels, beside the shard.
    pub fn labels(&self) -> &'static [&'static str] {
        match self {
            Read::Gauge(_) | Read::OldestWrite | Read::Counter(_) | Read::Distribution(..) => &[],
            Read::Lanes(_) | Read::Distributions(..) => &["lane"],
            Read::Refused => &["cause"],
            Read::Commits => &["reason", "result"],
        }
    }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    read: fn(&Gauges) -> u64,
) -> Metric {
    Metric { name, unit, help, read: Read::Gauge(read) }
}

const fn counter(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric { name, unit: Unit::None, help, read }
}

const fn by_lane(
    name: &'static str,
    help: &'static str,
    read: fn(&Distributions, usize) -> Distribution,
) -> Metric {
    let read = Read::Distributions(read, TIMES);
    Metric { name, unit: Unit::Microseconds, help, read }
}

const fn time(
    name: &'static str,
    help: &'static str,
    read: fn(&Distributions) -> Distribution,
) -> Metric {
    Metric { name, unit: Unit::Microseconds, help, read: Read::Distribution(read, TIMES) }
}

/// Bounds of times, from 10 microseconds to a minute.
const TIMES: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// Bounds of numbers of writes.
const WRITES: &[u64] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
/// Bounds of sizes, from 256 bytes to 256 MiB.
const BYTES: &[u64] = &[
    1 << 8,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
];

/// All of them.
pub const METRICS: &[Metric] = &[
    counter(
        "writes_total",
        "Calls whose writes were accepted and have left to be committed; those that are queued come on top",
        Read::Lanes(|left| left.writes),
    ),
    Metric {
        name: "items_total",
        unit: Unit::Items,
        help: "Commands, entries and keys in these calls, at least one for each call",
        read: Read::Lanes(|left| left.items),
    },
    Metric {
        name: "bytes_total",
        unit: Unit::Bytes,
        help: "Bytes that these took, with binaries, prefixes and tags of callers",
        read: Read::Lanes(|left| left.bytes),
    },
    counter(
        "refused_total",
        "Calls that were refused, nothing of them queued: by a bound in items or bytes, that on all shards together \
         (total_bytes), a full slot (overflow), the budgets or the measuring of the host (budget), while the batcher \
         was being stopped, or because they were no writes (invalid)",
        Read::Refused,
    ),
    counter(
        "commits_total",
        "Commits that have ended, by why they had left, and by result: each call had its reply (ok), the backend said \
         something else (error), it gave another number of replies (mismatch), or it exited, raised, threw, or its \
         process was killed (exit)",
        Read::Commits,
    ),
    counter(
        "direct_commits_total",
        "Commits past the batcher, by callers whose window is 0, or while none ran; counted since one ran first",
        Read::Counter(|counts| counts.direct_commits),
    ),
    counter(
        "alone_commits_total",
        "Commits of calls that were alone, by their callers; those of commits_total with the reason alone",
        Read::Counter(Counts::alone),
    ),
    counter(
        "timeouts_total",
        "Calls that have waited too long and ended without a reply; they may be committed all the same",
        Read::Counter(|counts| counts.timeouts),
    ),
    counter(
        "late_replies_total",
        "Replies that were not sent since their calls had waited too long",
        Read::Counter(|counts| counts.late_replies),
    ),
    counter(
        "abandoned_writes_total",
        "Calls that were queued, but not committed: the batcher was stopped, its owner died, or the library failed",
        Read::Counter(|counts| counts.abandoned_writes),
    ),
    counter(
        "adoptions_total",
        "Owners that took over what an owner before them had left",
        Read::Counter(|counts| counts.adoptions),
    ),
    counter(
        "committer_deaths_total",
        "Committers that have died",
        Read::Counter(|counts| counts.committer_deaths),
    ),
    counter(
        "panics_total",
        "Failures of the library, each of which has ended the batcher of this shard",
        Read::Counter(|counts| counts.panics),
    ),
    by_lane(
        "answer_us",
        "From when a call was accepted until its commit had been answered; of calls that left together, the time of the \
         first one counts for all",
        Distributions::answer,
    ),
    by_lane(
        "queue_wait_us",
        "From when a call that was not alone was accepted until its commit left; of calls that left together, the time \
         of the first one counts for all",
        Distributions::queue_wait,
    ),
    time(
        "commit_us",
        "From when a commit left until its backend had returned, the way to the committer included",
        Distributions::commit,
    ),
    time(
        "answering_us",
        "From when a backend had returned until all callers of the commit had been answered, or their replies left to \
         responders; of commits that were not alone",
        |times| times.answering.clone(),
    ),
    Metric {
        name: "writes_per_commit",
        unit: Unit::None,
        help: "Calls in a commit that was not alone",
        read: Read::Distribution(|sizes| sizes.writes.clone(), WRITES),
    },
    Metric {
        name: "bytes_per_commit",
        unit: Unit::Bytes,
        help: "Bytes in a commit that was not alone",
        read: Read::Distribution(|sizes| sizes.bytes.clone(), BYTES),
    },
    time(
        "hold_us",
        "For how long a commit was held, when no other was before it any more, by a window or by learned pacing; of \
         commits that were not alone",
        |times| times.hold.clone(),
    ),
    time(
        "meant_hold_us",
        "For how long learned pacing meant to hold it, which ends early when all who were expected have come; 0: not \
         at all",
        |times| times.meant_hold.clone(),
    ),
    gauge("queued_items", Unit::Items, "Items that are queued", |now| now.queued_items),
    gauge("queued_bytes", Unit::Bytes, "Bytes that are queued", |now| now.queued_bytes),
    gauge(
        "in_flight_items",
        Unit::Items,
        "Items that are being committed, or whose callers are being answered",
        |now| now.in_flight_items,
    ),
    gauge(
        "in_flight_bytes",
        Unit::Bytes,
        "Bytes of what is being committed, or whose callers are being answered",
        |now| now.in_flight_bytes,
    ),
    gauge(
        "max_queue_items",
        Unit::Items,
        "Most items that may be queued and in flight together",
        |now| now.max_queue_items,
    ),
    gauge(
        "max_queue_bytes",
        Unit::Bytes,
        "Most bytes that may be queued and in flight together",
        |now| now.max_queue_bytes,
    ),
    gauge(
        "total_queue_bytes",
        Unit::Bytes,
        "What all shards of the VM hold together, while max_total_queue_bytes bounds that; 0 otherwise",
        |now| now.total_queue_bytes,
    ),
    gauge(
        "max_total_queue_bytes",
        Unit::Bytes,
        "Most bytes that all shards of the VM may hold together; 0: as many as they like",
        |now| now.max_total_queue_bytes,
    ),
    Metric {
        name: "oldest_write_age_us",
        unit: Unit::Microseconds,
        help: "How long the oldest queued slot has been open, which is how long its first write has waited; 0: nothing \
               is queued",
        read: Read::OldestWrite,
    },
    gauge(
        "oldest_commit_age_us",
        Unit::Microseconds,
        "For how long the oldest commit has been in flight, one alone in its caller among them; 0: none is",
        |now| now.oldest_commit_age_us,
    ),
    gauge("lanes", Unit::None, "Lanes with something queued or in flight", |now| now.lanes),
    gauge("committers", Unit::None, "Committers that live", |now| now.committers),
    gauge("responders", Unit::None, "Responders that live", |now| now.responders),
    gauge(
        "in_flight_commits",
        Unit::None,
        "Commits in flight, without those that are left of a batcher that was stopped",
        |now| now.in_flight_commits,
    ),
    gauge("max_in_flight", Unit::None, "Most commits that may be in flight", |now| {
        now.max_in_flight
    }),
];
