//! What the engine may ask of the log: terms and bounds. Entries come back as index and term
//! only, because the engine never needs a payload; whoever sends one to a peer reads the log.

use super::term_runs::TermRuns;
use crate::model::{RaftIndex, Term};
use raft::prelude::{ConfState, Entry, HardState as EngineHardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, StorageError};
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Debug)]
pub(super) struct State {
    pub terms: TermRuns,
    pub hard_state: EngineHardState,
    pub voters: ConfState,
}

/// Shared between the engine, which reads, and [`super::PartitionRaft`], which writes.
#[derive(Debug, Clone)]
pub(super) struct Storage(pub Rc<RefCell<State>>);

impl raft::Storage for Storage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let state = self.0.borrow();
        Ok(RaftState::new(state.hard_state.clone(), state.voters.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let state = self.0.borrow();
        if low < state.terms.first().0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        // An entry without payload counts as this much, so that a long range comes in pieces.
        const ENTRY_BYTES: u64 = 64;
        let count_max = max_size.into().map_or(u64::MAX, |bytes| (bytes / ENTRY_BYTES).max(1));
        let high = high.min(low.saturating_add(count_max));
        (low..high)
            .map(|index| {
                let term = state.terms.term(RaftIndex(index));
                let Term(term) = term.ok_or(Error::Store(StorageError::Unavailable))?;
                Ok(Entry { index, term, ..Entry::default() })
            })
            .collect()
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let state = self.0.borrow();
        match state.terms.term(RaftIndex(index)) {
            Some(term) => Ok(term.0),
            None if index < state.terms.first().0 => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.borrow().terms.first().0)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.0.borrow().terms.last().0)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
