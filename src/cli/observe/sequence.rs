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

/// What an answer waits for before it can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// The message of this number.
    Id(u64),
    /// The message in whose handling it was given, whatever its number.
    Answering,
}

/// Gathers messages until those of one request are complete.
#[derive(Debug)]
pub struct Sequencer {
    slower_than_ns: u64,
    handled: BTreeMap<u64, Envelope>,
    /// The number of the message that an actor took at a moment.
    taken: BTreeMap<String, BTreeMap<u64, u64>>,
    waiting: VecDeque<(Envelope, Missing)>,
    /// How many answers were given at the same moment: by when, how many.
    together: VecDeque<(u64, usize)>,
    #[cfg(test)]
    tries: std::cell::Cell<usize>,
}

impl Sequencer {
    /// For the first request that took longer.
    pub fn new(slower_than: Duration) -> Self {
        Self {
            slower_than_ns: u64::try_from(slower_than.as_nanos()).unwrap_or(u64::MAX),
            handled: BTreeMap::new(),
            taken: BTreeMap::new(),
            waiting: VecDeque::new(),
            together: VecDeque::new(),
            #[cfg(test)]
            tries: std::cell::Cell::default(),
        }
    }

    /// Takes what a tap tells, in any order; the diagram once a request is complete.
    pub fn take(&mut self, told: Envelope) -> Option<String> {
        let newest = self.handled.last_key_value().map_or(0, |(id, _)| *id).max(told.id);
        self.waiting.retain(|(answer, _)| answer.id.saturating_add(BEHIND_MAX) >= newest);
        match told.answered_after_ns {
            Some(after_ns) => self.note_answer(told, after_ns),
            None => self.note_handled(told),
        }
    }

    fn note_handled(&mut self, told: Envelope) -> Option<String> {
        let is_it = |(answer, missing): &(Envelope, Missing)| match missing {
            Missing::Id(id) => *id == told.id,
            Missing::Answering => is_answering(&told, answer),
        };
        // The newest first: what an old one lacks was most likely dropped.
        let ready: Vec<usize> =
            (0..self.waiting.len()).rev().filter(|at| is_it(&self.waiting[*at])).collect();
        self.taken.entry(told.path.clone()).or_default().insert(taken_at(&told), told.id);
        self.handled.insert(told.id, told);
        if self.handled.len() > HANDLED_MAX {
            self.forget_oldest();
        }
        for at in ready {
            match self.diagram(&self.waiting[at].0) {
                Ok(diagram) => return Some(diagram),
                Err(missing) => self.waiting[at].1 = missing,
            }
        }
        None
    }

    fn forget_oldest(&mut self) {
        let Some((id, told)) = self.handled.pop_first() else { return };
        let Some(taken) = self.taken.get_mut(&told.path) else { return };
        if taken.get(&taken_at(&told)) == Some(&id) {
            taken.remove(&taken_at(&told));
        }
        if taken.is_empty() {
            self.taken.remove(&told.path);
        }
    }

    fn note_answer(&mut self, answer: Envelope, after_ns: u64) -> Option<String> {
        let at = answered_at(&answer);
        match self.together.back_mut().filter(|(known, _)| *known == at) {
            Some((_, count)) => *count += 1,
            None => self.together.push_back((at, 1)),
        }
        if self.together.len() > ANSWERS_MAX {
            self.together.pop_front();
        }
        if after_ns < self.slower_than_ns {
            return None;
        }
        match self.diagram(&answer) {
            Ok(diagram) => return Some(diagram),
            Err(missing) => self.waiting.push_back((answer, missing)),
        }
        if self.waiting.len() > ANSWERS_MAX {
            self.waiting.pop_front();
        }
        None
    }

    fn diagram(&self, answer: &Envelope) -> Result<String, Missing> {
        #[cfg(test)]
        self.tries.set(self.tries.get() + 1);
        let request = self.handled.get(&answer.id).ok_or(Missing::Id(answer.id))?;
        let chain = self.chain(request, answer)?;
        let at = answered_at(answer);
        let together = self.together.iter().find(|(known, _)| *known == at);
        Ok(render(request, answer, &chain, together.map_or(1, |(_, count)| *count)))
    }

