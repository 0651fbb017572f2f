//! One client's request as a Mermaid sequence diagram: from what a tap tells, message by message, to
//! text. Pure.
//!
//! A request that is not alone shares a flush with others: the messages that answer it were begun
//! for another one. So the way is followed backwards, from the message in whose handling the answer
//! was given, along the causes, to the first that was handled after the request itself.

use crate::cli::observe::table::time;
use crate::wire::pb::duramen::v1::Envelope;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

/// Handled messages that are remembered; the oldest are forgotten.
const HANDLED_MAX: usize = 65_536;
/// Answers that wait for messages still missing; the oldest are given up.
const ANSWERS_MAX: usize = 64;
/// An answer is given up when so many messages were sent after its request.
const BEHIND_MAX: u64 = 16_384;

/// Gathers messages until those of one request are complete.
#[derive(Debug)]
pub struct Sequencer {
    slower_than_ns: u64,
    handled: BTreeMap<u64, Envelope>,
    answers: VecDeque<Envelope>,
    /// How many answers were given at the same moment: by when, how many.
    together: VecDeque<(u64, usize)>,
}

impl Sequencer {
    /// For the first request that took longer.
    pub fn new(slower_than: Duration) -> Self {
        Self {
            slower_than_ns: u64::try_from(slower_than.as_nanos()).unwrap_or(u64::MAX),
            handled: BTreeMap::new(),
            answers: VecDeque::new(),
            together: VecDeque::new(),
        }
    }

    /// Takes what a tap tells, in any order; the diagram once a request is complete.
    pub fn take(&mut self, told: Envelope) -> Option<String> {
        match told.answered_after_ns {
            Some(after_ns) => self.note_answer(told, after_ns),
            None => {
                self.handled.insert(told.id, told);
                if self.handled.len() > HANDLED_MAX {
                    self.handled.pop_first();
                }
            }
        }
        let newest = self.handled.last_key_value().map_or(0, |(id, _)| *id);
        self.answers.retain(|answer| answer.id + BEHIND_MAX >= newest);
        // The newest first: what an old one lacks was most likely dropped.
        self.answers.iter().rev().find_map(|answer| self.diagram(answer))
    }

    fn note_answer(&mut self, answer: Envelope, after_ns: u64) {
        let at = answer.sent_ns + after_ns;
        match self.together.back_mut().filter(|(known, _)| *known == at) {
            Some((_, count)) => *count += 1,
            None => self.together.push_back((at, 1)),
        }
        if self.together.len() > ANSWERS_MAX {
            self.together.pop_front();
        }
        if after_ns < self.slower_than_ns {
            return;
        }
        self.answers.push_back(answer);
        if self.answers.len() > ANSWERS_MAX {
            self.answers.pop_front();
        }
    }

    fn diagram(&self, answer: &Envelope) -> Option<String> {
        let request = self.handled.get(&answer.id)?;
        let chain = self.chain(request, answer)?;
        let at = answered_at(answer);
        let together = self.together.iter().find(|(known, _)| *known == at);
        Some(render(request, answer, &chain, together.map_or(1, |(_, count)| *count)))
    }

    /// The messages from the request's arrival to its answer, in the order of their causes, without
    /// the request itself; `None` while some are missing.
    fn chain<'a>(&'a self, request: &Envelope, answer: &Envelope) -> Option<Vec<&'a Envelope>> {
        let at = answered_at(answer);
        let mut chain = Vec::new();
        let mut since = self.handled.range(request.id..).rev().map(|(_, told)| told);
        let mut step = since.find(|told| {
            let taken = taken_at(told);
            told.path == answer.path && taken <= at && at <= taken + told.handled_ns
        })?;
        while step.id != request.id {
            // What was in hand before the request came is another one's story.
            if taken_at(step) < taken_at(request) {
                break;
            }
            chain.push(step);
            match self.handled.get(&step.cause) {
                Some(cause) => step = cause,
                // What an actor sends by itself, as on a timer, has no cause.
                None if step.cause == 0 => break,
                None => return None,
            }
        }
        chain.reverse();
        Some(chain)
    }
}

/// When a message's handler began, by the node's clock.
fn taken_at(told: &Envelope) -> u64 {
    told.sent_ns + told.waited_ns
}

fn answered_at(answer: &Envelope) -> u64 {
    answer.sent_ns + answer.answered_after_ns.unwrap_or_default()
}

