//! The ledger of a load, and the judgement on it. Pure: what clients were told, what the log
//! holds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The name of a record: its producer, and its number there.
pub(super) type Name = (u32, u64);

/// Violations that a failure lists.
const SHOWN_MAX: usize = 20;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A record that was acknowledged is not where its acknowledgement says.
    Lost {
        /// Its producer.
        producer: u32,
        /// Its number there.
        number: u64,
        /// Where it should be.
        offset: u64,
        /// Where it is, if anywhere.
        found: Option<u64>,
    },
    /// A record is there more than once.
    Twice {
        /// Its producer.
        producer: u32,
        /// Its number there.
        number: u64,
        /// Two of its places.
        offsets: (u64, u64),
    },
    /// A record lies behind a later one of its producer.
    OutOfOrder {
        /// Its producer.
        producer: u32,
        /// Its number there.
        number: u64,
        /// Where it is.
        offset: u64,
    },
    /// A record is there of which the node said that it stored nothing.
    Refused {
        /// Its producer.
        producer: u32,
        /// Its number there.
        number: u64,
        /// Where it is.
        offset: u64,
    },
    /// There is nothing at an offset of the log.
    Gap {
        /// Which.
        offset: u64,
    },
    /// A consumer has read something else than is there.
    Misread {
        /// Which consumer.
        consumer: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { producer, number, offset, found } => {
                write!(f, "record {producer}:{number} was acknowledged at offset {offset}; ")?;
                match found {
                    Some(found) => write!(f, "it is at {found}"),
                    None => f.write_str("it is not there"),
                }
            }
            Self::Twice { producer, number, offsets: (one, other) } => {
                write!(f, "record {producer}:{number} is at offsets {one} and {other}")
            }
            Self::OutOfOrder { producer, number, offset } => {
                write!(f, "record {producer}:{number}, at {offset}, is behind a later one")
            }
            Self::Refused { producer, number, offset } => write!(
                f,
                "record {producer}:{number} is at {offset}, though \"nothing was done\" was said"
            ),
            Self::Gap { offset } => write!(f, "there is nothing at offset {offset}"),
            Self::Misread { consumer } => write!(f, "consumer {consumer} read something else"),
        }
    }
}

/// What clients were told, and what was found when all was read back.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Acknowledged records with their offsets.
    pub(super) acknowledged: Vec<(Name, u64)>,
    /// Records of which the node said that nothing was done.
    pub(super) refused: Vec<Name>,
    /// How many have an unknown outcome.
    pub(super) unknown: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) consumer_errors: BTreeMap<String, u64>,
    /// What the log holds of this load, in order.
    pub(super) found: Vec<(u64, Name)>,
    /// How many records it holds that others appended meanwhile.
    pub(super) others: u64,
    /// The first offset at which there is nothing.
    pub(super) gap: Option<u64>,
    /// The consumers whose digest differs from that of the log.
    pub(super) misread: Vec<usize>,
}

impl Ledger {
    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// How many were refused, with nothing done.
    pub fn refused(&self) -> u64 {
        self.refused.len() as u64
    }

    /// How many may or may not be stored, as far as their producer was told.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// How many of its records the log holds.
    pub fn stored(&self) -> u64 {
        self.found.len() as u64
    }

    /// How many records the log holds that others appended since the load began.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// What producers were told in place of acknowledgements, and how often: the kind of error,
    /// and the actor or partition that it names.
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// The same of consumers.
    pub fn consumer_errors(&self) -> &BTreeMap<String, u64> {
        &self.consumer_errors
    }

    /// What must not be and is.
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut places: HashMap<Name, u64> = HashMap::with_capacity(self.found.len());
        let mut newest: HashMap<u32, u64> = HashMap::new();
        violations.extend(self.gap.map(|offset| Violation::Gap { offset }));
        for &(offset, name @ (producer, number)) in &self.found {
            if let Some(other) = places.insert(name, offset) {
                violations.push(Violation::Twice { producer, number, offsets: (other, offset) });
            }
            let newest = newest.entry(producer).or_default();
            if number < *newest {
                violations.push(Violation::OutOfOrder { producer, number, offset });
            }
            *newest = number.max(*newest);
        }
        for &(name @ (producer, number), offset) in &self.acknowledged {
            let found = places.get(&name).copied();
            if found != Some(offset) {
                violations.push(Violation::Lost { producer, number, offset, found });
            }
        }
        for name @ (producer, number) in &self.refused {
            if let Some(&offset) = places.get(name) {
                let (producer, number) = (*producer, *number);
                violations.push(Violation::Refused { producer, number, offset });
            }
        }
        let misread = self.misread.iter();
        violations.extend(misread.map(|&consumer| Violation::Misread { consumer }));
        violations
    }

    /// Checks that all that was acknowledged is there, once, in the order of its producer, that
    /// nothing is there that was refused, and that every consumer has read just that.
    ///
    /// # Panics
    /// When that is not so; the text tells the first violations.
    pub fn assert_kept(&self) {
        let violations = self.violations();
        let told: String =
            violations.iter().take(SHOWN_MAX).map(|one| format!("  {one}\n")).collect();
        assert!(violations.is_empty(), "{} violations, among them:\n{told}", violations.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Ledger {
        Ledger {
            acknowledged: vec![((0, 0), 0), ((1, 0), 1), ((0, 1), 2)],
            refused: vec![(1, 1)],
            found: vec![(0, (0, 0)), (1, (1, 0)), (2, (0, 1)), (3, (1, 2))],
            ..Ledger::default()
        }
    }

    #[test]
    fn a_log_that_holds_what_was_acknowledged_and_what_was_unknown_is_sound() {
        sound().assert_kept();
    }

    #[test]
    fn whatever_must_not_be_is_found() {
        let only = |change: fn(&mut Ledger)| {
            let mut ledger = sound();
            change(&mut ledger);
            let violations = ledger.violations();
            assert_eq!(violations.len(), 1, "{violations:?}");
            violations[0].to_string()
        };
        let lost = only(|ledger| ledger.acknowledged.push(((0, 2), 4)));
        assert!(lost.contains("0:2") && lost.contains("not there"), "{lost}");
        let moved = only(|ledger| ledger.acknowledged[1].1 = 7);
        assert!(moved.contains("at offset 7; it is at 1"), "{moved}");
        let twice = only(|ledger| ledger.found.push((4, (1, 2))));
        assert!(twice.contains("3 and 4"), "{twice}");
        let behind = only(|ledger| {
            ledger.refused.clear();
            ledger.found.push((4, (1, 1)));
        });
        assert!(behind.contains("behind a later"), "{behind}");
        let refused = only(|ledger| ledger.found[3] = (3, (1, 1)));
        assert!(refused.contains("nothing was done"), "{refused}");
        let gap = only(|ledger| ledger.gap = Some(9));
        assert!(gap.contains("nothing at offset 9"), "{gap}");
        let misread = only(|ledger| ledger.misread.push(5));
        assert!(misread.contains("consumer 5"), "{misread}");
    }
}
