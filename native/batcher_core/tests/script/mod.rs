//! The language of the scenarios: one line in, the engine's answer and its events out.
//!
//! Invariant: a line is carried out only if every word of it was understood.

use crate::common::{Driver, Event, Write, namespace, tickets};
use batcher_core::{CommitScope, Config, Group, LaneKey, Overflow, Pacing, Phase, Refused, Usage};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Replays a scenario. The error starts with the number of the line.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let steps = parse(text)?;
    if steps.is_empty() {
        return Err("1: nothing in it".into());
    }
    let mut run = Run::default();
    steps.iter().try_for_each(|step| run.check(step))
}

/// An input and what is expected of it, each with the number of its line.
struct Step<'a> {
    line: usize,
    input: &'a str,
    answer: Option<&'a str>,
    events: Vec<(usize, &'a str)>,
}

fn parse(text: &str) -> Result<Vec<Step<'_>>, String> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for (index, whole) in text.lines().enumerate() {
        let line = index + 1;
        let code = whole.split('#').next().unwrap_or_default().trim_end();
        if code.is_empty() {
            continue;
        }
        if code.starts_with(' ') {
            let step = steps.last_mut();
            let step = step.ok_or_else(|| format!("{line}: an event before any input"))?;
            step.events.push((line, code.trim_start()));
            continue;
        }
        let (input, answer) = match code.split_once("->") {
            Some((input, answer)) => (input.trim_end(), Some(answer.trim_start())),
            None => (code, None),
        };
        steps.push(Step { line, input, answer, events: Vec::new() });
    }
    Ok(steps)
}

struct Run {
    config: Config,
    driver: Driver,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            config: Config { linger: Duration::ZERO, ..Config::default() },
            driver: Driver::default(),
        }
    }
}

impl Run {
    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        let answer = catch_unwind(AssertUnwindSafe(|| self.carry_out(step.input)))
            .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_text(&*panic))))
            .map_err(|why| format!("{}: {why}", step.line))?;
        compare(step.line, step.answer, answer.as_deref())?;

        let happened = self.driver.take_happened();
        let got: Vec<String> = happened.iter().map(|(at, event)| show_event(*at, event)).collect();
        for index in 0..got.len().max(step.events.len()) {
            let (line, expected) = match step.events.get(index) {
                Some(&(line, text)) => (line, Some(text)),
                None => (step.line, None),
            };
            compare(line, expected, got.get(index).map(String::as_str))?;
        }
        Ok(())
    }

    fn carry_out(&mut self, input: &str) -> Result<Option<String>, String> {
        let mut words = input.split_whitespace();
        let (verb, words) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>());
        let driver = &mut self.driver;
        let answer = match (verb, words.as_slice()) {
            ("config", settings) => return self.configure(settings).map(|()| None),
            ("open", []) => {
                driver.open(self.config.clone());
                None
            }
            ("configure", []) => {
                driver.configure(self.config.clone());
                None
            }
            ("owner_down", []) => {
                driver.owner_down();
                None
            }
            ("close", []) => {
                driver.close();
                None
            }
            ("committers", [count]) => {
                driver.set_committers(size(count)?);
                None
            }
            ("at", [to]) => {
                driver.advance(later(driver.now(), to)?);
                None
            }
            ("drift", [to]) => {
                driver.drift(later(driver.now(), to)?);
                None
            }
            ("timeout", []) => {
                driver.timeout();
                None
            }
            ("offer", words) => Some(offer(driver, Values(words.to_vec()))?),
            ("done", [name]) => {
                let ended = driver.done(lane(name)?.borrow());
                ended.is_none().then(|| "nothing in flight".into())
            }
            ("answering", [name]) => {
                let in_flight = driver.answering(lane(name)?.borrow());
                (!in_flight).then(|| "nothing in flight".into())
            }
            ("flush", []) => Some(format!("barrier {}", driver.flush())),
            ("stop", []) => Some(format!("barrier {}", driver.stop())),
            ("wanted", []) => Some(driver.shard.wanted().to_string()),
            ("in_flight", []) => Some(driver.shard.in_flight().to_string()),
            ("deadline", []) => Some(driver.next_deadline().map_or("none".into(), show_time)),
            ("phase", []) => Some(show_phase(driver)),
            ("queue", [name]) => Some(show_queue(driver, &lane(name)?)),
            _ => return Err(format!("not understood: {input:?}")),
        };
        Ok(answer)
    }

    fn configure(&mut self, settings: &[&str]) -> Result<(), String> {
        for setting in settings {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            match key {
                "hot_max" => self.config.hot_max = maximum(value)?,
                "namespace_max" => self.config.namespace_max = maximum(value)?,
                "max_in_flight" => self.config.max_in_flight = size(value)?,
                "max_items" => self.config.max_items = number(value)?,
                "max_bytes" => self.config.max_bytes = number(value)?,
                "linger" => self.config.linger = time(value)?,
                "adoption" => self.config.adoption_timeout = time(value)?,
                "pacing" => self.config.pacing = pacing(value)?,
                "commit_scope" => self.config.commit_scope = commit_scope(value)?,
                "overflow" => self.config.overflow = overflow(value)?,
                "budgets" => self.config.budgets = Some(usage(value)?),
                _ => return Err(format!("unknown setting {key:?}")),
            }
        }
        Ok(())
    }
}