/// Draws the request, what it led to, and its answer.
fn render(request: &Envelope, answer: &Envelope, chain: &[&Envelope], together: usize) -> String {
    let mut actors = Actors::default();
    actors.name(&request.sender);
    actors.name(&request.path);
    for step in chain {
        actors.name(&step.sender);
        actors.name(&step.path);
    }
    let mut text = String::from("sequenceDiagram\n");
    for (path, name) in &actors.0 {
        let path = if path.is_empty() { "client" } else { path };
        writeln!(text, "    participant {name} as {path}").expect("a string takes any text");
    }
    let mut arrow = |step: &Envelope| {
        let (from, to) = (actors.known(&step.sender), actors.known(&step.path));
        let after = step.sent_ns.saturating_sub(request.sent_ns);
        let (waited, took) = (time(step.waited_ns), time(step.handled_ns));
        let load = load(step);
        let outcome = if step.outcome == "done" { "took" } else { &step.outcome };
        writeln!(
            text,
            "    {from}->>{to}: {}{load} at +{}, waited {waited}, {outcome} {took}",
            step.message,
            time(after)
        )
        .expect("a string takes any text");
    };
    arrow(request);
    chain.iter().for_each(|step| arrow(step));
    let (from, to) = (actors.known(&request.path), actors.known(&request.sender));
    let word = answer.answer.as_deref().unwrap_or("answered");
    let after = time(answer.answered_after_ns.unwrap_or_default());
    writeln!(text, "    {from}-->>{to}: {word} after {after}").expect("a string takes any text");
    if together > 1 {
        let others = together - 1;
        let requests = if others == 1 { "request" } else { "requests" };
        writeln!(text, "    Note over {from}: {others} other {requests} answered together with it")
            .expect("a string takes any text");
    }
    text
}

fn load(step: &Envelope) -> String {
    match (step.items, step.bytes) {
        (0, 0) => String::new(),
        (items, 0) => format!(" ({items})"),
        (items, bytes) => format!(" ({items}, {bytes} B)"),
    }
}

/// Short names of paths, in the order of their first appearance.
#[derive(Debug, Default)]
struct Actors(Vec<(String, String)>);

impl Actors {
    fn name(&mut self, path: &str) {
        if self.0.iter().any(|(known, _)| known == path) {
            return;
        }
        let last = if path.is_empty() { "client" } else { path.rsplit('/').next().unwrap_or(path) };
        // Mermaid reads letters and digits; anything else may mean something to it.
        let plain: String = last.chars().filter(char::is_ascii_alphanumeric).collect();
        let is_taken = |name: &str| self.0.iter().any(|(_, known)| known == name);
        let mut name = plain.clone();
        let mut number = 2;
        while name.is_empty() || name == "end" || is_taken(&name) {
            name = format!("{plain}{number}");
            number += 1;
        }
        self.0.push((path.into(), name));
    }

