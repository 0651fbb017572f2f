//! What was sent and what became of it, in the order of the input. Pure.
//!
//! Invariant: everything before the oldest batch in the ledger is acknowledged; so the number of
//! acknowledged records is the line after which to resume.

use super::encode::Encoded;
use crate::model::{Durability, Offset};
use crate::wire::client::{Ack, Refusal};
use std::collections::VecDeque;
use std::time::Duration;

/// What is acknowledged so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records, from the first line on, without a gap.
    pub records: u64,
    /// What they take in the input (unit: bytes).
    pub input_bytes: u64,
    /// The first one's offset.
    pub first: Option<Offset>,
    /// The last one's offset.
    pub last: Option<Offset>,
    /// The weakest durability among them.
    pub durability: Option<Durability>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Refused(Refusal),
    /// Stored, while one before it was refused.
    Stored(Ack),
}

/// Batches in the order of the input.
#[derive(Debug, Default)]
pub struct Ledger {
    batches: VecDeque<(Encoded, State)>,
    totals: Totals,
    /// Answers of the present stream that have come.
    answered: usize,
}

/// How to go on after a stream on which something was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is left.
    Done,
    /// Send what is left again, in order, after this time.
    Again(Duration),
    /// The stream ended without an answer to some: whether they are stored is unknown.
    Unanswered,
    /// It cannot go on.
    Refused(Refusal),
    /// A later batch is stored and an earlier is not: order is broken.
    OutOfOrder(Refusal),
}

impl Ledger {
    /// What is acknowledged without a gap.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Records whose fate is not known to be good.
    pub fn unanswered_records(&self) -> u64 {
        let stored = |state: &State| matches!(state, State::Stored(_));
        let open = self.batches.iter().filter(|(_, state)| !stored(state));
        open.map(|(encoded, _)| encoded.records).sum()
    }

    /// Notes a batch that goes out behind all others.
    pub fn sent(&mut self, encoded: Encoded) {
        self.batches.push_back((encoded, State::Waiting));
    }

    /// Notes that the next unanswered batch is stored; returns its records and bytes.
    pub fn stored(&mut self, ack: Ack) -> (u64, u64) {
        let Some((encoded, state)) = self.batches.get_mut(self.answered) else { return (0, 0) };
        let amount = (encoded.records, encoded.input_bytes);
        *state = State::Stored(ack);
        self.answered += 1;
        self.settle();
        amount
    }

    /// Notes that the next unanswered batch was refused.
    pub fn refused(&mut self, refusal: Refusal) {
        if let Some((_, state)) = self.batches.get_mut(self.answered) {
            *state = State::Refused(refusal);
            self.answered += 1;
        }
    }

    /// Moves stored batches from the front into the totals.
    fn settle(&mut self) {
        while let Some((encoded, State::Stored(ack))) = self.batches.front() {
            let totals = &mut self.totals;
            totals.records += encoded.records;
            totals.input_bytes += encoded.input_bytes;
            totals.first = totals.first.or(Some(ack.base_offset));
            totals.last = Some(Offset(ack.base_offset.0 + encoded.records.saturating_sub(1)));
            totals.durability = Some(
                totals.durability.map_or(ack.durability, |weakest| weakest.min(ack.durability)),
            );
            self.batches.pop_front();
            self.answered -= 1;
        }
    }

    /// After the end of a stream: how to go on with what is left.
    pub fn next(&self) -> Next {
        let Some((_, first)) = self.batches.front() else { return Next::Done };
        let State::Refused(refusal) = first else { return Next::Unanswered };
        if self.batches.iter().any(|(_, state)| matches!(state, State::Waiting)) {
            return Next::Unanswered;
        }
        if self.batches.iter().any(|(_, state)| matches!(state, State::Stored(_))) {
            return Next::OutOfOrder(refusal.clone());
        }
        match refusal.retry_after {
            Some(after) if refusal.definite => Next::Again(after),
            _ => Next::Refused(refusal.clone()),
        }
    }

