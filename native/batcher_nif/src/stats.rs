//! What a shard has counted and holds, as terms.
//!
//! Invariant: every name comes from the one table of metrics.

use crate::atoms;
use crate::beam::Shard;
use batcher_shell::{CommittedBy, METRICS, Metric, Read};
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
    let mut pairs = Vec::new();
    for metric in METRICS {
        let Read::Gauge(read) = metric.read;
        pairs.push((atom(env, metric.name)?.encode(env), read(&gauges).encode(env)));
    }
    let pid = by.map(|by| match by {
        CommittedBy::Committer(committer) => committer.pid,
        CommittedBy::Caller(pid) => pid,
    });
    pairs.push((atoms::oldest_commit_pid().encode(env), pid.encode(env)));
    Term::map_from_pairs(env, &pairs)
}

/// There are as many of these as the table has words.
fn atom(env: Env<'_>, name: &str) -> NifResult<Atom> {
    Atom::from_str(env, name)
}
