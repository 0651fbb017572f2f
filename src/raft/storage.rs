//! What the engine may ask of the log: terms and bounds. Entries come back as index and term
//! only, because the engine never needs a payload; whoever sends one to a peer reads the log.
//! Changes of the members are told apart, because the engine counts those that are not applied.

use super::effects::EntrySizes;
use super::hard_state::HardState;
use super::membership::encode_with_index;
use super::term_runs::TermRuns;
use crate::model::{RaftIndex, ReplicaId, Term};
use raft::prelude::{Entry, EntryType, HardState as EngineHardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, StorageError};
use std::cell::RefCell;
use std::rc::Rc;

/// Committed entries that one step tells of.
const COMMITTED_PER_STEP_MAX: u64 = 4096;

pub(super) struct State {
    pub terms: TermRuns,
    pub hard: HardState,
    pub sizes: Rc<dyn EntrySizes>,
}

/// Shared between the engine, which reads, and [`super::PartitionRaft`], which writes.
#[derive(Clone)]
pub(super) struct Storage(pub Rc<RefCell<State>>);

impl raft::Storage for Storage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let state = self.0.borrow();
        let hard = EngineHardState {
            term: state.hard.term.0,
            vote: state.hard.vote.map_or(0, ReplicaId::raw),
            commit: state.hard.commit.0,
            ..EngineHardState::default()
        };
        Ok(RaftState::new(hard, state.hard.membership.to_engine()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let state = self.0.borrow();
        if low < state.terms.first().0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let count_max = match max_size.into() {
            // Only what is to be sent is limited by what it holds.
            Some(bytes) if context.can_async() => {
                state.sizes.fit(RaftIndex(low), RaftIndex(high), bytes).max(1)
            }
            Some(_) => COMMITTED_PER_STEP_MAX,
            None => u64::MAX,
        };
        let high = high.min(low.saturating_add(count_max));
        let mut pending = state.hard.pending.iter().map(|change| change.index.0).peekable();
        (low..high)
            .map(|index| {
                let term = state.terms.term(RaftIndex(index));
                let Term(term) = term.ok_or(Error::Store(StorageError::Unavailable))?;
                let mut entry = Entry { index, term, ..Entry::default() };
                while pending.next_if(|change| *change < index).is_some() {}
                if pending.next_if_eq(&index).is_some() {
                    entry.set_entry_type(EntryType::EntryConfChangeV2);
                }
                Ok(entry)
            })
            .collect()
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let state = self.0.borrow();
        match state.terms.term(RaftIndex(index)) {
            // Nobody said which term the entry before the first one has.
            Some(Term(0)) if index > 0 => Err(Error::Store(StorageError::Compacted)),
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

    /// Where the log begins, with the members as they are now: whoever installs it is told which
    /// change led to them, and does not apply it, or one before it, again.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let state = self.0.borrow();
        let index = state.terms.first().0 - 1;
        let term = state.terms.term(RaftIndex(index)).unwrap_or_default();
        if index < request_index || term == Term(0) {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (index, term.0);
        meta.set_conf_state(state.hard.membership.to_engine());
        let membership = encode_with_index(&state.hard.membership, state.hard.membership_index);
        snapshot.data = membership.to_vec().into();
        Ok(snapshot)
    }
}
