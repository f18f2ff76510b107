//! How long the calls that concern all lanes of a shard take, and the longest of the writes that open them:
//! `cargo run --release -p batcher_core --example many_lanes`.
//!
//! Invariant: each call finds a shard as full as the others did, and nothing else is on the clock.

use batcher_core::{Config, Engine, Group, LaneRef, Usage};
use std::time::{Duration, Instant};

const WORK: Usage = Usage { command_items: 0, compound_members: 0, visits: 0 };
const ONE: Group = Group { cost: 1, bytes: 64, writer: 0, usage: WORK, waits: true, apart: false };
const WINDOW: Duration = Duration::from_millis(5);
const ROUNDS: usize = 5;

type Call = fn(&mut Engine<u64>, Instant);

const CALLS: [(&str, Call); 4] = [
    ("flush", |engine, now| {
        engine.handle_flush(now);
    }),
    ("close", |engine, _| engine.close()),
    ("open", |engine, now| engine.open(now, Config::default())),
    ("timeout", |engine, now| engine.handle_timeout(now + Duration::from_secs(1))),
];

fn main() {
    println!("{:<8} {:>8} {:>12}", "call", "lanes", "median");
    for (name, call) in CALLS {
        for lanes in [100, 10_000, 100_000] {
            let mut times: Vec<Duration> = (0..ROUNDS)
                .map(|_| {
                    let (mut engine, now, _longest) = filled(lanes);
                    let started = Instant::now();
                    call(&mut engine, now);
                    started.elapsed()
                })
                .collect();
            times.sort_unstable();
            println!("{name:<8} {lanes:>8} {:>12?}", times[ROUNDS / 2]);
        }
    }
    for lanes in [100, 10_000, 100_000, 1_000_000] {
        let longest = (0..ROUNDS).map(|_| filled(lanes).2).min();
        println!("{:<8} {lanes:>8} {:>12?}", "offer", longest.unwrap_or_default());
    }
}

/// A shard of so many lanes, each with a write that waits for its window; and how long the longest of these took.
fn filled(lanes: u64) -> (Engine<u64>, Instant, Duration) {
    let (now, mut longest) = (Instant::now(), Duration::ZERO);
    let mut engine = Engine::default();
    engine.open(now, Config::default());
    for number in 0..lanes {
        let now = now + Duration::from_nanos(number * 100);
        let name = format!("namespace-{number}");
        let started = Instant::now();
        let accepted = engine.offer(now, LaneRef::Prefix(name.as_bytes()), ONE, WINDOW);
        longest = longest.max(started.elapsed());
        *accepted.expect("there is room").contents += 1;
    }
    (engine, now + Duration::from_nanos(lanes * 100), longest)
}
