//! What must hold after a run: pure, and shown to see each sin that it is there for.

use std::collections::{BTreeMap, HashMap};

/// A record that was acknowledged: who sent it, as its how manieth, and where it was said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    pub producer: u32,
    pub number: u64,
    pub partition: u32,
    pub offset: u64,
}

/// All that the clients know.
#[derive(Debug, Default)]
pub struct Ledger {
    pub run: u64,
    pub acked: Vec<Acked>,
    /// How many records each producer has sent, acknowledged or not.
    pub sent: BTreeMap<u32, u64>,
    /// Appends that failed for good, by text.
    pub errors: BTreeMap<String, u64>,
    /// The topic also holds records that the ledger knows nothing of.
    pub is_shared: bool,
    /// What happened, in real time.
    pub history: Vec<Event>,
}

/// What a client was told, or asked, and when: by its place in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Everything below `end` is acknowledged.
    Acked { partition: u32, end: u64 },
    /// A linearizable read begins.
    ReadBegan { read: u64, partition: u32 },
    /// It is over, and saw everything below `end`.
    ReadSaw { read: u64, end: u64, node: String },
}

/// Whether each read saw all that was known when it began: acknowledged, or seen by a read that was
/// over. Reads without an end were refused, and say nothing.
pub fn linearizable(history: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known: HashMap<u32, u64> = HashMap::new();
    let mut open: HashMap<u64, (u32, u64)> = HashMap::new();
    for event in history {
        match event {
            Event::Acked { partition, end } => {
                let known = known.entry(*partition).or_default();
                *known = (*known).max(*end);
            }
            Event::ReadBegan { read, partition } => {
                open.insert(*read, (*partition, known.get(partition).copied().unwrap_or(0)));
            }
            Event::ReadSaw { read, end, node } => {
                let Some((partition, due)) = open.remove(read) else { continue };
                if *end < due {
                    wrong.push(format!(
                        "stale: a linearizable read of partition {partition} at {node} saw up to \
                         {end}, {due} was known when it began"
                    ));
                }
                let known = known.entry(partition).or_default();
                *known = (*known).max(*end);
            }
        }
    }
    wrong
}

/// One partition as one replica holds it.
#[derive(Debug, Default, Clone)]
pub struct Copy {
    pub node: String,
    pub start: u64,
    /// From `start` on, without a gap: whoever reads checks that.
    pub values: Vec<Vec<u8>>,
    /// Of the stored batches, byte for byte.
    pub digest: u64,
}

pub fn value(run: u64, producer: u32, number: u64, padding: usize) -> Vec<u8> {
    let mut text = format!("{run:x}/{producer}/{number}/").into_bytes();
    text.resize(text.len() + padding, b'.');
    text
}

