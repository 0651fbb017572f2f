//! The table itself: verdicts on batches, and what is remembered of those that were stored.

use crate::log::batch::{BatchFacts, sequence_after};
use crate::model::{Offset, Timestamp};
use std::collections::{BTreeMap, VecDeque};

/// How many producers are remembered unless told otherwise.
pub const PRODUCERS_MAX: u32 = 1000;

/// How many batches of each: a client has at most so many under way at once.
pub const BATCHES_KEPT: usize = 5;

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the producer's next one.
    New,
    /// It is stored already: answer as if it were stored now.
    Duplicate {
        /// The offset of its first record.
        base_offset: Offset,
    },
    /// It is not the producer's next one: something before it is missing, or it is an old one that
    /// is no longer remembered. Refused.
    OutOfOrder {
        /// The sequence that its first record must have.
        expected: i32,
    },
    /// A later life of the producer has been heard of. Refused for good.
    Fenced {
        /// The epoch of that one.
        epoch: i16,
    },
    /// It continues what a producer sent of whom nothing is known (any more): whether it is stored
    /// cannot be told. Refused.
    Unknown {
        /// Who sent it.
        producer_id: i64,
    },
}

/// A batch that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub max_timestamp: Timestamp,
}

/// What is remembered of a producer; at least one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Producer {
    pub epoch: i16,
    /// The last ones, oldest first.
    pub kept: VecDeque<Kept>,
}

impl Producer {
    fn newest(&self) -> &Kept {
        self.kept.back().expect("a producer is remembered for a batch")
    }
}

/// What a partition remembers of its producers. Bounded: the one whose last batch lies furthest back
/// in the log goes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerTable {
    pub(super) producers_max: u32,
    /// Below this all batches are applied.
    pub(super) applied: Offset,
    pub(super) producers: BTreeMap<i64, Producer>,
    /// Who is remembered, by the base offset of the last batch.
    pub(super) by_position: BTreeMap<Offset, i64>,
}

impl Default for ProducerTable {
    fn default() -> Self {
        Self::new(PRODUCERS_MAX)
    }
}

impl ProducerTable {
    /// An empty table for so many producers. All replicas of a partition must have the same limit.
    ///
    /// # Panics
    /// When it is 0.
    pub fn new(producers_max: u32) -> Self {
        assert!(producers_max > 0, "a table for nobody");
        Self {
            producers_max,
            applied: Offset(0),
            producers: BTreeMap::new(),
            by_position: BTreeMap::new(),
        }
    }

    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Says what is to become of a batch. Changes nothing.
    pub fn check(&self, batch: &BatchFacts) -> Verdict {
        let Some(producer) = self.producers.get(&batch.producer_id) else {
            return match batch.first_sequence {
                0 => Verdict::New,
                _ => Verdict::Unknown { producer_id: batch.producer_id },
            };
        };
        if batch.epoch < producer.epoch {
            return Verdict::Fenced { epoch: producer.epoch };
        }
        let expected = match batch.epoch == producer.epoch {
            true => sequence_after(producer.newest().last_sequence, 1),
            false => 0,
        };
        if batch.first_sequence == expected {
            return Verdict::New;
        }
        let is_same = |kept: &&Kept| {
            kept.first_sequence == batch.first_sequence
                && kept.last_sequence == batch.last_sequence()
        };
        let stored = producer.kept.iter().rev().find(is_same);
        match stored.filter(|_| batch.epoch == producer.epoch) {
            Some(kept) => Verdict::Duplicate { base_offset: kept.base_offset },
            None => Verdict::OutOfOrder { expected },
        }
    }

    /// Remembers a batch that is in the log at `base_offset`. Batches come in the order of the log;
    /// what was applied before changes nothing, so that a log may be gone through again from
    /// anywhere.
    pub fn apply(&mut self, batch: &BatchFacts, base_offset: Offset) {
        if base_offset < self.applied {
            return;
        }
        self.applied = base_offset.plus(u64::from(batch.record_count));
        let kept = Kept {
            first_sequence: batch.first_sequence,
            last_sequence: batch.last_sequence(),
            base_offset,
            max_timestamp: batch.max_timestamp,
        };
        let fresh = || Producer { epoch: batch.epoch, kept: VecDeque::new() };
        let producer = self.producers.entry(batch.producer_id).or_insert_with(fresh);
        if let Some(newest) = producer.kept.back() {
            self.by_position.remove(&newest.base_offset);
        }
        if producer.epoch != batch.epoch {
            *producer = fresh();
        }
        if producer.kept.len() == BATCHES_KEPT {
            producer.kept.pop_front();
        }
        producer.kept.push_back(kept);
        self.by_position.insert(base_offset, batch.producer_id);
        if self.producers.len() > self.producers_max as usize
            && let Some((_, longest_unused)) = self.by_position.pop_first()
        {
            self.producers.remove(&longest_unused);
        }
    }
}