    /// The messages from the request's arrival to its answer, in the order of their causes, without
    /// the request itself; or the first that is missing.
    fn chain<'a>(
        &'a self,
        request: &Envelope,
        answer: &Envelope,
    ) -> Result<Vec<&'a Envelope>, Missing> {
        let taken = self.taken.get(&answer.path);
        let last = taken.and_then(|taken| taken.range(..=answered_at(answer)).next_back());
        let mut step = last
            .and_then(|(_, id)| self.handled.get(id))
            .filter(|told| is_answering(told, answer))
            .ok_or(Missing::Answering)?;
        let mut chain = Vec::new();
        while step.id != request.id {
            // What was in hand before the request came is another one's story.
            if taken_at(step) < taken_at(request) {
                break;
            }
            chain.push(step);
            // What an actor sends by itself, as on a timer, has no cause; and none comes after what
            // it caused.
            if step.cause == 0 || step.cause >= step.id {
                break;
            }
            step = self.handled.get(&step.cause).ok_or(Missing::Id(step.cause))?;
        }
        chain.reverse();
        Ok(chain)
    }
}

/// Whether the answer was given while this was handled.
fn is_answering(told: &Envelope, answer: &Envelope) -> bool {
    let (at, taken) = (answered_at(answer), taken_at(told));
    told.id >= answer.id
        && told.path == answer.path
        && taken <= at
        && at <= taken.saturating_add(told.handled_ns)
}

/// When a message's handler began, by the node's clock.
fn taken_at(told: &Envelope) -> u64 {
    told.sent_ns.saturating_add(told.waited_ns)
}

fn answered_at(answer: &Envelope) -> u64 {
    answer.sent_ns.saturating_add(answer.answered_after_ns.unwrap_or_default())
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
        // A later arrival can be what set the flush going.
        let is_another = step.id != request.id && step.message == request.message;
        let whose = if is_another { " of another request" } else { "" };
        let outcome = if step.outcome == "done" { "took" } else { &step.outcome };
        writeln!(
            text,
            "    {from}->>{to}: {}{whose}{load} at +{}, waited {waited}, {outcome} {took}",
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
    fn a_later_request_that_set_the_flush_going_is_told_as_another_one() {
        let request = told(10, 0, "", RAFT, "Propose", 100);
        let later = told(11, 0, "", RAFT, "Propose", 200);
        let mut story = vec![request.clone(), later];
        story.extend(flush_from(told(12, 11, RAFT, RAFT, "Pump", 203)));
        story.push(answer(&request, 1110));
        let drawn = first(story).unwrap();
        assert!(drawn.contains("Propose of another request at +100 µs"), "{drawn}");
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
    fn an_answer_is_tried_again_only_when_what_it_lacks_has_come() {
        let mut sequencer = Sequencer::new(Duration::ZERO);
        for id in 1..=ANSWERS_MAX as u64 {
            let lost = told(id, 0, GRPC, RAFT, "Propose", id);
            assert_eq!(sequencer.take(answer(&lost, 1_000_000 + id)), None);
        }
        let tries = sequencer.tries.get();
        for id in 100..5_000 {
            assert_eq!(sequencer.take(told(id, 0, RAFT, LOG, "Append", id)), None);
        }
        assert_eq!(sequencer.tries.get(), tries, "nothing of theirs has come");
        assert_eq!(sequencer.take(told(7, 0, GRPC, RAFT, "Propose", 7)), None);
        assert_eq!(sequencer.tries.get(), tries + 1, "that is the seventh's");
    }

    #[test]
    fn causes_that_go_round_in_a_circle_end() {
        let propose = told(10, 0, GRPC, RAFT, "Propose", 100);
        let pump = told(11, 12, RAFT, RAFT, "Pump", 102);
        let persisted = told(12, 11, LOG, RAFT, "Persisted", 105);
        let story = [propose.clone(), pump, persisted, answer(&propose, 107)];
        assert!(first(story).is_some());
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