fn offer(driver: &mut Driver, mut values: Values<'_>) -> Result<String, String> {
    let name = values.take("lane", lane)?;
    let window = values.take("window", time)?;
    let cost = values.take_or("n", 1, number)?;
    let bytes = values.take_or("bytes", 1, number)?;
    let writer = values.take_or("by", 0, number)?;
    let usage = values.take_or("usage", Usage::default(), usage)?;
    let waits = values.take_or("waits", true, flag)?;
    let apart = values.take_or("apart", false, flag)?;
    values.none_left()?;
    let group = Group { cost, bytes, writer, usage, waits, apart };
    let offered = driver.offer(name.borrow(), group, window);
    Ok(match offered {
        Ok(ticket) => format!("ticket {ticket}"),
        Err(Refused::NotRunning) => "refused not_running".into(),
        Err(Refused::ShuttingDown) => "refused shutting_down".into(),
        Err(Refused::Overloaded(_)) => "refused overloaded".into(),
        Err(Refused::CommandBudget) => "refused command_budget".into(),
        Err(Refused::CompoundBudget) => "refused compound_budget".into(),
    })
}

fn later(now: Duration, text: &str) -> Result<Duration, String> {
    let to = time(text)?;
    if to < now { Err(format!("the clock is at {}", show_time(now))) } else { Ok(to) }
}

/// An engine that breaks its own invariants panics, or the driver does.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

fn compare(line: usize, expected: Option<&str>, got: Option<&str>) -> Result<(), String> {
    if expected == got {
        return Ok(());
    }
    let show = |text: Option<&str>| text.map_or("nothing".into(), |text| format!("{text:?}"));
    Err(format!("{line}: expected {}, got {}", show(expected), show(got)))
}

/// The `key=value` words of a line that have not been understood yet.
struct Values<'a>(Vec<&'a str>);

impl Values<'_> {
    fn take<T>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        let value = |word: &&str| word.split_once('=').is_some_and(|(name, _)| name == key);
        let index = self.0.iter().position(value).ok_or_else(|| format!("{key}= is missing"))?;
        read(&self.0.remove(index)[key.len() + 1..])
    }

    fn take_or<T>(
        &mut self,
        key: &str,
        default: T,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        let given = self.0.iter().any(|word| word.starts_with(&format!("{key}=")));
        if given { self.take(key, read) } else { Ok(default) }
    }

    fn none_left(&self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |word| Err(format!("unknown word {word:?}")))
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn size(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no size"))
}

fn maximum(text: &str) -> Result<Option<u64>, String> {
    if text == "none" { Ok(None) } else { number(text).map(Some) }
}

