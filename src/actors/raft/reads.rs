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

/// See the module. Reads that arrive between two questions share the next one.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// By number of the question that covers them.
    waiting: BTreeMap<u64, Vec<Waiting>>,
    waiting_count: usize,
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
        if self.waiting_count >= READS_MAX {
            refuse(answer, "too many linearizable reads wait on this partition");
            return None;
        }
        self.last += 1;
        self.waiting_count += 1;
        let waiting = Waiting { answer, patience: patience_ticks, at: None };
        self.waiting.insert(self.last, vec![waiting]);
        Some(self.last)
    }

    /// A question is answered.
    pub fn confirmed(&mut self, ReadReady { read, index }: ReadReady) {
        for waiting in self.waiting.get_mut(&read).into_iter().flatten() {
            waiting.at = Some(index);
        }
    }

    /// Answers all whose entry is committed here: `committed` with the high watermark.
    pub fn answer(&mut self, committed: RaftIndex, high_watermark: Offset) {
        let mut answered = 0;
        self.waiting.retain(|_, all| {
            let ready = all.iter().all(|w| w.at.is_some_and(|at| at <= committed));
            if ready {
                answered += all.len();
                for waiting in all.drain(..) {
                    // A reader that has gone is no error.
                    let _ = waiting.answer.send(Ok(high_watermark));
                }
            }
            !ready
        });
        self.waiting_count -= answered;
    }

    /// A tick passes: those that waited long enough are told so. Returns the number of a question to
    /// ask for those that nobody has confirmed: an earlier one may have met no leader. It has a
    /// number of its own, so that a late answer to an earlier one is no answer to it.
    pub fn tick(&mut self) -> Option<u64> {
        let mut open = Vec::new();
        for (_, all) in std::mem::take(&mut self.waiting) {
            for mut waiting in all {
                if waiting.patience == 0 {
                    self.waiting_count -= 1;
                    refuse(waiting.answer, "no leader confirmed in time that it still leads");
                    continue;
                }
                waiting.patience -= 1;
                open.push(waiting);
            }
        }
        // Those that are confirmed wait for their entry only.
        let (confirmed, asked): (Vec<_>, Vec<_>) = open.into_iter().partition(|w| w.at.is_some());
        if !confirmed.is_empty() {
            self.last += 1;
            self.waiting.insert(self.last, confirmed);
        }
        if asked.is_empty() {
            return None;
        }
        self.last += 1;
        self.waiting.insert(self.last, asked);
        Some(self.last)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting_count == 0
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
    fn a_read_that_nobody_confirms_is_asked_again_and_given_up_in_the_end() {
        let mut reads = Reads::default();
        let (number, mut answer) = asked(&mut reads, 2);
        assert!(reads.tick().is_some_and(|again| again > number));
        assert!(reads.tick().is_some());
        assert_eq!(reads.tick(), None);
        assert!(matches!(answer.try_recv(), Ok(Err(ReadError::Unavailable { .. }))));
    }
}