    /// What is left, to be sent again in this order; all of it waits from now on.
    pub fn again(&mut self) -> Vec<Encoded> {
        self.answered = 0;
        for (_, state) in &mut self.batches {
            *state = State::Waiting;
        }
        self.batches.iter().map(|(encoded, _)| encoded.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use bytes::Bytes;
    use tonic::Code;

    fn batch(records: u64) -> Encoded {
        Encoded { batch: Bytes::from_static(b"batch"), records, input_bytes: records * 10 }
    }

    fn ack(base: u64) -> Ack {
        Ack {
            correlation_id: 0,
            base_offset: Offset(base),
            record_count: 0,
            timestamp: Timestamp(0),
            durability: Durability::Fsync,
        }
    }

    fn overloaded(retry_after: Option<Duration>, definite: bool) -> Refusal {
        Refusal { code: Code::ResourceExhausted, message: "full".into(), retry_after, definite }
    }

    fn ledger(records: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        for records in records {
            ledger.sent(batch(*records));
        }
        ledger
    }

    #[test]
    fn acknowledged_batches_add_up_to_the_line_to_resume_behind() {
        let mut ledger = ledger(&[5, 3]);
        ledger.stored(ack(100));
        assert_eq!((ledger.totals().records, ledger.unanswered_records()), (5, 3));
        ledger.stored(ack(105));
        let totals = ledger.totals();
        assert_eq!((totals.records, totals.input_bytes), (8, 80));
        assert_eq!((totals.first, totals.last), (Some(Offset(100)), Some(Offset(107))));
        assert_eq!(ledger.next(), Next::Done);
    }

    #[test]
    fn the_weakest_durability_is_told() {
        let mut ledger = ledger(&[1, 1, 1]);
        for durability in [Durability::Fsync, Durability::Os, Durability::Fsync] {
            ledger.stored(Ack { durability, ..ack(0) });
        }
        assert_eq!(ledger.totals().durability, Some(Durability::Os));
    }

    #[test]
    fn what_was_refused_for_now_is_sent_again_with_all_behind_it() {
        let mut ledger = ledger(&[1, 2, 3]);
        ledger.stored(ack(0));
        let after = Duration::from_millis(7);
        ledger.refused(overloaded(Some(after), true));
        ledger.refused(overloaded(Some(after), true));
        assert_eq!(ledger.next(), Next::Again(after));
        let again: Vec<u64> = ledger.again().iter().map(|encoded| encoded.records).collect();
        assert_eq!(again, [2, 3]);
        ledger.stored(ack(1));
        ledger.stored(ack(3));
        assert_eq!((ledger.totals().records, ledger.next()), (6, Next::Done));
    }

    #[test]
    fn a_refusal_for_good_or_of_unknown_outcome_is_not_sent_again() {
        for refusal in [overloaded(None, true), overloaded(Some(Duration::from_millis(1)), false)] {
            let mut ledger = ledger(&[1]);
            ledger.refused(refusal.clone());
            assert_eq!(ledger.next(), Next::Refused(refusal));
        }
    }

    #[test]
    fn what_was_never_answered_is_never_sent_twice() {
        let mut ledger = ledger(&[1, 1]);
        assert_eq!(ledger.next(), Next::Unanswered);
        ledger.refused(overloaded(Some(Duration::from_millis(1)), true));
        assert_eq!(ledger.next(), Next::Unanswered, "the second may be stored");
    }

    #[test]
    fn a_gap_is_never_filled_behind_what_follows_it() {
        let mut ledger = ledger(&[1, 1]);
        let refusal = overloaded(Some(Duration::from_millis(1)), true);
        ledger.refused(refusal.clone());
        ledger.stored(ack(0));
        assert_eq!(ledger.next(), Next::OutOfOrder(refusal));
        assert_eq!(ledger.totals().records, 0, "nothing is acknowledged without a gap");
    }
}
