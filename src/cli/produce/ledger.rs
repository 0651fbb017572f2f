//! What was sent and what became of it, in the order of the input. Pure.
//!
//! Invariant: the totals are of what is acknowledged without a gap, from the first line on; so their
//! number of records is the line after which to resume.

use super::encode::Encoded;
use crate::model::{Durability, Offset};
use crate::wire::client::{ClientError, Delivered};

/// What is acknowledged so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records, from the first line on, without a gap.
    pub records: u64,
    /// What they take in the input (unit: bytes).
    pub input_bytes: u64,
    /// The first one's offset.
    pub first: Option<Offset>,
    /// The last one's offset, in the partition that it is in.
    pub last: Option<Offset>,
    /// The partition that all of them are in.
    pub partition: Option<u32>,
    /// They are in several partitions: first and last say nothing of those between.
    pub is_spread: bool,
    /// The weakest durability among them.
    pub durability: Option<Durability>,
}

/// What a batch was, for when its fate is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    records: u64,
    input_bytes: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    totals: Totals,
    /// Records whose fate is not known, or known to be unknown.
    open_records: u64,
    /// Records stored behind one that is not: they are in no total.
    overtaking_records: u64,
    failure: Option<ClientError>,
}

impl Ledger {
    /// What is acknowledged without a gap.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Records whose fate is not known to be good or bad, or that are stored behind a gap.
    pub fn unanswered_records(&self) -> u64 {
        self.open_records + self.overtaking_records
    }

    /// Whether a batch failed: nothing is to be sent behind it.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Why the first of those that failed did, and whether one behind it is stored.
    pub fn failure(&mut self) -> Option<(ClientError, bool)> {
        self.failure.take().map(|error| (error, self.overtaking_records > 0))
    }

    /// Notes a batch that goes out behind all others.
    pub fn sent(&mut self, encoded: &Encoded) -> Sent {
        self.open_records += encoded.records;
        Sent { records: encoded.records, input_bytes: encoded.input_bytes }
    }

    /// Notes what became of a run's batches; all before it are known. Returns its records and bytes
    /// where all of it is acknowledged.
    pub fn settle(
        &mut self,
        sent: Sent,
        fates: Vec<Result<Delivered, ClientError>>,
    ) -> Option<(u64, u64)> {
        let is_stored = fates.iter().any(Result::is_ok);
        let delivered: Result<Vec<Delivered>, ClientError> = fates.into_iter().collect();
        let delivered = match delivered {
            Ok(delivered) => delivered,
            Err(error) => {
                // What is stored of it lies behind a gap, as everything behind it.
                if error.is_definite() && !is_stored {
                    self.open_records -= sent.records;
                }
                self.failure.get_or_insert(error);
                return None;
            }
        };
        self.open_records -= sent.records;
        if self.failure.is_some() {
            self.overtaking_records += sent.records;
            return None;
        }
        let totals = &mut self.totals;
        totals.records += sent.records;
        totals.input_bytes += sent.input_bytes;
        for Delivered { ack, partition } in delivered {
            totals.is_spread |= totals.partition.is_some_and(|known| known != partition);
            totals.partition = Some(partition);
            totals.first = totals.first.or(Some(ack.base_offset));
            totals.last = Some(Offset(ack.base_offset.0 + sent.records.saturating_sub(1)));
            let weakest = totals.durability.map_or(ack.durability, |w| w.min(ack.durability));
            totals.durability = Some(weakest);
        }
        Some((sent.records, sent.input_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::wire::client::Ack;
    use bytes::Bytes;
    use std::time::Duration;

    fn batch(records: u64) -> Encoded {
        let batches = vec![(None, Bytes::from_static(b"batch"))];
        Encoded { batches, records, input_bytes: records * 10 }
    }

    fn stored(base: u64, durability: Durability) -> Result<Delivered, ClientError> {
        stored_in(0, base, durability)
    }

    fn stored_in(
        partition: u32,
        base: u64,
        durability: Durability,
    ) -> Result<Delivered, ClientError> {
        let ack = Ack {
            correlation_id: 0,
            base_offset: Offset(base),
            record_count: 0,
            timestamp: Timestamp(0),
            durability,
        };
        Ok(Delivered { partition, ack })
    }

    fn failed(definite: bool) -> Result<Delivered, ClientError> {
        Err(ClientError::Deadline { after: Duration::ZERO, definite, source: None })
    }

    #[test]
    fn acknowledged_batches_add_up_to_the_line_to_resume_behind() {
        let mut ledger = Ledger::default();
        let (first, second) = (ledger.sent(&batch(5)), ledger.sent(&batch(3)));
        assert_eq!(ledger.settle(first, vec![stored(100, Durability::Fsync)]), Some((5, 50)));
        assert_eq!((ledger.totals().records, ledger.unanswered_records()), (5, 3));
        ledger.settle(second, vec![stored(105, Durability::Os)]);
        let totals = ledger.totals();
        assert_eq!((totals.records, totals.input_bytes), (8, 80));
        assert_eq!((totals.first, totals.last), (Some(Offset(100)), Some(Offset(107))));
        assert_eq!(totals.durability, Some(Durability::Os), "the weakest");
        assert!(ledger.failure().is_none() && ledger.unanswered_records() == 0);
    }

    #[test]
    fn offsets_of_several_partitions_are_not_told_as_those_of_one() {
        let mut ledger = Ledger::default();
        let sent: Vec<Sent> = [1, 1, 1].map(|records| ledger.sent(&batch(records))).into();
        ledger.settle(sent[0], vec![stored_in(1, 0, Durability::Fsync)]);
        ledger.settle(sent[1], vec![stored_in(1, 1, Durability::Fsync)]);
        assert!(!ledger.totals().is_spread);
        ledger.settle(sent[2], vec![stored_in(2, 0, Durability::Fsync)]);
        assert!(ledger.totals().is_spread);
    }

    #[test]
    fn behind_a_batch_that_failed_nothing_counts_and_what_may_be_stored_is_told() {
        let mut ledger = Ledger::default();
        let sent: Vec<Sent> = [1, 2, 4].map(|records| ledger.sent(&batch(records))).into();
        ledger.settle(sent[0], vec![failed(true)]);
        ledger.settle(sent[1], vec![failed(false)]);
        assert!(ledger.has_failed());
        assert_eq!(ledger.settle(sent[2], vec![stored(0, Durability::Fsync)]), None);
        assert_eq!((ledger.totals().records, ledger.unanswered_records()), (0, 6));
        let (error, is_overtaken) = ledger.failure().unwrap();
        assert!(error.is_definite() && is_overtaken, "the first one is why");
    }

    #[test]
    fn a_run_counts_only_when_all_of_its_batches_are_stored() {
        let mut ledger = Ledger::default();
        let (first, second) = (ledger.sent(&batch(5)), ledger.sent(&batch(3)));
        let stored = |partition| stored_in(partition, 0, Durability::Fsync);
        assert_eq!(ledger.settle(first, vec![stored(0), stored(1)]), Some((5, 50)));
        assert!(ledger.totals().is_spread);
        assert_eq!(ledger.settle(second, vec![stored(0), failed(true)]), None);
        assert_eq!((ledger.totals().records, ledger.unanswered_records()), (5, 3));
    }
}
