//! The state machine around the engine: proposals and persistence reports in, effects out.
//!
//! Order that must hold, and that the tests below hold it to (see `HOTPATH.md` of the design):
//!
//! - A vote and the entries of a step are durable before anything that depends on them leaves.
//! - Persist, then commit, then apply, then answer. Commit moves only inside `persisted`.
//! - `advance` and `advance_append` of the engine are never called: they count entries as
//!   persisted that are not.
//! - The engine is asked again after each `persisted`: only then does it tell what is committed.
//! - A hard state that differs in its commit index alone is never written.

use super::hard_state::HardState;
use super::storage::{State, Storage};
use super::term_runs::TermRuns;
use crate::model::{Disposition, RaftIndex, Term};
use raft::prelude::{ConfState, HardState as EngineHardState};
use raft::{Config, RawNode, StateRole};
use slog::Logger;
use std::cell::RefCell;
use std::rc::Rc;

/// What a partition's raft finds on disk when it starts.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The vote file; `None` in a new partition.
    pub hard_state: Option<HardState>,
    /// The terms of the entries in the log.
    pub terms: TermRuns,
}

/// What the engine carries in place of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// Records in the entry.
    pub records: u64,
    /// Bytes of the entry's payload.
    pub bytes: u64,
}

impl Handle {
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&self.records.to_be_bytes());
        bytes.extend_from_slice(&self.bytes.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self { records: word(0)?, bytes: word(8)? })
    }
}

/// An entry that the log must write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Its term.
    pub term: Term,
    /// Its place in the Raft log.
    pub index: RaftIndex,
    /// What was proposed; `None` for the engine's own entries (the no-op of an election).
    pub handle: Option<Handle>,
}

/// What one step of the engine asks for, to be carried out in the order of the fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Effects {
    /// Reported back by [`PartitionRaft::persisted`] when hard state and entries are durable.
    pub number: u64,
    /// To be made durable before the entries, and before anything that depends on the vote.
    pub hard_state: Option<HardState>,
    /// To be made durable, in this order.
    pub entries: Vec<NewEntry>,
    /// All entries up to here are committed: their proposers may be answered.
    pub committed: Option<RaftIndex>,
}

/// The part that this replica plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
}

/// Why a request to the state machine fails.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// Proposals are for the leader.
    #[error("this replica is not the leader of its partition")]
    NotLeader,
    /// The engine refused; its text says why.
    #[error("raft engine: {0}")]
    Engine(#[from] raft::Error),
}

impl RaftError {
    /// Who must act.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotLeader => Disposition::TellCaller,
            Self::Engine(_) => Disposition::RebuildActor,
        }
    }
}

/// One replica of one partition's Raft group. Not `Send`: it lives inside its actor.
pub struct PartitionRaft {
    engine: RawNode<Storage>,
    storage: Storage,
}

impl std::fmt::Debug for PartitionRaft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raft = &self.engine.raft;
        write!(f, "PartitionRaft(id {}, term {}, {:?})", raft.id, raft.term, raft.state)
    }
}

impl PartitionRaft {
    /// Brings a replica back from what its disk holds. `id` is its raft id, at least 1.
    ///
    /// A group whose only voter is this replica takes all that its log holds as committed: recovery
    /// has made it durable, and one replica is the majority.
    ///
    /// # Errors
    /// [`RaftError::Engine`] when the state found cannot be a Raft state.
    pub fn start(id: u64, recovered: Recovered, logger: &Logger) -> Result<Self, RaftError> {
        let hard_state = recovered.hard_state.unwrap_or_else(|| HardState::bootstrap(vec![id]));
        let last = recovered.terms.last();
        let first = recovered.terms.first();
        let alone = hard_state.voters == [id];
        let commit = if alone { last.0 } else { hard_state.commit.clamp(first.0 - 1, last.0) };
        let last_term = recovered.terms.term(last).unwrap_or_default();
        let state = State {
            terms: recovered.terms,
            hard_state: EngineHardState {
                // A vote file is written before the first entry of its term; should it be lost, the
                // log still bounds the term from below.
                term: hard_state.term.max(last_term).0,
                vote: if hard_state.term < last_term { 0 } else { hard_state.vote },
                commit,
                ..EngineHardState::default()
            },
            voters: ConfState { voters: hard_state.voters, ..ConfState::default() },
        };
        let storage = Storage(Rc::new(RefCell::new(state)));
        let config = Config {
            id,
            election_tick: 10,
            heartbeat_tick: 3,
            applied: commit,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            max_committed_size_per_ready: 1 << 20,
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        };
        let engine = RawNode::new(&config, storage.clone(), logger)?;
        Ok(Self { engine, storage })
    }

