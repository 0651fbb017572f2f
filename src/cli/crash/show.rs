//! A report for people: the reason, the last messages as a table, the way to a panic without the
//! frames that are not ours.

use super::{on_one_line, table};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Deserialize)]
struct Report {
    at: String,
    path: String,
    event: String,
    generation: u64,
    reason: Reason,
    suppressed: u64,
    restarts: u64,
    mailbox: u64,
    in_flight: u64,
    in_hand: Option<InHand>,
    exits: Vec<Exit>,
    recorders: Vec<Recorder>,
    recorders_left_out: usize,
    build: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Reason {
    kind: String,
    text: String,
    #[serde(default)]
    backtrace: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    function: String,
    at: String,
}

#[derive(Deserialize)]
struct InHand {
    message: String,
    id: u64,
}

#[derive(Deserialize)]
struct Exit {
    at: String,
    path: String,
    generation: u64,
    text: String,
}

#[derive(Deserialize)]
struct Recorder {
    path: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    id: u64,
    cause: u64,
    request: u64,
    sender: String,
    message: String,
    sent_at: String,
    waited_ns: u64,
    handled_ns: u64,
    outcome: String,
    answer: Option<String>,
    items: u32,
    bytes: u64,
}

/// Where every contained panic passes: no news.
const OWN_MACHINERY: [&str; 2] = ["supervision/exit.rs", "supervision/life.rs"];
/// Sources of others.
const FOREIGN: [&str; 2] = ["/.cargo/registry/", "/rustc/"];

/// The report as text, with so many messages of each actor.
pub fn text(json: &str, messages_max: usize) -> Result<String, serde_json::Error> {
    let report: Report = serde_json::from_str(json)?;
    let mut text = head(&report);
    if !report.exits.is_empty() {
        text.push_str("\nexits\n");
        text.push_str(&exits(&report.exits));
    }
    for Recorder { path, messages } in &report.recorders {
        let shown = &messages[messages.len().saturating_sub(messages_max)..];
        let (count, all) = (shown.len(), messages.len());
        writeln!(
            text,
            "\nmessages of {path}: the last {count} of {all}\n{}",
            rows(shown).trim_end()
        )
        .expect("a string takes any text");
    }
    if report.recorders_left_out > 0 {
        writeln!(text, "\n{} more actors are not in the report", report.recorders_left_out)
            .expect("a string takes any text");
    }
    text.push_str(&backtrace(&report.reason.backtrace));
    Ok(text)
}

fn head(report: &Report) -> String {
    let Report { at, path, event, generation, reason, restarts, mailbox, in_flight, .. } = report;
    let build = |name: &str| report.build.get(name).map_or("unknown", String::as_str);
    let mut rows = vec![
        ["actor".into(), format!("{path}, life {generation}, {restarts} restarts before")],
        ["when".into(), at.clone()],
        [event.clone(), format!("{}: {}", reason.kind, on_one_line(&reason.text))],
    ];
    if let Some(InHand { message, id }) = &report.in_hand {
        rows.push(["in hand".into(), format!("{message}, id {id}")]);
    }
    rows.push([
        "waiting".into(),
        format!("{mailbox} messages in the mailbox, {in_flight} requests without an answer"),
    ]);
    if report.suppressed > 0 {
        let more = format!("{} crashes before it, without a report", report.suppressed);
        rows.push(["more".into(), more]);
    }
    rows.push(["build".into(), format!("duramen {} ({})", build("version"), build("commit"))]);
    table(&rows, "")
}

fn exits(exits: &[Exit]) -> String {
    let row = |exit: &Exit| {
        let Exit { at, path, generation, text } = exit;
        [at.clone(), path.clone(), format!("life {generation}"), on_one_line(text)]
    };
    table(&exits.iter().map(row).collect::<Vec<_>>(), "  ")
}

fn rows(messages: &[Message]) -> String {
    let mut rows = vec![
        [
            "SENT", "ID", "CAUSE", "REQUEST", "MESSAGE", "FROM", "WAITED", "HANDLED", "OUTCOME",
            "ITEMS", "BYTES",
        ]
        .map(String::from),
    ];
    let or_none = |number: u64| if number == 0 { "-".into() } else { number.to_string() };
    rows.extend(messages.iter().map(|message| {
        let answer = message.answer.as_ref();
        let outcome = answer
            .map_or(message.outcome.clone(), |answer| format!("{}, {answer}", message.outcome));
        // The date is in the head.
        let time = message.sent_at.split_once('T').map_or(&*message.sent_at, |(_, time)| time);
        [
            time.to_owned(),
            message.id.to_string(),
            or_none(message.cause),
            or_none(message.request),
            message.message.clone(),
            if message.sender.is_empty() { "-".into() } else { message.sender.clone() },
            micros(message.waited_ns),
            micros(message.handled_ns),
            outcome,
            message.items.to_string(),
            message.bytes.to_string(),
        ]
    }));
    table(&rows, "  ")
}

/// In the unit in which it reads best.
fn micros(ns: u64) -> String {
    match ns {
        0..10_000_000 => format!("{}us", ns / 1000),
        10_000_000..10_000_000_000 => format!("{}ms", ns / 1_000_000),
        _ => format!("{}s", ns / 1_000_000_000),
    }
}

/// Our frames; all of them where there are none.
fn backtrace(frames: &[Frame]) -> String {
    if frames.is_empty() {
        return String::new();
    }
    // Functions that were inlined go by short names, those of others by ours as parameters.
    let is_ours = |frame: &&Frame| {
        let lies_in = |places: &[&str]| places.iter().any(|place| frame.at.contains(place));
        let name = frame.function.trim_start_matches('<');
        let is_known = name.starts_with("duramen::") || !frame.at.is_empty();
        is_known && !lies_in(&OWN_MACHINERY) && !lies_in(&FOREIGN)
    };
    let mut ours: Vec<&Frame> = frames.iter().filter(is_ours).collect();
    if ours.is_empty() {
        ours = frames.iter().collect();
    }
    let left_out = frames.len() - ours.len();
    let rows: Vec<_> =
        ours.iter().map(|frame| [frame.at.clone(), frame.function.clone()]).collect();
    format!("\nbacktrace: duramen's frames, {left_out} others with --json\n{}", table(&rows, "  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> serde_json::Value {
        let message = |id: u64, outcome: &str| {
            json!({
                "id": id, "cause": 0, "request": 3, "sender": "", "message": "Append",
                "sent_at": "2026-11-21T10:00:00.001Z", "sent_ns": 1, "waited_ns": 12_000,
                "handled_ns": 70_000_000, "outcome": outcome, "items": 1, "bytes": 5,
            })
        };
        json!({
            "layout": 1, "at": "2026-11-21T10:00:00.001Z", "at_ns": 5, "path": "node/x",
            "event": "exit", "generation": 2, "suppressed": 4, "restarts": 1, "mailbox": 7,
            "reason": { "kind": "panic", "text": "panicked at a.rs:1: b\u{1b}[31mad", "backtrace": [
                { "function": "core::panicking::panic", "at": "" },
                { "function": "actix::run<duramen::actors::X>", "at": "" },
                { "function": "poll<duramen::actors::X>", "at": "/root/.cargo/registry/src/a.rs:1" },
                { "function": "duramen::supervision::exit::{{closure}}",
                    "at": "./src/supervision/exit.rs:1" },
                { "function": "<duramen::actors::X as Handler>::handle", "at": "./src/x.rs:1:2" },
            ] },
            "in_flight": 8, "in_hand": { "message": "Append", "id": 42, "since_ns": 1 },
            "exits": [{ "at": "2026-11-21T10:00:00.001Z", "at_ns": 5, "path": "node/x",
                "generation": 2, "kind": "panic", "text": "panicked" }],
            "recorders": [{ "path": "node/x", "messages":
                [message(40, "done"), message(41, "done"), message(42, "panicked")] }],
            "recorders_left_out": 1,
            "build": { "version": "0.1.0", "commit": "abc" }, "config": {},
        })
    }

    #[test]
    fn the_reason_comes_first_then_the_last_messages_then_our_frames() {
        let text = text(&report().to_string(), 2).unwrap();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}"));
        let parts = [
            "exit     panic: panicked at a.rs:1: b\\u{1b}[31mad",
            "in hand  Append, id 42",
            "7 messages in the mailbox, 8 requests",
            "4 crashes before it",
            "messages of node/x: the last 2 of 3",
            "10:00:00.001Z  42  -      3        Append   -     12us    70ms     panicked",
            "1 more actors are not in the report",
            "backtrace: duramen's frames, 4 others",
            "./src/x.rs:1:2  <duramen::actors::X as Handler>::handle",
        ];
        let places: Vec<_> = parts.iter().map(|part| at(part)).collect();
        assert!(places.is_sorted(), "{text}");
        assert!(!text.contains("{{closure}}") && !text.contains("core::panicking"), "{text}");
        assert!(!text.contains("  40  "), "{text}");
    }

    #[test]
    fn half_a_report_is_an_error() {
        let mut half = report();
        half.as_object_mut().unwrap().remove("exits");
        assert!(text(&half.to_string(), 20).is_err());
    }
}