fn pacing(text: &str) -> Result<Pacing, String> {
    match text {
        "commit" => Ok(Pacing::Commit),
        "window" => Ok(Pacing::Window),
        "auto" => Ok(Pacing::Auto),
        _ => Err(format!("unknown pacing {text:?}")),
    }
}

fn commit_scope(text: &str) -> Result<CommitScope, String> {
    match text {
        "lane" => Ok(CommitScope::Lane),
        "shard" => Ok(CommitScope::Shard),
        _ => Err(format!("unknown commit scope {text:?}")),
    }
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("neither yes nor no: {text:?}")),
    }
}

fn overflow(text: &str) -> Result<Overflow, String> {
    match text {
        "queue" => Ok(Overflow::Queue),
        "refuse" => Ok(Overflow::Refuse),
        _ => Err(format!("unknown overflow {text:?}")),
    }
}

/// Command items, compound members, visits: `3/0/6`.
fn usage(text: &str) -> Result<Usage, String> {
    let numbers = text.split('/').map(number).collect::<Result<Vec<u64>, String>>()?;
    match numbers[..] {
        [command_items, compound_members, visits] => {
            Ok(Usage { command_items, compound_members, visits })
        }
        _ => Err(format!("{text:?} is no usage: expected items/members/visits")),
    }
}

fn lane(text: &str) -> Result<LaneKey, String> {
    match text {
        "generic" => Ok(LaneKey::Generic),
        "put" => Ok(LaneKey::Put),
        "delete" => Ok(LaneKey::Delete),
        _ => text.strip_prefix("ns:").map(namespace).ok_or(format!("unknown lane {text:?}")),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let micros = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return Err(format!("{text:?} is no time: expected a number and us, ms or s")),
    };
    let count = number(&text[..text.len() - unit.len()])?;
    Ok(Duration::from_micros(count * micros))
}

fn show_time(time: Duration) -> String {
    match time.as_micros() {
        micros if micros.is_multiple_of(1_000) => format!("{}ms", micros / 1_000),
        micros => format!("{micros}us"),
    }
}

fn show_lane(lane: &LaneKey) -> String {
    match lane {
        LaneKey::Generic => "generic".into(),
        LaneKey::Put => "put".into(),
        LaneKey::Delete => "delete".into(),
        LaneKey::Prefix(prefix) => format!("ns:{}", String::from_utf8_lossy(prefix)),
    }
}

fn show_phase(driver: &Driver) -> String {
    match driver.shard.phase() {
        Phase::Closed => "closed".into(),
        Phase::Running => "running".into(),
        Phase::Stopping => "stopping".into(),
        Phase::Orphaned(until) => {
            format!("orphaned until {}", show_time(driver.since_start(until)))
        }
    }
}

fn show_queue(driver: &Driver, lane: &LaneKey) -> String {
    let view = driver.shard.lanes().find(|view| view.key() == lane);
    let slots = view.iter().flat_map(|view| view.queue());
    let slots: Vec<String> = slots.map(|slot| show_groups(&slot.contents)).collect();
    if slots.is_empty() { "nothing".into() } else { slots.join(" ") }
}

fn show_groups(writes: &[Write]) -> String {
    show_tickets(&tickets(writes))
}

fn show_tickets(tickets: &[u64]) -> String {
    let numbers: Vec<String> = tickets.iter().map(u64::to_string).collect();
    format!("[{}]", numbers.join(","))
}

fn show_event(at: Duration, event: &Event) -> String {
    let what = match event {
        Event::Commit(departed) => {
            let reason = format!("{:?}", departed.reason).to_lowercase();
            let (lane, groups) = (show_lane(&departed.lane), show_tickets(&departed.tickets));
            match departed.is_part {
                false => format!("commit lane={lane} groups={groups} reason={reason}"),
                true => format!("with lane={lane} groups={groups} reason={reason}"),
            }
        }
        Event::Abandoned { tickets } => format!("abandon groups={}", show_tickets(tickets)),
        Event::Barrier { id } => format!("barrier {id}"),
    };
    format!("{} {what}", show_time(at))
}