    fn known(&self, path: &str) -> &str {
        self.0.iter().find(|(known, _)| known == path).map_or("unknown", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRPC: &str = "node/frontends/grpc";
    const RAFT: &str = "node/partitions/log/0/raft";
    const LOG: &str = "node/partitions/log/0/log";
    const FLUSH: &str = "node/partitions/log/0/log/flush";

    /// A message that was sent at a microsecond, waited 1 µs, and was handled in 2 µs.
    fn told(id: u64, cause: u64, from: &str, to: &str, message: &str, at_us: u64) -> Envelope {
        Envelope {
            id,
            cause,
            sender: from.into(),
            path: to.into(),
            message: message.into(),
            sent_ns: at_us * 1000,
            waited_ns: 1000,
            handled_ns: 2000,
            outcome: "done".into(),
            ..Default::default()
        }
    }

    fn answer(of: &Envelope, at_us: u64) -> Envelope {
        let answered_after_ns = Some(at_us * 1000 - of.sent_ns);
        Envelope { answer: Some("ok".into()), answered_after_ns, ..of.clone() }
    }

    /// What happens from a pump on.
    fn flush_from(pump: Envelope) -> Vec<Envelope> {
        let (id, at) = (pump.id, pump.sent_ns / 1000);
        vec![
            pump,
            told(id + 1, id, RAFT, LOG, "Append", at + 3),
            Envelope { handled_ns: 900_000, ..told(id + 2, id + 1, LOG, FLUSH, "Write", at + 6) },
            told(id + 3, id + 2, FLUSH, LOG, "Report", at + 900),
            told(id + 4, id + 3, LOG, RAFT, "Persisted", at + 905),
        ]
    }

    fn first(told: impl IntoIterator<Item = Envelope>) -> Option<String> {
        let mut sequencer = Sequencer::new(Duration::ZERO);
        told.into_iter().find_map(|told| sequencer.take(told))
    }

    #[test]
    fn a_lone_request_is_drawn_from_its_arrival_to_its_answer() {
        let propose = Envelope { items: 1, bytes: 5, ..told(10, 0, GRPC, RAFT, "Propose", 100) };
        let mut story = vec![propose.clone()];
        story.extend(flush_from(told(11, 10, RAFT, RAFT, "Pump", 102)));
        story.insert(5, answer(&propose, 1009));
        assert_eq!(
            first(story).unwrap(),
            "sequenceDiagram
    participant grpc as node/frontends/grpc
    participant raft as node/partitions/log/0/raft
    participant log as node/partitions/log/0/log
    participant flush as node/partitions/log/0/log/flush
    grpc->>raft: Propose (1, 5 B) at +0 ns, waited 1 µs, took 2 µs
    raft->>raft: Pump at +2 µs, waited 1 µs, took 2 µs
    raft->>log: Append at +5 µs, waited 1 µs, took 2 µs
    log->>flush: Write at +8 µs, waited 1 µs, took 900 µs
    flush->>log: Report at +902 µs, waited 1 µs, took 2 µs
    log->>raft: Persisted at +907 µs, waited 1 µs, took 2 µs
    raft-->>grpc: ok after 909 µs
"
        );
    }

    #[test]
    fn a_request_that_joined_anothers_flush_shares_its_way_from_the_pump_on() {
        let leader = told(10, 0, "", RAFT, "Propose", 100);
        let joined = told(12, 0, "", RAFT, "Propose", 101);
        let mut story = vec![leader.clone(), joined.clone()];
        story.extend(flush_from(told(20, 10, RAFT, RAFT, "Pump", 103)));
        // Both are answered within the handling of the last message.
        story.insert(6, answer(&leader, 1010));
        story.insert(7, answer(&joined, 1010));
        let drawn = first(story).unwrap();
        assert!(drawn.contains("participant client as client\n"), "{drawn}");
        assert!(drawn.contains("client->>raft: Propose at +0 ns"), "{drawn}");
        assert!(drawn.contains("raft->>raft: Pump at +2 µs"), "of the one that joined: {drawn}");
        assert_eq!(drawn.matches("Propose").count(), 1, "the other's arrival is not its story");
        assert!(drawn.contains("1 other request answered together with it"), "{drawn}");
    }

    #[test]
    fn a_request_that_came_during_a_flush_shows_the_end_of_that_flush_and_nothing_before() {
        let mut story = flush_from(told(1, 0, RAFT, RAFT, "Pump", 0));
        let propose = told(30, 0, "", RAFT, "Propose", 500);
        story.insert(1, propose.clone());
        story.extend(flush_from(told(31, 5, RAFT, RAFT, "Pump", 910)));
        story.push(answer(&propose, 1817));
        let drawn = first(story).unwrap();
        assert_eq!(drawn.matches("Persisted").count(), 2, "{drawn}");
        assert_eq!(drawn.matches("Write").count(), 1, "the earlier write began before it: {drawn}");
    }

    #[test]
    fn an_answer_given_at_once_needs_no_further_message() {
        let propose = told(10, 0, "", RAFT, "Propose", 100);
        let refused = Envelope { answer: Some("refused".into()), ..answer(&propose, 102) };
        // Told in the order of a handler that answers before it returns.
        let drawn = first([refused, propose]).unwrap();
        assert!(drawn.ends_with("raft-->>client: refused after 2 µs\n"), "{drawn}");
    }

    #[test]
    fn nothing_is_drawn_while_a_message_is_missing_and_a_late_one_completes_it() {
        let propose = told(10, 0, "", RAFT, "Propose", 100);
        let flush = flush_from(told(11, 10, RAFT, RAFT, "Pump", 102));
        for missing in 0..flush.len() {
            let mut story = vec![propose.clone(), answer(&propose, 1009)];
            story.extend(
                flush.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, e)| e.clone()),
            );
            assert_eq!(first(story.clone()), None, "without {}", flush[missing].message);
            story.push(flush[missing].clone());
            assert!(first(story).is_some(), "with {} in the end", flush[missing].message);
        }
    }

    #[test]
    fn a_slow_request_is_waited_for() {
        let mut sequencer = Sequencer::new(Duration::from_millis(5));
        let propose = told(10, 0, "", RAFT, "Propose", 100);
        let mut story = vec![propose.clone(), answer(&propose, 1009)];
        story.extend(flush_from(told(11, 10, RAFT, RAFT, "Pump", 102)));
        assert!(story.into_iter().all(|told| sequencer.take(told).is_none()));
    }

    #[test]
    fn names_that_mean_something_to_mermaid_are_not_used() {
        let mut actors = Actors::default();
        for path in ["a/end", "b/end", "node/log/0", "ü"] {
            actors.name(path);
        }
        let names: Vec<_> = actors.0.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["end2", "end3", "0", "2"]);
    }
}
