//! The instructions that the operations of the engine take, counted by valgrind's callgrind: run by
//! `make bench-instructions`.
//!
//! Invariant: callgrind counts inside of `toggle_collect` alone, in a process for each figure, after a round that
//! is not counted.

mod operations;

use operations::{Fleet, LANES, OPERATIONS, Operation, Step};
use std::path::Path;
use std::process::{Command, ExitCode};

/// Enough that how the names of lanes happen to be hashed, each time anew, makes no difference.
const COUNTED: usize = 20_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // By this program, under callgrind.
        ["counted", name, lanes] => {
            let operation = OPERATIONS.iter().find(|operation| operation.name == name);
            let lanes = lanes.parse().expect("a number of lanes");
            rounds(operation.expect("the name of an operation"), lanes);
            ExitCode::SUCCESS
        }
        // By `cargo bench`.
        _ if arguments.contains(&"--bench") => figures(),
        // By `cargo test`.
        _ => {
            for (operation, lanes) in all() {
                operation.round(&mut Fleet::new(lanes), toggle_collect);
            }
            ExitCode::SUCCESS
        }
    }
}

fn all() -> impl Iterator<Item = (&'static Operation, usize)> {
    OPERATIONS.iter().flat_map(|operation| LANES.map(|lanes| (operation, lanes)))
}

fn figures() -> ExitCode {
    println!("{:<10} {:>6} {:>12}", "operation", "lanes", "instructions");
    for (operation, lanes) in all() {
        match count(operation.name, lanes) {
            Ok(instructions) => {
                println!("{:<10} {lanes:>6} {instructions:>12.1}", operation.name);
            }
            Err(what) => {
                eprintln!("{} with {lanes} lanes could not be counted: {what}", operation.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs this program under callgrind; the instructions of one operation.
fn count(name: &str, lanes: usize) -> Result<f64, String> {
    let file = std::env::temp_dir().join(format!("callgrind.{}", std::process::id()));
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*toggle_collect*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["counted", name, &lanes.to_string()])
        .output()
        .map_err(|error| format!("valgrind could not be started ({error}), is it installed?"))?;
    let total = total(&file);
    let _ = std::fs::remove_file(&file);
    match total {
        Ok(total) if output.status.success() && total > 0 => {
            Ok(total as f64 / operations(&Fleet::new(lanes)) as f64)
        }
        total => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{total:?}, valgrind ended with {} and said\n{said}", output.status))
        }
    }
}

/// The sum in callgrind's file.
fn total(file: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let totals = totals.ok_or("its file has no totals")?;
    totals.trim().parse().map_err(|_| format!("its totals are {totals:?} and no number"))
}

/// Rounds that are counted, and so many operations in all of them.
fn counted_rounds(fleet: &Fleet) -> usize {
    COUNTED.div_ceil(fleet.lanes())
}

fn operations(fleet: &Fleet) -> usize {
    counted_rounds(fleet) * fleet.lanes()
}

fn rounds(operation: &Operation, lanes: usize) {
    let mut fleet = Fleet::new(lanes);
    // Memory is taken and tables grow in the first one.
    operation.round(&mut fleet, |fleet, step| fleet.take(step));
    for _ in 0..counted_rounds(&fleet) {
        operation.round(&mut fleet, toggle_collect);
    }
}

/// Where callgrind counts, which knows it by its name.
#[inline(never)]
fn toggle_collect(fleet: &mut Fleet, step: Step) {
    fleet.take(step);
}
