//! Messages of several nodes in one order: by time, and none as received before it was sent, however
//! far the nodes' clocks are apart. Pure.

use crate::wire::pb::duramen::v1::Envelope;
use std::collections::{HashMap, VecDeque};

/// Sent messages that are remembered until they are received; beyond, all are forgotten.
const SENT_MAX: usize = 65_536;
/// What a replica receives from a peer …
pub const RECEIVED: &str = "Carried";
/// … and what carries it there.
pub const SENT: &str = "Carry";

/// Merges what several sources tell, each in its own order.
#[derive(Debug, Default)]
pub struct Merge {
    sources: Vec<VecDeque<Envelope>>,
    /// How often each was sent, in what waits.
    to_be_sent: HashMap<String, usize>,
    /// The same in what was given out and not received since.
    sent: HashMap<String, usize>,
}

impl Merge {
    /// Of so many sources.
    pub fn new(sources: usize) -> Self {
        Self { sources: vec![VecDeque::new(); sources], ..Self::default() }
    }

    /// Takes a message.
    pub fn push(&mut self, source: usize, told: Envelope) {
        for message in messages_sent(&told) {
            *self.to_be_sent.entry(message.to_owned()).or_default() += 1;
        }
        let queue = &mut self.sources[source];
        let key = |told: &Envelope| (told.time_ms, told.id);
        let behind = queue.iter().rev().take_while(|known| key(known) > key(&told)).count();
        queue.insert(queue.len() - behind, told);
    }

    /// How many of a source wait.
    pub fn waiting(&self, source: usize) -> usize {
        self.sources[source].len()
    }

    /// The next message and its source, unless it is from after this time (Unix, unit: milliseconds).
    pub fn next(&mut self, until_ms: i64) -> Option<(usize, Envelope)> {
        let mut heads: Vec<(i64, usize)> = Vec::with_capacity(self.sources.len());
        for (source, queue) in self.sources.iter().enumerate() {
            heads.extend(queue.front().map(|told| (told.time_ms, source)));
        }
        heads.sort_unstable();
        let first = *heads.first().filter(|(time_ms, _)| *time_ms <= until_ms)?;
        let ready = heads.iter().find(|(_, source)| !self.is_early(&self.sources[*source][0]));
        // All are, where the sending of one was lost: by time then.
        let (_, source) = *ready.unwrap_or(&first);
        let told = self.sources[source].pop_front()?;
        self.note(&told);
        Some((source, told))
    }

    /// Whether it is received before it was sent.
    fn is_early(&self, told: &Envelope) -> bool {
        told.message == RECEIVED
            && !self.sent.contains_key(&told.shown)
            && self.to_be_sent.contains_key(&told.shown)
    }

    fn note(&mut self, told: &Envelope) {
        if self.sent.len() >= SENT_MAX {
            self.sent.clear();
        }
        for message in messages_sent(told) {
            take_one(&mut self.to_be_sent, message);
            *self.sent.entry(message.to_owned()).or_default() += 1;
        }
        if told.message == RECEIVED {
            take_one(&mut self.sent, &told.shown);
        }
    }
}

fn take_one(counts: &mut HashMap<String, usize>, message: &str) {
    let Some(count) = counts.get_mut(message) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(message);
    }
}

/// The messages to replicas that it carries, as they are shown where they are received.
fn messages_sent(told: &Envelope) -> impl Iterator<Item = &str> {
    let is_sent = told.message == SENT;
    let inner = told.shown.strip_prefix("Carry(").and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.filter(|_| is_sent).unwrap_or_default();
    // Each ends with the only closing parenthesis that it has.
    inner.split_inclusive(')').map(|one| one.trim_start_matches(", ")).filter(|m| m.ends_with(')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTE: &str = "Vote(1/0 n2#4->n3#7 term 5, last 8/4)";
    const ANSWER: &str = "VoteAnswer(1/0 n3#7->n2#4 term 5, yes)";

    fn sent(id: u64, time_ms: i64, shown: &str) -> Envelope {
        let shown = format!("Carry({shown})");
        Envelope { id, time_ms, message: SENT.into(), shown, ..Envelope::default() }
    }

    fn received(id: u64, time_ms: i64, shown: &str) -> Envelope {
        let (message, shown) = (RECEIVED.into(), shown.into());
        Envelope { id, time_ms, message, shown, ..Envelope::default() }
    }

    fn merged(all: Vec<Vec<Envelope>>) -> Vec<(usize, u64)> {
        let mut merge = Merge::new(all.len());
        for (source, told) in all.into_iter().enumerate() {
            told.into_iter().for_each(|told| merge.push(source, told));
        }
        std::iter::from_fn(|| merge.next(i64::MAX))
            .map(|(source, told)| (source, told.id))
            .collect()
    }

    #[test]
    fn an_exchange_is_in_order_although_the_second_clock_is_a_minute_behind() {
        let one = vec![sent(1, 60_000, VOTE), received(2, 60_002, ANSWER)];
        let other = vec![received(8, 1, VOTE), sent(9, 2, ANSWER)];
        assert_eq!(merged(vec![one.clone(), other.clone()]), [(0, 1), (1, 8), (1, 9), (0, 2)]);
        assert_eq!(merged(vec![other, one]), [(1, 1), (0, 8), (0, 9), (1, 2)]);
    }

    #[test]
    fn the_same_message_said_twice_is_received_twice() {
        let one = vec![sent(1, 10, VOTE), sent(2, 30, VOTE)];
        let other = vec![received(8, 9, VOTE), received(9, 29, VOTE)];
        assert_eq!(merged(vec![one, other]), [(0, 1), (1, 8), (0, 2), (1, 9)]);
    }

    #[test]
    fn several_messages_in_one_frame_are_known_one_by_one() {
        let both = sent(1, 10, &format!("{VOTE}, {ANSWER}, and 3 more"));
        assert_eq!(messages_sent(&both).collect::<Vec<_>>(), [VOTE, ANSWER]);
    }

    #[test]
    fn what_was_sent_unseen_is_told_by_its_time() {
        let one = vec![sent(1, 20, "Heartbeat(1/0 n2#4->n3#7 term 5, commit 3)")];
        assert_eq!(merged(vec![one, vec![received(8, 10, VOTE)]]), [(1, 8), (0, 1)]);
    }

    #[test]
    fn what_is_too_new_waits() {
        let mut merge = Merge::new(1);
        merge.push(0, sent(1, 20, VOTE));
        assert_eq!(merge.next(19), None);
        assert!(merge.next(20).is_some());
    }
}
