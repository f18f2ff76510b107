//! The metrics of a shard: one table, from which what is read, its documentation and its exporters are made.
//!
//! Invariant: whatever is counted has its line here, and a line says how it is read, and so what kind it is and which
//! labels it has.

use crate::gauges::Gauges;

/// A metric.
pub struct Metric {
    /// Its name. That of a counter ends with `_total`, that of a time or a size with its unit.
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
}

impl Read {
    /// The kind of the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Read::Gauge(_) => "gauge",
        }
    }

    /// Its labels, beside the shard.
    pub fn labels(&self) -> &'static [&'static str] {
        match self {
            Read::Gauge(_) => &[],
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

/// All of them.
pub const METRICS: &[Metric] = &[
    gauge("queued_items", Unit::Items, "Items that are queued", |now| now.queued_items),
    gauge("queued_bytes", Unit::Bytes, "Bytes that are queued", |now| now.queued_bytes),
    gauge(
        "in_flight_items",
        Unit::Items,
        "Items that are being committed, or whose callers are being answered",
        |now| now.in_flight_items,
    ),
    gauge("in_flight_bytes", Unit::Bytes, "The same in bytes", |now| now.in_flight_bytes),
    gauge(
        "max_queue_items",
        Unit::Items,
        "Most items that may be queued and in flight together",
        |now| now.max_queue_items,
    ),
    gauge("max_queue_bytes", Unit::Bytes, "The same in bytes", |now| now.max_queue_bytes),
    gauge(
        "oldest_write_age_us",
        Unit::Microseconds,
        "How long the oldest queued slot has been open, which is how long its first write has waited; 0: nothing is queued",
        |now| now.oldest_write_age_us,
    ),
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
