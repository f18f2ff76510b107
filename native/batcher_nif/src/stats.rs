//! What a shard has counted and holds, as terms.
//!
//! Invariant: every name comes from the one table of metrics.

use crate::atoms;
use crate::beam::{Beam, Shard};
use crate::committer::lane_term;
use batcher_core::Tally;
use batcher_shell::{
    BusyLane, Cause, CommittedBy, Counts, METRICS, Metric, Read, Seen, Verdict, age_us,
};
use rustler::types::tuple::make_tuple;
use rustler::{Atom, Encoder, Env, NifResult, Term};

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

/// The gauges as a map, with `oldest_commit_pid` beside them; `:not_running` for a closed shard.
pub(crate) fn gauges<'a>(env: Env<'a>, shard: &'static Shard) -> NifResult<Term<'a>> {
    let Some((gauges, by)) = shard.gauges() else { return Ok(atoms::not_running().encode(env)) };
    let seen = Seen { gauges, counts: Counts::default() };
    let is_gauge = |metric: &&Metric| matches!(metric.read, Read::Gauge(_));
    read(env, METRICS.iter().filter(is_gauge), &seen, by)
}

/// All metrics as a map, otherwise the same.
pub(crate) fn stats<'a>(env: Env<'a>, shard: &'static Shard) -> NifResult<Term<'a>> {
    match (shard.gauges(), shard.counts()) {
        (Some((gauges, by)), Some(counts)) => {
            read(env, METRICS.iter(), &Seen { gauges, counts }, by)
        }
        _ => Ok(atoms::not_running().encode(env)),
    }
}

fn read<'a>(
    env: Env<'a>,
    metrics: impl Iterator<Item = &'static Metric>,
    seen: &Seen,
    by: Option<CommittedBy<Beam>>,
) -> NifResult<Term<'a>> {
    let pid = by.map(|by| match by {
        CommittedBy::Committer(committer) => committer.pid,
        CommittedBy::Caller(pid) => pid,
    });
    let mut pairs = vec![(atoms::oldest_commit_pid().encode(env), pid.encode(env))];
    for metric in metrics {
        let values = metric.read.values(seen);
        pairs.push((atom(env, metric.name)?.encode(env), by_labels(env, &values)?));
    }
    Term::map_from_pairs(env, &pairs)
}

/// The value itself, or a map by the value of the one label, or by a tuple of those of several.
fn by_labels<'a>(env: Env<'a>, values: &[(Vec<&str>, u64)]) -> NifResult<Term<'a>> {
    let mut pairs = Vec::with_capacity(values.len());
    for (labels, value) in values {
        let labels = labels.iter().map(|label| atom(env, label).map(|label| label.encode(env)));
        let labels = labels.collect::<NifResult<Vec<_>>>()?;
        let key = match *labels {
            [] => return Ok(value.encode(env)),
            [label] => label,
            _ => make_tuple(env, &labels),
        };
        pairs.push((key, value.encode(env)));
    }
    Term::map_from_pairs(env, &pairs)
}

/// `[{lane, {writes, items, bytes}, {queued writes, items, bytes}, age_us | nil, in_flight_us | nil}]`, the busiest
/// first; `:not_running` for a closed shard.
pub(crate) fn busiest<'a>(env: Env<'a>, shard: &'static Shard, count: usize) -> Term<'a> {
    let Some(lanes) = shard.busiest_lanes(count) else { return atoms::not_running().encode(env) };
    let numbers = |Tally { writes, items, bytes }| (writes, items, bytes);
    let row = |BusyLane { lane, given, queued, opened, left }: BusyLane| {
        let (age, flight) = (opened.map(age_us), left.map(age_us));
        (lane_term(env, &lane), numbers(given), numbers(queued), age, flight).encode(env)
    };
    lanes.into_iter().map(row).collect::<Vec<_>>().encode(env)
}

/// Why the BEAM side refuses a write.
pub(crate) fn cause(name: Atom) -> NifResult<Cause> {
    let known = [
        (atoms::invalid(), Cause::Invalid),
        (atoms::budget(), Cause::Budget),
        (atoms::shutting_down(), Cause::ShuttingDown),
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
