//! What batches tell of their idempotent producers: the part of a header from which a retry is told
//! from something new.

use super::{BatchHeader, Batches, batches};
use crate::model::Timestamp;
use bytes::Bytes;

/// One batch of an idempotent producer, without its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchFacts {
    /// Who sent it; 0 or more.
    pub producer_id: i64,
    /// Which of the producer's lives; 0 or more.
    pub epoch: i16,
    /// The sequence of its first record; 0 or more.
    pub first_sequence: i32,
    /// How many records it holds; at least one.
    pub record_count: u32,
    /// How many records come before it among the batches that it was found in: what its offset is
    /// beyond that of the first of them (unit: records).
    pub relative_offset: u64,
    /// The latest timestamp in its header.
    pub max_timestamp: Timestamp,
}

impl BatchFacts {
    /// The sequence of its last record.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.first_sequence, self.record_count.saturating_sub(1))
    }

    fn of(header: &BatchHeader, relative_offset: u64) -> Option<Self> {
        header.has_producer().then_some(Self {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            record_count: header.record_count,
            relative_offset,
            max_timestamp: header.max_timestamp,
        })
    }
}

/// The sequence `count` records behind `sequence`: 0 follows the largest `i32`.
pub const fn sequence_after(sequence: i32, count: u32) -> i32 {
    ((sequence as u32 as u64 + count as u64) & i32::MAX as u64) as i32
}

/// Those batches among checked ones (a [`super::ValidBatches`], the payload of a stored data entry)
/// that tell their producer, in order. Looks at headers alone.
pub fn producers_of(checked: &Bytes) -> Producers {
    Producers { batches: batches(checked), passed: 0 }
}

/// See [`producers_of`].
#[derive(Debug, Clone)]
pub struct Producers {
    batches: Batches,
    /// Records in the batches so far.
    passed: u64,
}

impl Iterator for Producers {
    type Item = BatchFacts;

    fn next(&mut self) -> Option<BatchFacts> {
        loop {
            let (header, _) = self.batches.next()?.ok()?;
            let facts = BatchFacts::of(&header, self.passed);
            self.passed += u64::from(header.record_count);
            if facts.is_some() {
                return facts;
            }
        }
    }
}
