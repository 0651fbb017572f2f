//! Reads that must see all that was acknowledged before them: each asks the leader's majority
//! first. (Ongaro's dissertation, section 6.4.)

use super::super::partition::ReadError;
use crate::model::{Offset, RaftIndex};
use crate::raft::ReadReady;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// Reads that wait at a time; further ones are refused.
const READS_MAX: usize = 1_024;
/// When to come back with one that was refused or got no answer.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Where the answer goes.
pub(super) type ReadAnswer = oneshot::Sender<Result<Offset, ReadError>>;

/// See the module. An answer is good for every read that was there when its question was asked.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// By number of the first question that was asked for it.
    waiting: BTreeMap<u64, Waiting>,
    /// Number of the question asked last.
    last: u64,
}

#[derive(Debug)]
struct Waiting {
    answer: ReadAnswer,
    /// Ticks left until it is given up.
    patience: usize,
    /// What must be applied before it may read.
    at: Option<RaftIndex>,
}

impl Reads {
    /// Takes a read; the number of the question to ask, or `None` where it was refused.
    pub fn take(&mut self, answer: ReadAnswer, patience_ticks: usize) -> Option<u64> {
        if self.waiting.len() >= READS_MAX {
            refuse(answer, "too many linearizable reads wait on this partition");
            return None;
        }
        self.last += 1;
        self.waiting.insert(self.last, Waiting { answer, patience: patience_ticks, at: None });
        Some(self.last)
    }

    /// A question is answered.
    pub fn confirmed(&mut self, ReadReady { read, index }: ReadReady) {
        for (_, waiting) in self.waiting.range_mut(..=read) {
            waiting.at.get_or_insert(index);
        }
    }

    /// Answers all whose entry is committed here: `committed` with the high watermark.
    pub fn answer(&mut self, committed: RaftIndex, high_watermark: Offset) {
        let is_ready =
            |_: &u64, waiting: &mut Waiting| waiting.at.is_some_and(|at| at <= committed);
        for (_, waiting) in self.waiting.extract_if(.., is_ready) {
            // A reader that has gone is no error.
            let _ = waiting.answer.send(Ok(high_watermark));
        }
    }

    /// A tick passes: those that waited long enough are told so. Returns the number of a question to
    /// ask for those that nobody has confirmed: an earlier one may have met no leader. A late answer to
    /// that one counts all the same: the way there and back may take longer than a tick.
    pub fn tick(&mut self) -> Option<u64> {
        for (_, waiting) in self.waiting.extract_if(.., |_, waiting| waiting.patience == 0) {
            refuse(waiting.answer, "no leader confirmed in time that it still leads");
        }
        let mut is_open = false;
        for waiting in self.waiting.values_mut() {
            waiting.patience -= 1;
            is_open |= waiting.at.is_none();
        }
        self.last += u64::from(is_open);
        is_open.then_some(self.last)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn refuse(answer: ReadAnswer, reason: &str) {
    let message = format!("{reason}; read again, or without --consistency linearizable");
    let _ = answer.send(Err(ReadError::Unavailable { message, retry_after: RETRY_AFTER }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        reads: &mut Reads,
        patience: usize,
    ) -> (u64, oneshot::Receiver<Result<Offset, ReadError>>) {
        let (answer, receiver) = oneshot::channel();
        (reads.take(answer, patience).expect("there is room"), receiver)
    }

    #[test]
    fn a_read_is_answered_once_its_entry_is_committed_here() {
        let mut reads = Reads::default();
        let (number, mut answer) = asked(&mut reads, 5);
        reads.answer(RaftIndex(100), Offset(7));
        assert!(answer.try_recv().is_err(), "no leader has confirmed it");
        reads.confirmed(ReadReady { read: number, index: RaftIndex(101) });
        reads.answer(RaftIndex(100), Offset(7));
        assert!(answer.try_recv().is_err(), "not applied here yet");
        reads.answer(RaftIndex(101), Offset(8));
        assert_eq!(answer.try_recv().expect("answered"), Ok(Offset(8)));
        assert!(reads.is_empty());
    }

    #[test]
    fn an_answer_that_comes_late_counts_for_those_who_were_there_when_it_was_asked_for() {
        let mut reads = Reads::default();
        let (first, mut early) = asked(&mut reads, 9);
        let again = reads.tick().expect("asked again");
        let (_, mut late) = asked(&mut reads, 9);
        assert!(again > first);
        // Meanwhile it is asked again each tick: nobody would wait for the way there and back.
        let newest = reads.tick().expect("asked again");
        reads.confirmed(ReadReady { read: again, index: RaftIndex(3) });
        reads.answer(RaftIndex(3), Offset(2));
        assert_eq!(early.try_recv().expect("answered"), Ok(Offset(2)));
        assert!(late.try_recv().is_err(), "what was committed before it came may be too little");
        reads.confirmed(ReadReady { read: newest, index: RaftIndex(4) });
        reads.answer(RaftIndex(4), Offset(3));
        assert_eq!(late.try_recv().expect("answered"), Ok(Offset(3)));
        assert!(reads.is_empty());
    }

    #[test]
    fn a_read_that_nobody_confirms_is_asked_again_and_given_up_in_the_end() {
        let mut reads = Reads::default();
        let (number, mut answer) = asked(&mut reads, 2);
        assert!(reads.tick().is_some_and(|again| again > number));
        assert!(reads.tick().is_some());
        assert_eq!(reads.tick(), None);
        assert!(matches!(answer.try_recv(), Ok(Err(ReadError::Unavailable { .. }))));
    }
}
