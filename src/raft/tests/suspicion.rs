//! A leader that is missed because its connection broke: somebody else leads at once, and nobody is
//! disturbed where it was the connection only.

use super::world::{Sabotage, World};
use super::*;

fn follower_of_two() -> PartitionRaft {
    let voters = (1..=3).map(replica).collect();
    let membership = Membership { voters, ..Membership::default() };
    let hard = HardState { term: Term(1), ..HardState::bootstrap(membership) };
    let mut raft = start(1, &[], Some(hard), TermRuns::default());
    raft.receive(&message(PeerKind::Heartbeat, 2, 1, 1)).expect("fine");
    settle(&mut raft);
    raft
}

fn in_turn(nodes: &[u32]) -> Vec<ReplicaId> {
    nodes.iter().copied().map(replica).collect()
}

fn asks_for_a_vote(index: u64) -> PeerMessage {
    let mut asks = message(PeerKind::PreVote, 3, 1, 2);
    (asks.index, asks.log_term) = (RaftIndex(index), Term(index.min(1)));
    asks
}

fn ticks_until_it_stands(raft: &mut PartitionRaft) -> usize {
    let stands = |raft: &mut PartitionRaft| {
        raft.tick();
        kinds(&settle(raft)).contains(&PeerKind::PreVote)
    };
    (1..40).find(|_| stands(raft)).expect("it stands some time")
}

/// Ticks from a leader's death to the next leader, the longest of many worlds.
fn longest(is_noticed: bool, late: usize) -> usize {
    let in_world = |seed| {
        let mut world = World::new(seed, 3, 3, Sabotage::None);
        world.heal();
        world.bereave(is_noticed, late)
    };
    (0..40).map(in_world).max().expect("some worlds")
}

#[test]
fn a_leader_that_is_missed_at_once_is_followed_at_once() {
    assert_eq!(longest(true, 0), 0, "no tick is waited for");
    assert!(longest(true, 3) <= 6, "also where what it sent arrives after it was missed");
    let unnoticed = longest(false, 0);
    // Ten ticks, less those since the last heartbeat.
    assert!(unnoticed >= 8, "{unnoticed} ticks: an election timeout, where nobody notices");
}

#[test]
fn the_first_in_turn_stands_now_and_the_others_after_it() {
    let mut first = follower_of_two();
    first.suspect_leader(in_turn(&[1, 3]), true);
    assert_eq!(kinds(&settle(&mut first)), [PeerKind::PreVote; 2]);
    assert_eq!(ticks_until_it_stands(&mut first), 1, "who was not heard yet is asked again");
    let mut second = follower_of_two();
    second.suspect_leader(in_turn(&[3, 1]), true);
    assert_eq!(kinds(&settle(&mut second)), []);
    assert_eq!(ticks_until_it_stands(&mut second), 3);
    let mut patient = follower_of_two();
    patient.suspect_leader(in_turn(&[1, 3]), false);
    assert_eq!(kinds(&settle(&mut patient)), [], "somebody else of its node stands");
    assert_eq!(ticks_until_it_stands(&mut patient), 1);
    let mut unfit = follower_of_two();
    unfit.suspect_leader(in_turn(&[3]), true);
    unfit.receive(&asks_for_a_vote(0)).expect("fine");
    assert_eq!(kinds(&settle(&mut unfit)), [PeerKind::PreVoteAnswer], "it votes all the same");
}

#[test]
fn whoever_misses_the_leader_votes_for_another_and_whoever_hears_it_does_not() {
    let mut hears = follower_of_two();
    hears.receive(&asks_for_a_vote(0)).expect("fine");
    assert_eq!(kinds(&settle(&mut hears)), []);
    let mut misses = follower_of_two();
    misses.suspect_leader(in_turn(&[3, 1]), true);
    misses.receive(&asks_for_a_vote(0)).expect("fine");
    let answers = settle(&mut misses);
    assert_eq!(kinds(&answers), [PeerKind::PreVoteAnswer]);
    assert!(!answers[0].reject);
}

#[test]
fn of_two_that_stand_at_once_the_second_gives_way_and_the_first_does_not() {
    let mut second = follower_of_two();
    second.suspect_leader(in_turn(&[3, 1]), true);
    ticks_until_it_stands(&mut second);
    second.receive(&asks_for_a_vote(0)).expect("fine");
    assert_eq!(kinds(&settle(&mut second)), [PeerKind::PreVoteAnswer]);
    let mut first = follower_of_two();
    first.suspect_leader(in_turn(&[1, 3]), true);
    settle(&mut first);
    first.receive(&asks_for_a_vote(0)).expect("fine");
    assert_eq!(kinds(&settle(&mut first)), []);
    // Not for ever: it may be that the first cannot win.
    (0..21).for_each(|_| first.tick());
    settle(&mut first);
    first.receive(&asks_for_a_vote(0)).expect("fine");
    assert_eq!(kinds(&settle(&mut first)), [PeerKind::PreVoteAnswer]);
}

#[test]
fn whoever_lacks_entries_is_stood_in_for_at_once() {
    let mut misses = follower_of_two();
    let mut append = message(PeerKind::Append, 2, 1, 1);
    let payload = crate::model::PeerPayload::Data(vec![::bytes::Bytes::from_static(b"record")]);
    append.entries = vec![crate::model::PeerEntry { term: Term(1), index: RaftIndex(1), payload }];
    misses.receive(&append).expect("fine");
    settle(&mut misses);
    misses.suspect_leader(in_turn(&[3, 1]), true);
    misses.receive(&asks_for_a_vote(0)).expect("fine");
    let sent = settle(&mut misses);
    assert_eq!(kinds(&sent), [PeerKind::PreVote; 2]);
}

#[test]
fn a_leader_that_is_heard_again_is_followed_and_the_haste_ends() {
    let mut raft = follower_of_two();
    raft.suspect_leader(in_turn(&[1, 3]), true);
    settle(&mut raft);
    // Its heartbeats come on another connection, as they always did.
    for _ in 0..22 {
        raft.receive(&message(PeerKind::Heartbeat, 2, 1, 1)).expect("fine");
        raft.tick();
        assert_eq!(kinds(&settle(&mut raft)), [PeerKind::HeartbeatAnswer]);
        assert_eq!((raft.role(), raft.leader()), (Role::Follower, Some(replica(2))));
    }
    assert!(ticks_until_it_stands(&mut raft) >= 9, "as if nothing had been");
}