    /// Stands for election. A lone voter wins at once.
    ///
    /// # Errors
    /// [`RaftError::Engine`] when the engine refuses.
    pub fn campaign(&mut self) -> Result<(), RaftError> {
        Ok(self.engine.campaign()?)
    }

    /// Proposes an entry. It shows up among the entries of a later step, in order of proposal.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] here; [`RaftError::Engine`] when the engine's own limits are hit.
    pub fn propose(&mut self, handle: Handle) -> Result<(), RaftError> {
        if self.role() != Role::Leader {
            return Err(RaftError::NotLeader);
        }
        Ok(self.engine.propose(Vec::new(), handle.encode())?)
    }

    /// Reports that hard state and entries of all steps up to `number` are durable. Cumulative:
    /// never before every earlier step is.
    pub fn persisted(&mut self, number: u64) {
        self.engine.on_persist_ready(number);
    }

    /// Takes one step, if there is anything to do. Call again until `None`.
    ///
    /// # Panics
    /// When the engine wants to send to a peer: groups have one voter.
    pub fn step(&mut self) -> Option<Effects> {
        if !self.engine.has_ready() {
            return None;
        }
        let mut ready = self.engine.ready();
        assert!(
            ready.messages().is_empty() && ready.persisted_messages().is_empty(),
            "a group of one voter has nobody to send to"
        );
        let hard_state = ready.hs().and_then(|engine| self.changed_vote(engine));
        let entries: Vec<NewEntry> = ready
            .take_entries()
            .into_iter()
            .map(|entry| NewEntry {
                term: Term(entry.term),
                index: RaftIndex(entry.index),
                handle: Handle::decode(&entry.data),
            })
            .collect();
        {
            // The engine asks the storage for these from its next call on.
            let mut state = self.storage.0.borrow_mut();
            for entry in &entries {
                if entry.index <= state.terms.last() {
                    state.terms.truncate_after(RaftIndex(entry.index.0 - 1));
                }
                state.terms.push(entry.index, entry.term);
            }
        }
        let committed = ready.take_committed_entries().last().map(|entry| RaftIndex(entry.index));
        let number = ready.number();
        self.engine.advance_append_async(ready);
        if let Some(index) = committed {
            self.engine.advance_apply_to(index.0);
        }
        Some(Effects { number, hard_state, entries, committed })
    }

    /// The hard state to write when term or vote changed; a new commit index alone is no reason.
    fn changed_vote(&self, engine: &EngineHardState) -> Option<HardState> {
        let mut state = self.storage.0.borrow_mut();
        let known = &mut state.hard_state;
        let changed = (engine.term, engine.vote) != (known.term, known.vote);
        *known = engine.clone();
        changed.then(|| HardState {
            term: Term(engine.term),
            vote: engine.vote,
            commit: engine.commit,
            voters: state.voters.voters.clone(),
        })
    }

    /// Forgets entries before `index`, which retention removed from the log.
    pub fn compact(&mut self, index: RaftIndex) {
        self.storage.0.borrow_mut().terms.drop_before(index);
    }

    /// The terms of all entries, for a rebuild in place.
    pub fn terms(&self) -> TermRuns {
        self.storage.0.borrow().terms.clone()
    }

