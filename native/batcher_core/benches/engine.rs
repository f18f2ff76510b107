//! The time that the operations of the engine take: `cargo bench -p batcher_core --bench engine`.
//!
//! Invariant: only the operation itself is on the clock, never what it takes to get there and back.

mod operations;

use criterion::{BenchmarkId, Criterion, Throughput};
use operations::{Fleet, LANES, OPERATIONS};
use std::time::{Duration, Instant};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for operation in &OPERATIONS {
        let mut group = criterion.benchmark_group(operation.name);
        for lanes in LANES {
            let mut fleet = Fleet::new(lanes);
            let visited = fleet.lanes() as u64;
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new("lanes", lanes), |bencher| {
                bencher.iter_custom(|count| {
                    // Whole rounds, at least as many as asked for: the rest is taken off again.
                    let rounds = count.div_ceil(visited);
                    let taken: Duration = (0..rounds)
                        .map(|_| {
                            operation.round(&mut fleet, |fleet, step| {
                                let started = Instant::now();
                                fleet.take(step);
                                started.elapsed()
                            })
                        })
                        .sum();
                    taken.mul_f64(count as f64 / (rounds * visited) as f64)
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
