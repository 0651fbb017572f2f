//! A group of one: no peers to wait for, and nobody else's disk to lean on.

use super::*;

const HANDLE: Handle = Handle { records: 3, bytes: 300 };

fn alone(hard_state: Option<HardState>, terms: TermRuns) -> PartitionRaft {
    start(1, &[replica(1)], hard_state, terms)
}

fn voted(term: u64) -> Option<HardState> {
    let lone = HardState::bootstrap(Membership::lone(replica(1)));
    Some(HardState { term: Term(term), vote: Some(replica(1)), commit: RaftIndex(1), ..lone })
}

/// A lone voter that won its election and has its no-op durable.
fn leader() -> PartitionRaft {
    let mut raft = alone(None, TermRuns::default());
    raft.campaign().expect("campaigns");
    settle(&mut raft);
    raft
}

#[test]
fn an_election_writes_the_vote_with_or_before_its_no_op_and_commits_nothing_yet() {
    let mut raft = alone(None, TermRuns::default());
    raft.campaign().expect("campaigns");
    let effects = steps(&mut raft);
    let vote = effects.iter().position(|e| e.hard_state.is_some()).expect("a vote");
    let noop = effects.iter().position(|e| !e.entries.is_empty()).expect("a no-op");
    assert!(vote <= noop, "{effects:?}");
    let state = effects[vote].hard_state.clone().expect("a vote");
    assert_eq!((state.term, state.vote), (Term(1), Some(replica(1))));
    assert_eq!(state.membership, Membership::lone(replica(1)));
    let content = Content::Internal(::bytes::Bytes::new());
    let expected = NewEntry { term: Term(1), index: RaftIndex(1), content };
    assert_eq!(effects[noop].entries, [expected]);
    assert!(effects.iter().all(|e| e.committed.is_none()), "{effects:?}");
    assert_eq!(raft.role(), Role::Leader);
}

#[test]
fn an_entry_is_committed_only_after_it_is_reported_persisted() {
    let mut raft = leader();
    assert_eq!(raft.propose(HANDLE).expect("leads"), RaftIndex(2));
    let effects = steps(&mut raft);
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert_eq!(effects[0].entries[0].content, Content::Data(HANDLE));
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
    let mut raft = alone(voted(4), terms);
    assert!(steps(&mut raft).iter().all(|e| e.committed.is_none()), "nothing is applied twice");
    raft.campaign().expect("campaigns");
    let effects = steps(&mut raft);
    let entry = effects.iter().flat_map(|e| &e.entries).next().expect("a no-op");
    assert_eq!((entry.term, entry.index), (Term(5), RaftIndex(1_000_001)));
}

#[test]
fn a_log_whose_vote_file_is_older_than_its_entries_never_reuses_their_term() {
    let terms = TermRuns::recovered(vec![(RaftIndex(1), Term(7))], RaftIndex(3));
    let mut raft = alone(voted(2), terms);
    raft.campaign().expect("campaigns");
    assert_eq!(raft.term(), Term(8));
}

#[test]
fn a_replica_that_does_not_lead_refuses_proposals() {
    let mut raft = alone(None, TermRuns::default());
    assert!(matches!(raft.propose(HANDLE), Err(RaftError::NotLeader)));
}

#[test]
fn compaction_keeps_the_term_before_the_first_entry() {
    let mut raft = leader();
    for _ in 0..10 {
        raft.propose(HANDLE).expect("leads");
        settle(&mut raft);
    }
    raft.compact(RaftIndex(6));
    assert_eq!(raft.terms().first(), RaftIndex(6));
    raft.propose(HANDLE).expect("still leads");
    settle(&mut raft);
    assert_eq!(raft.commit(), RaftIndex(12));
    raft.compact(RaftIndex(99));
    assert_eq!(raft.terms().first(), RaftIndex(13), "what is there, and no more, is forgotten");
}

#[test]
fn time_means_nothing_to_it() {
    let mut raft = leader();
    for _ in 0..1000 {
        raft.tick();
        assert!(raft.step().is_none());
    }
    assert!(raft.is_idle());
    raft.read_index(7);
    let reads: Vec<ReadReady> = steps(&mut raft).into_iter().flat_map(|e| e.reads).collect();
    assert_eq!(reads, [ReadReady { read: 7, index: RaftIndex(1) }]);
}
