//! Replays the files of `tests/scenarios` against the engine.
//!
//! Invariant: everything that the engine answers or does is written in the file, in this order; a
//! word that is unknown, an answer that is missing and an event too many are errors.
//!
//! An input stands at the left margin, with the engine's answer behind `->`. What follows from it
//! stands below, indented, with the time: `commit` where a batch leaves, `with` where one leaves in the same commit.
//! `#` starts a comment.
//!
//! ```text
//! config hot_max=10
//! open
//! offer lane=put n=6 window=50ms -> ticket 0
//! at 60ms
//!   50ms commit lane=put groups=[0] reason=window
//! ```
//!
//! | input | what happens |
//! | --- | --- |
//! | `config key=value ...` | sets what the next `open` or `configure` takes: `hot_max`, `namespace_max`, `pacing`, `commit_scope`, `max_in_flight`, `max_items`, `max_bytes`, `linger` (none unless set), `adoption`, `overflow`, `budgets` (items/members/visits) |
//! | `open`, `owner_down`, `close` | an owner comes, dies, ends |
//! | `configure` | the owner changes what is set |
//! | `committers 2` | so many commits may be in flight at once; without it, any number |
//! | `offer lane=ns:a n=1 bytes=1 window=5ms by=0 usage=0/0/0 waits=yes apart=no` | a group of the process `by`; lanes are `generic`, `put`, `delete`, `ns:<prefix>` |
//! | `answering put` | the commit in flight there ended, its callers are being answered |
//! | `done put` | they have been answered, and the lane is free |
//! | `done put` of a part | the same of all parts of that commit, the first one last |
//! | `flush`, `stop` | barriers, numbered from 0 in one row |
//! | `at 50ms` | the clock runs to there and stops at each deadline |
//! | `drift 50ms`, `timeout` | the clock runs and nobody looks; somebody looks |
//! | `deadline`, `phase`, `wanted`, `in_flight`, `queue put` | the engine is asked |

mod common;
mod script;

use script::check;
use std::path::Path;

#[test]
fn every_scenario_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of the scenarios can be read");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty(), "no scenario in {}", folder.display());

    let mut failures = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a scenario is a text");
        if let Err(failure) = check(&text) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            failures.push(format!("tests/scenarios/{name}:{failure}"));
        }
    }
    let count = (failures.len(), files.len());
    assert!(failures.is_empty(), "{} of {} failed\n{}", count.0, count.1, failures.join("\n"));
}

/// The runner must be able to fail: each of these texts is wrong in one way.
#[test]
fn a_wrong_scenario_fails_at_its_line() {
    let offer = "open\noffer lane=put window=5ms -> ticket 0\n";
    let wrong = [
        ("", "nothing in it"),
        ("open\nwait 5ms\n", "2: not understood: \"wait 5ms\""),
        ("config hot_min=1\n", "1: unknown setting \"hot_min\""),
        ("open\noffer lane=get window=1ms -> ticket 0\n", "2: unknown lane \"get\""),
        ("open\noffer lane=put window=1ms m=1\n", "2: unknown word \"m=1\""),
        ("open\noffer lane=put n=1 -> ticket 0\n", "2: window= is missing"),
        ("open\nopen now\n", "2: not understood: \"open now\""),
        ("open\nat 5\n", "2: \"5\" is no time"),
        ("config budgets=1/2\n", "1: \"1/2\" is no usage"),
        ("config overflow=drop\n", "1: unknown overflow \"drop\""),
        ("config commit_scope=all\n", "1: unknown commit scope \"all\""),
        ("config pacing=none\n", "1: unknown pacing \"none\""),
        ("open\noffer lane=put window=1ms waits=1\n", "2: neither yes nor no: \"1\""),
        ("open\nanswering put\n", "2: expected nothing, got \"nothing in flight\""),
        ("open\nat 5ms\nat 4ms\n", "3: the clock is at 5ms"),
        ("  0ms barrier 0\n", "1: an event before any input"),
        ("open\nflush -> barrier 1\n", "2: expected \"barrier 1\", got \"barrier 0\""),
        ("open\nflush\n  0ms barrier 0\n", "2: expected nothing, got \"barrier 0\""),
        ("open -> 1\n", "1: expected \"1\", got nothing"),
        ("open\nflush -> barrier 0\n  1ms barrier 0\n", "3: expected \"1ms barrier 0\", got \"0ms"),
        (&format!("{offer}at 5ms\n"), "3: expected nothing, got \"5ms commit lane=put groups=[0]"),
        (&format!("{offer}  0ms barrier 0\n"), "3: expected \"0ms barrier 0\", got nothing"),
    ];
    for (text, failure) in wrong {
        let got = check(text).expect_err(text);
        assert!(got.contains(failure), "for {text:?}: expected {failure:?} in {got:?}");
    }
}