/// The run, producer and number of a record of a load; `None`: it is another's.
pub fn read(value: &[u8]) -> Option<(u64, u32, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('/');
    let run = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some((run, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What is wrong, each kind with its first examples; empty: nothing.
pub fn check(ledger: &Ledger, copies: &BTreeMap<u32, Vec<Copy>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (partition, copies) in copies {
        let Some(first) = copies.first() else {
            wrong.push(format!("partition {partition}: no replica could be read"));
            continue;
        };
        for other in &copies[1..] {
            let ends = |copy: &Copy| copy.start + copy.values.len() as u64;
            if ends(other) != ends(first) {
                let (a, b) = (ends(first), ends(other));
                let (node, with) = (&first.node, &other.node);
                wrong.push(format!("partition {partition}: {node} ends at {a}, {with} at {b}"));
            }
            let from = first.start.max(other.start);
            let tail = |copy: &Copy| copy.values[(from - copy.start) as usize..].to_vec();
            if tail(first) != tail(other) {
                let (node, with) = (&first.node, &other.node);
                wrong.push(format!("partition {partition}: {node} and {with} hold other records"));
            }
            if first.start == other.start && first.digest != other.digest {
                let (node, with) = (&first.node, &other.node);
                wrong.push(format!("partition {partition}: {node} and {with} hold other bytes"));
            }
        }
    }
    let mut places: HashMap<(u32, u64), Vec<(u32, u64)>> = HashMap::new();
    for (partition, copies) in copies {
        let Some(copy) = copies.first() else { continue };
        let mut last: HashMap<u32, u64> = HashMap::new();
        for (offset, value) in (copy.start..).zip(&copy.values) {
            let Some((run, producer, number)) = read(value) else {
                if ledger.is_shared {
                    continue;
                }
                wrong.push(format!("{partition}@{offset}: a record that nobody sent"));
                continue;
            };
            if run != ledger.run {
                continue; // of an earlier load on the same topic
            }
            if ledger.sent.get(&producer).is_none_or(|sent| number >= *sent) {
                wrong
                    .push(format!("{partition}@{offset}: record {producer}/{number} was not sent"));
            }
            if let Some(before) = last.insert(producer, number)
                && before > number
            {
                let order = format!("{producer}/{number} lies behind {producer}/{before}");
                wrong.push(format!("{partition}@{offset}: out of order: {order}"));
            }
            places.entry((producer, number)).or_default().push((*partition, offset));
        }
    }
    for ((producer, number), found) in &places {
        if found.len() > 1 {
            wrong.push(format!("record {producer}/{number} is stored {} times", found.len()));
        }
    }
    for acked in &ledger.acked {
        let Acked { producer, number, partition, offset } = *acked;
        let is_below = copies
            .get(&partition)
            .and_then(|copies| copies.first())
            .is_some_and(|copy| offset < copy.start);
        match places.get(&(producer, number)) {
            None if is_below => {} // retention took it
            None => {
                wrong.push(format!("lost: {producer}/{number}, said to be at {partition}@{offset}"))
            }
            Some(found) if !found.contains(&(partition, offset)) => wrong.push(format!(
                "moved: {producer}/{number}, said to be at {partition}@{offset}, is at {found:?}"
            )),
            Some(_) => {}
        }
    }
    wrong.extend(linearizable(&ledger.history));
    wrong
}

/// A value at this share of the sorted ones; 0 of none.
pub fn percentile(values: &mut [u64], share: f64) -> u64 {
    values.sort_unstable();
    let place = ((values.len() as f64 - 1.0) * share).round() as usize;
    values.get(place).copied().unwrap_or(0)
}

/// The check sees what it is there for: run before every rung, as it costs nothing.
pub fn prove() {
    let copy = |node: &str, numbers: &[u64]| Copy {
        node: node.into(),
        start: 0,
        values: numbers.iter().map(|number| value(7, 1, *number, 0)).collect(),
        digest: numbers.iter().sum(),
    };
    let acked = |number, offset| Acked { producer: 1, number, partition: 0, offset };
    let ledger = Ledger {
        run: 7,
        acked: vec![acked(0, 0), acked(1, 1), acked(2, 2)],
        sent: BTreeMap::from([(1, 3)]),
        ..Ledger::default()
    };
    let judged = |copies: Vec<Copy>| check(&ledger, &BTreeMap::from([(0, copies)])).join("; ");
    let sound = [copy("n1", &[0, 1, 2]), copy("n2", &[0, 1, 2])];
    assert_eq!(judged(sound.to_vec()), "");
    let sins: [(&str, Vec<Copy>); 6] = [
        ("lost", vec![copy("n1", &[0, 1])]),
        ("stored 2 times", vec![copy("n1", &[0, 1, 2, 2])]),
        ("out of order", vec![copy("n1", &[0, 2, 1])]),
        ("was not sent", vec![copy("n1", &[0, 1, 2, 3])]),
        ("hold other records", vec![copy("n1", &[0, 1, 2]), copy("n2", &[0, 2, 1])]),
        ("ends at", vec![copy("n1", &[0, 1, 2]), copy("n2", &[0, 1])]),
    ];
    for (sin, copies) in sins {
        let seen = judged(copies);
        assert!(seen.contains(sin), "the check does not see {sin:?}: {seen}");
    }
    let mut other_bytes = sound.to_vec();
    other_bytes[1].digest += 1;
    assert!(judged(other_bytes).contains("hold other bytes"));
    prove_linearizable();
}

/// What a committed read of a follower that lags would give is told from what may be.
fn prove_linearizable() {
    let acked = |end| Event::Acked { partition: 0, end };
    let began = |read| Event::ReadBegan { read, partition: 0 };
    let saw = |read, end| Event::ReadSaw { read, end, node: "n2".into() };
    let sound = [
        vec![acked(10), began(1), saw(1, 10)],
        vec![began(1), acked(10), saw(1, 5)],
        vec![acked(10), began(1), acked(20), began(2), saw(1, 20), saw(2, 20)],
        vec![acked(10), began(1)],
        vec![acked(10), Event::ReadBegan { read: 1, partition: 1 }, saw(1, 0)],
    ];
    for history in sound {
        assert_eq!(linearizable(&history), Vec::<String>::new(), "{history:?}");
    }
    let stale = [
        // A follower that was not told yet what is committed.
        vec![acked(10), began(1), saw(1, 9)],
        // Two reads, one after the other: the second knows less.
        vec![began(1), saw(1, 10), began(2), saw(2, 9)],
        vec![acked(10), acked(5), began(1), saw(1, 7)],
    ];
    for history in stale {
        assert_eq!(linearizable(&history).len(), 1, "the check does not see it: {history:?}");
    }
}
