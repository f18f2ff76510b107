//! How well `pacing: :auto` holds (5.6): against the best hold of a fixed time, chosen in hindsight for each load.
//!
//! Loads are Poisson streams of so many writes per commit, bursts of so many writes every so many commits, and closed
//! loops of so many callers that think so long, exponentially, in commits.
//!
//! `cargo test -p batcher_core --test pacing -- --nocapture` prints the tables.

mod simulation;

use batcher_core::Pacing;
use simulation::load::Load;
use simulation::policy::{Fixed, Learning, Policy};
use simulation::{Case, Nanos, mean_latency, whole};

const COMMITS: [Nanos; 3] = [200_000, 1_000_000, 5_000_000];

const LOADS: [Load; 17] = [
    Load::Poisson(0.05),
    Load::Poisson(0.2),
    Load::Poisson(0.5),
    Load::Poisson(1.0),
    Load::Poisson(3.0),
    Load::Poisson(10.0),
    Load::Poisson(100.0),
    Load::Bursts(4, 3.0),
    Load::Bursts(32, 3.0),
    Load::Closed(1, 0.02),
    Load::Closed(2, 0.02),
    Load::Closed(4, 0.1),
    Load::Closed(16, 0.02),
    Load::Closed(64, 0.1),
    Load::Closed(256, 0.05),
    Load::Closed(16, 1.0),
    Load::Closed(256, 10.0),
];

const SEEDS: [u64; 3] = [1, 2, 3];

/// Fixed holds, as parts of a commit.
const HOLDS: [f64; 9] =
    [0.0, 1.0 / 64.0, 1.0 / 32.0, 1.0 / 16.0, 1.0 / 8.0, 3.0 / 16.0, 0.25, 0.5, 1.0];

fn writes(load: Load) -> u64 {
    match load {
        Load::Poisson(rate) => whole((2_000.0 * rate).clamp(2_000.0, 20_000.0)),
        Load::Bursts(size, _) => 1_000 * size,
        Load::Closed(callers, _) => (1_000 * callers).min(20_000),
    }
}

/// Of a fixed hold or of the engine, in commits, in the mean of the seeds.
fn latency(case: Case, policy: impl Fn() -> Box<dyn Policy>) -> f64 {
    let of = |&seed: &u64| mean_latency(case, seed, writes(case.load), &mut *policy());
    SEEDS.iter().map(of).sum::<f64>() / SEEDS.len() as f64
}

fn auto() -> Box<dyn Policy> {
    Box::new(Learning::new(Pacing::Auto))
}

#[test]
fn holds_as_the_best_fixed_hold_in_hindsight() {
    println!("latencies and holds are in commits");
    println!(
        "{:22} {:>9} {:>7} {:>7} {:>7} {:>7}",
        "load", "commit", "hold", "best", "auto", "regret"
    );
    let mut regrets = Vec::new();
    for (commit, load) in COMMITS.iter().flat_map(|&commit| LOADS.map(|load| (commit, load))) {
        let case = Case { load, commit };
        let fixed = HOLDS.map(|hold| {
            let nanos = whole(hold * commit as f64);
            (latency(case, || Box::new(Fixed::new(nanos))), hold)
        });
        let (best, hold) = fixed.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("some");
        let auto = latency(case, auto);
        let (regret, ms) = (auto / best, commit as f64 / 1e6);
        let load = format!("{load:?}");
        println!("{load:22} {ms:6.1} ms {hold:7.3} {best:7.3} {auto:7.3} {regret:7.3}");
        regrets.push(regret);
    }
    regrets.sort_by(f64::total_cmp);
    let (median, worst) = (regrets[regrets.len() / 2], regrets[regrets.len() - 1]);
    println!("regret: median {median:.3}, worst {worst:.3}");
    assert!(median <= 1.02, "median {median}");
    assert!(worst <= 1.10, "worst {worst}");
}

