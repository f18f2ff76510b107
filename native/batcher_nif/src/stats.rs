//! What a shard has counted and holds, as terms.
//!
//! Invariant: every name comes from the one table of metrics.

use crate::atoms;
use crate::beam::Shard;
use crate::committer::lane_term;
use batcher_core::Tally;
use batcher_shell::sync::{micros, now};
use batcher_shell::{
    BusyLane, CommittedBy, METRICS, Metric, QUANTILES, Read, RefusedBy, Seen, Summary, Value,
    Verdict,
};
use rustler::types::tuple::make_tuple;
use rustler::{Atom, Encoder, Env, NifResult, Term};
use std::time::Instant;

/// `[{name, kind, unit, labels, help}]`.
pub(crate) fn metrics(env: Env<'_>) -> NifResult<Term<'_>> {
    let rows = METRICS.iter().map(|metric| {
        let Metric { name, unit, help, read } = metric;
        let labels = read.labels().iter().map(|label| atom(env, label));
        let labels = labels.collect::<NifResult<Vec<_>>>()?;
        let (kind, unit) = (atom(env, read.kind())?, atom(env, unit.name())?);
        Ok((atom(env, name)?, kind, unit, labels, *help).encode(env))
    });
    Ok(rows.collect::<NifResult<Vec<_>>>()?.encode(env))
}

/// The metrics that are wanted as a map, with `oldest_commit_pid` beside them; `:not_running` for a closed shard.
pub(crate) fn stats<'a>(
    env: Env<'a>,
    shard: &'static Shard,
    wants: fn(&Read) -> bool,
) -> NifResult<Term<'a>> {
    let (Some((gauges, by)), Some(counts)) = (shard.gauges(env), shard.counts()) else {
        return Ok(atoms::not_running().encode(env));
    };
    let seen = Seen { gauges, counts };
    let pid = by.map(|by| match by {
        CommittedBy::Committer(committer) => committer.pid,
        CommittedBy::Caller(pid) => pid,
    });
    let mut pairs = vec![(atoms::oldest_commit_pid().encode(env), pid.encode(env))];
    for metric in METRICS.iter().filter(|metric| wants(&metric.read)) {
        let values = shard.values(&metric.read, &seen);
        pairs.push((atom(env, metric.name)?.encode(env), by_labels(env, &values)?));
    }
    Term::map_from_pairs(env, &pairs)
}

/// The value itself, or a map by the value of the one label, or by a tuple of the values of several.
fn by_labels<'a>(env: Env<'a>, values: &[(Vec<&str>, Value)]) -> NifResult<Term<'a>> {
    let mut pairs = Vec::with_capacity(values.len());
    for (labels, value) in values {
        let value = value_term(env, value)?;
        let labels = labels.iter().map(|label| atom(env, label).map(|label| label.encode(env)));
        let labels = labels.collect::<NifResult<Vec<_>>>()?;
        let key = match *labels {
            [] => return Ok(value),
            [label] => label,
            _ => make_tuple(env, &labels),
        };
        pairs.push((key, value));
    }
    Term::map_from_pairs(env, &pairs)
}

/// A number, or of a distribution `%{count: n, sum: n, min: n, max: n, mean: float, p50: n, p90: n, p99: n, p99_9: n,
/// buckets: [{bound, n}]}`, the last bound `:infinity`.
fn value_term<'a>(env: Env<'a>, value: &Value) -> NifResult<Term<'a>> {
    let Summary { count, sum, min, max, quantiles, buckets } = match value {
        Value::Number(number) => return Ok(number.encode(env)),
        Value::Summary(summary) => summary,
    };
    let mean = if *count == 0 { 0.0 } else { *sum as f64 / *count as f64 };
    let all = (atoms::infinity(), *count).encode(env);
    let buckets: Vec<_> = buckets.iter().map(|bucket| bucket.encode(env)).chain([all]).collect();
    let mut pairs = vec![
        (atoms::count().encode(env), count.encode(env)),
        (atoms::sum().encode(env), sum.encode(env)),
        (atoms::min().encode(env), min.encode(env)),
        (atoms::max().encode(env), max.encode(env)),
        (atoms::mean().encode(env), mean.encode(env)),
        (atoms::buckets().encode(env), buckets.encode(env)),
    ];
    for ((name, _), value) in QUANTILES.iter().zip(quantiles) {
        pairs.push((atom(env, name)?.encode(env), value.encode(env)));
    }
    Term::map_from_pairs(env, &pairs)
}

/// `[{cause, count}]` of writes that were refused and not told of yet, without those that there are none of.
pub(crate) fn take_refused(env: Env<'_>, shard: &'static Shard) -> NifResult<Vec<(Atom, u64)>> {
    let refused = shard.take_refused().filter(|&(_, count)| count > 0);
    refused.map(|(cause, count)| Ok((atom(env, cause)?, count))).collect()
}

/// `[{lane, {writes, items, bytes}, {queued writes, items, bytes}, age_us | nil, in_flight_us | nil}]`, the busiest
/// first; `:not_running` for a closed shard. Lanes of one commit have the same `in_flight_us`.
pub(crate) fn busiest<'a>(env: Env<'a>, shard: &'static Shard, count: usize) -> Term<'a> {
    let Some(lanes) = shard.busiest_lanes(count) else { return atoms::not_running().encode(env) };
    let numbers = |Tally { writes, items, bytes }| (writes, items, bytes);
    let now = now();
    let age_us = |since: Instant| micros(now.saturating_duration_since(since));
    let row = |BusyLane { lane, given, queued, opened, left }: BusyLane| {
        let (age, flight) = (opened.map(age_us), left.map(age_us));
        (lane_term(env, &lane), numbers(given), numbers(queued), age, flight).encode(env)
    };
    lanes.into_iter().map(row).collect::<Vec<_>>().encode(env)
}

/// Why the BEAM side refuses a write.
pub(crate) fn cause(name: Atom) -> NifResult<RefusedBy> {
    let known = [
        (atoms::invalid(), RefusedBy::Invalid),
        (atoms::budget(), RefusedBy::Budget),
        (atoms::shutting_down(), RefusedBy::ShuttingDown),
    ];
    atoms::one_of(name, known)
}

/// What it says of a commit.
pub(crate) fn verdict(how: Atom) -> NifResult<Verdict> {
    let known = [
        (atoms::slices(), Verdict::Ok),
        (atoms::error(), Verdict::Error),
        (atoms::mismatch(), Verdict::Mismatch),
        (atoms::exit(), Verdict::Exit),
    ];
    atoms::one_of(how, known)
}

/// There are as many of these as the table has words.
fn atom(env: Env<'_>, name: &str) -> NifResult<Atom> {
    Atom::from_str(env, name)
}