    /// The part that this replica plays now.
    pub fn role(&self) -> Role {
        match self.engine.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    /// The current term.
    pub fn term(&self) -> Term {
        Term(self.engine.raft.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Logger {
        Logger::root(slog::Discard, slog::o!())
    }

    fn start(hard_state: Option<HardState>, terms: TermRuns) -> PartitionRaft {
        PartitionRaft::start(1, Recovered { hard_state, terms }, &silent()).expect("starts")
    }

    fn steps(raft: &mut PartitionRaft) -> Vec<Effects> {
        std::iter::from_fn(|| raft.step()).collect()
    }

    /// A lone voter that won its election and has its no-op durable.
    fn leader() -> PartitionRaft {
        let mut raft = start(None, TermRuns::default());
        raft.campaign().expect("campaigns");
        let number = steps(&mut raft).last().expect("has effects").number;
        raft.persisted(number);
        steps(&mut raft);
        raft
    }

    const HANDLE: Handle = Handle { records: 3, bytes: 300 };

    #[test]
    fn an_election_writes_the_vote_with_or_before_its_no_op_and_commits_nothing_yet() {
        let mut raft = start(None, TermRuns::default());
        raft.campaign().expect("campaigns");
        let effects = steps(&mut raft);
        let vote = effects.iter().position(|e| e.hard_state.is_some()).expect("a vote");
        let noop = effects.iter().position(|e| !e.entries.is_empty()).expect("a no-op");
        assert!(vote <= noop, "{effects:?}");
        let state = effects[vote].hard_state.clone().expect("a vote");
        assert_eq!((state.term, state.vote, state.voters), (Term(1), 1, vec![1]));
        assert_eq!(
            effects[noop].entries,
            [NewEntry { term: Term(1), index: RaftIndex(1), handle: None }]
        );
        assert!(effects.iter().all(|e| e.committed.is_none()), "{effects:?}");
        assert_eq!(raft.role(), Role::Leader);
    }

    #[test]
    fn an_entry_is_committed_only_after_it_is_reported_persisted() {
        let mut raft = leader();
        raft.propose(HANDLE).expect("leads");
        let effects = steps(&mut raft);
        assert_eq!(effects.len(), 1, "{effects:?}");
        assert_eq!(effects[0].entries[0].handle, Some(HANDLE));
        assert_eq!(effects[0].committed, None);
        assert!(raft.step().is_none(), "nothing moves until the flush is done");

        raft.persisted(effects[0].number);
        let effects = steps(&mut raft);
        assert_eq!(effects.last().and_then(|e| e.committed), Some(RaftIndex(2)));
        assert!(effects.iter().all(|e| e.hard_state.is_none()), "commit alone is never written");
    }

    #[test]
    fn persistence_is_cumulative_over_steps_in_flight() {
        let mut raft = leader();
        let mut numbers = Vec::new();
        for _ in 0..3 {
            raft.propose(HANDLE).expect("leads");
            numbers.extend(steps(&mut raft).iter().map(|e| e.number));
        }
        raft.persisted(numbers[1]);
        let committed = steps(&mut raft).iter().filter_map(|e| e.committed).max();
        assert_eq!(committed, Some(RaftIndex(3)), "the third is not durable");
        raft.persisted(numbers[2]);
        let committed = steps(&mut raft).iter().filter_map(|e| e.committed).max();
        assert_eq!(committed, Some(RaftIndex(4)));
    }

    #[test]
    fn a_restarted_voter_keeps_its_log_and_moves_to_a_higher_term() {
        let terms = TermRuns::recovered(vec![(RaftIndex(1), Term(1))], RaftIndex(1_000_000));
        let vote = HardState { term: Term(4), vote: 1, commit: 1, voters: vec![1] };
        let mut raft = start(Some(vote), terms);
        assert!(steps(&mut raft).iter().all(|e| e.committed.is_none()), "nothing is applied twice");
        raft.campaign().expect("campaigns");
        let effects = steps(&mut raft);
        let entry = effects.iter().flat_map(|e| &e.entries).next().expect("a no-op");
        assert_eq!((entry.term, entry.index), (Term(5), RaftIndex(1_000_001)));
    }

    #[test]
    fn a_log_whose_vote_file_is_older_than_its_entries_never_reuses_their_term() {
        let terms = TermRuns::recovered(vec![(RaftIndex(1), Term(7))], RaftIndex(3));
        let vote = HardState { term: Term(2), vote: 1, commit: 0, voters: vec![1] };
        let mut raft = start(Some(vote), terms);
        raft.campaign().expect("campaigns");
        assert_eq!(raft.term(), Term(8));
    }

    #[test]
    fn a_replica_that_does_not_lead_refuses_proposals() {
        let mut raft = start(None, TermRuns::default());
        assert!(matches!(raft.propose(HANDLE), Err(RaftError::NotLeader)));
    }

    #[test]
    fn compaction_keeps_the_term_before_the_first_entry() {
        let mut raft = leader();
        for _ in 0..10 {
            raft.propose(HANDLE).expect("leads");
            let number = steps(&mut raft).last().expect("has effects").number;
            raft.persisted(number);
            steps(&mut raft);
        }
        raft.compact(RaftIndex(6));
        raft.propose(HANDLE).expect("still leads");
        let number = steps(&mut raft).last().expect("has effects").number;
        raft.persisted(number);
        assert_eq!(steps(&mut raft).iter().filter_map(|e| e.committed).max(), Some(RaftIndex(12)));
    }
}