/// What changes, from one case to the other.
const STEPS: [(Case, Case); 8] = [
    step(Load::Poisson(0.2), 1_000_000, Load::Poisson(10.0), 1_000_000),
    step(Load::Poisson(10.0), 1_000_000, Load::Poisson(0.2), 1_000_000),
    step(Load::Bursts(4, 3.0), 1_000_000, Load::Bursts(32, 3.0), 1_000_000),
    step(Load::Poisson(0.5), 1_000_000, Load::Bursts(32, 3.0), 1_000_000),
    step(Load::Closed(64, 1.0), 1_000_000, Load::Closed(64, 0.02), 1_000_000),
    step(Load::Closed(64, 0.02), 1_000_000, Load::Closed(64, 1.0), 1_000_000),
    step(Load::Closed(16, 0.05), 200_000, Load::Closed(16, 0.05), 5_000_000),
    step(Load::Closed(16, 0.05), 5_000_000, Load::Closed(16, 0.05), 200_000),
];

const fn step(from: Load, was: Nanos, to: Load, is: Nanos) -> (Case, Case) {
    (Case { load: from, commit: was }, Case { load: to, commit: is })
}

/// Commits before a step, those given to learn, and those looked at then.
const BEFORE: usize = 300;
const LEARNS: usize = 32;
const LOOKED_AT: usize = 100;

#[test]
fn learns_a_change_within_32_commits() {
    println!("latencies are in commits, of {LOOKED_AT} commits from the {LEARNS}th on");
    println!("{:48} {:>7} {:>7} {:>7}", "change", "after", "always", "ratio");
    for (from, to) in STEPS {
        let always = latency(to, auto);
        let after = after_step(from, to, LEARNS, LOOKED_AT);
        let ratio = after / always;
        let ms = |case: Case| format!("{:?} {} ms", case.load, case.commit as f64 / 1e6);
        let change = format!("{} -> {}", ms(from), ms(to));
        println!("{change:48} {after:7.3} {always:7.3} {ratio:7.3}");
        assert!(ratio <= 1.10, "{change}: {ratio}");
    }
}

/// A busy time is soon forgotten by whoever is alone: to hold a first write for others that don't come costs it that time.
#[test]
fn lone_writes_are_not_held_for_long_after_a_busy_time() {
    const LONE: Case = Case { load: Load::Poisson(0.05), commit: 1_000_000 };
    const SOON: usize = 6;
    let always = latency(LONE, auto);
    for busy in [Load::Bursts(4, 3.0), Load::Bursts(32, 3.0), Load::Bursts(256, 3.0)] {
        let busy = Case { load: busy, ..LONE };
        let (first, then) = (after_step(busy, LONE, 0, SOON), after_step(busy, LONE, SOON, 32));
        println!("{:?}: {:.3}, then {:.3}", busy.load, first / always, then / always);
        assert!(first <= 1.10 * always, "{:?}: {first}", busy.load);
        assert!(then <= 1.02 * always, "{:?}: {then}", busy.load);
    }
}

/// The mean latency of the seeds after a step, in commits, of so many commits after so many others.
fn after_step(from: Case, to: Case, others: usize, looked_at: usize) -> f64 {
    let of = |&seed: &u64| after_step_with(seed, from, to, others, looked_at);
    SEEDS.iter().map(of).sum::<f64>() / SEEDS.len() as f64
}

fn after_step_with(seed: u64, from: Case, to: Case, others: usize, looked_at: usize) -> f64 {
    let (mut commits, mut writes, mut latency) = (0, 0, 0);
    simulation::run(from, seed, u64::MAX, &mut *auto(), |case, commit| {
        commits += 1;
        if commits == BEFORE {
            *case = to;
        }
        if commits > BEFORE + others {
            (writes, latency) = (writes + commit.writes, latency + commit.latency);
        }
        commits < BEFORE + others + looked_at
    });
    latency as f64 / writes as f64 / to.commit as f64
}
