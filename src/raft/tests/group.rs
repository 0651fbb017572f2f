//! Replicas of a group, one at a time, with their peers played by the test.

use super::*;
use crate::model::{PeerEntry, PeerPayload, PeerSnapshot};
use ::bytes::Bytes;

fn member_of(voters: std::ops::RangeInclusive<u32>, term: u64) -> Option<HardState> {
    let membership = Membership { voters: voters.map(replica).collect(), ..Membership::default() };
    Some(HardState { term: Term(term), ..HardState::bootstrap(membership) })
}

fn follower() -> PartitionRaft {
    start(1, &[], member_of(1..=3, 1), TermRuns::default())
}

fn append(term: u64, after: (u64, u64), terms: &[u64], commit: u64) -> PeerMessage {
    let mut made = message(PeerKind::Append, 2, 1, term);
    (made.index, made.log_term, made.commit) =
        (RaftIndex(after.0), Term(after.1), RaftIndex(commit));
    let entry = |(index, term): (u64, &u64)| PeerEntry {
        term: Term(*term),
        index: RaftIndex(index),
        payload: PeerPayload::Data(vec![Bytes::from_static(b"record")]),
    };
    made.entries = (after.0 + 1..).zip(terms).map(entry).collect();
    made
}

fn sent(effects: &[Effects]) -> Vec<PeerKind> {
    effects.iter().flat_map(|e| kinds(&e.messages)).collect()
}

/// Wins an election among three with the vote of 2; messages of its no-op are out, nothing of it is
/// durable.
fn leader() -> (PartitionRaft, Vec<Effects>) {
    let mut raft = follower();
    raft.campaign().expect("campaigns");
    settle(&mut raft);
    raft.receive(&message(PeerKind::PreVoteAnswer, 2, 1, 2)).expect("fine");
    settle(&mut raft);
    raft.receive(&message(PeerKind::VoteAnswer, 2, 1, 2)).expect("fine");
    let effects = steps(&mut raft);
    assert_eq!(raft.role(), Role::Leader);
    (raft, effects)
}

fn yes(from: u32, term: u64, index: u64) -> PeerMessage {
    let mut made = message(PeerKind::AppendAnswer, from, 1, term);
    made.index = RaftIndex(index);
    made
}

#[test]
fn an_answer_to_an_append_leaves_when_its_entries_are_durable_and_not_before() {
    let mut raft = follower();
    raft.receive(&append(1, (0, 0), &[1, 1], 0)).expect("fine");
    let first = steps(&mut raft);
    raft.receive(&append(1, (2, 1), &[1], 0)).expect("fine");
    let second = steps(&mut raft);
    assert_eq!(sent(&first), []);
    assert_eq!(sent(&second), []);
    let number = |effects: &[Effects]| effects.last().expect("a step").number;

    raft.persisted(number(&first));
    let released = steps(&mut raft);
    assert_eq!(sent(&released), [PeerKind::AppendAnswer]);
    assert_eq!(released[0].messages[0].index, RaftIndex(2), "the third is not durable");
    raft.persisted(number(&second));
    let released = steps(&mut raft);
    assert_eq!(released[0].messages[0].index, RaftIndex(3));
    assert!(raft.step().is_none());
}

#[test]
fn a_follower_with_a_slow_disk_still_answers_heartbeats() {
    let mut raft = follower();
    raft.receive(&append(1, (0, 0), &[1], 0)).expect("fine");
    assert_eq!(sent(&steps(&mut raft)), []);
    raft.receive(&message(PeerKind::Heartbeat, 2, 1, 1)).expect("fine");
    assert_eq!(sent(&steps(&mut raft)), [PeerKind::HeartbeatAnswer]);
    // In a new term, it answers when it can no longer forget that term.
    raft.receive(&message(PeerKind::Heartbeat, 3, 1, 2)).expect("fine");
    let effects = steps(&mut raft);
    assert_eq!(sent(&effects), []);
    raft.persisted(effects[0].number);
    let expected = [PeerKind::AppendAnswer, PeerKind::HeartbeatAnswer];
    assert_eq!(sent(&steps(&mut raft)), expected);
}

#[test]
fn a_vote_leaves_when_it_is_durable() {
    let mut raft = follower();
    let mut asks = message(PeerKind::Vote, 3, 1, 5);
    (asks.index, asks.log_term) = (RaftIndex(1), Term(1));
    raft.receive(&asks).expect("fine");
    let effects = steps(&mut raft);
    let state = effects[0].hard_state.clone().expect("a vote");
    assert_eq!((state.term, state.vote), (Term(5), Some(replica(3))));
    assert_eq!(sent(&effects), []);
    raft.persisted(effects[0].number);
    let answers = steps(&mut raft);
    assert_eq!(sent(&answers), [PeerKind::VoteAnswer]);
    assert!(!answers[0].messages[0].reject);
}

#[test]
fn a_leader_sends_while_it_writes_and_commits_by_the_disks_of_others() {
    let (mut raft, effects) = leader();
    assert_eq!(sent(&effects), [PeerKind::Append; 2], "before its own flush");
    raft.receive(&yes(2, 2, 1)).expect("fine");
    raft.receive(&yes(3, 2, 1)).expect("fine");
    let committed = |effects: &[Effects]| effects.iter().filter_map(|e| e.committed).max();
    assert_eq!(raft.commit(), RaftIndex(1), "two of three have it");
    assert_eq!(committed(&steps(&mut raft)), None, "it is not durable here: nothing to apply");
    raft.persisted(effects.last().expect("a step").number);
    assert_eq!(committed(&steps(&mut raft)), Some(RaftIndex(1)));
}

#[test]
fn followers_learn_what_is_committed_from_the_next_entry_or_a_heartbeat() {
    let told = |raft: &mut PartitionRaft| -> Vec<_> {
        let messages = steps(raft).into_iter().flat_map(|effects| effects.messages);
        messages.map(|message| (message.kind, message.commit.0)).collect()
    };
    let (mut raft, effects) = leader();
    let no_op = effects.last().expect("a step").number;
    raft.persisted(no_op);
    raft.receive(&yes(2, 2, 1)).expect("fine");
    raft.receive(&yes(3, 2, 1)).expect("fine");
    told(&mut raft); // to one that it had to find out about
    for index in 2..4 {
        raft.propose(Handle { records: 1, bytes: 6 }).expect("it leads");
        let next = told(&mut raft);
        assert_eq!(next, [(PeerKind::Append, index - 1); 2], "with what was committed before");
        raft.receive(&yes(2, 2, index)).expect("fine");
        raft.receive(&yes(3, 2, index)).expect("fine");
        assert_eq!((told(&mut raft), raft.commit().0), (vec![], index), "no message of its own");
    }
    raft.ping();
    assert_eq!(told(&mut raft), [(PeerKind::Heartbeat, 3); 2]);
}

#[test]
fn a_lone_voter_with_learners_tells_them_nothing_in_a_term_that_it_may_forget() {
    let mut hard = member_of(1..=1, 1);
    hard.as_mut().expect("some").membership.learners.insert(replica(2));
    let mut raft = start(1, &[replica(1)], hard, TermRuns::default());
    raft.campaign().expect("campaigns");
    let effects = steps(&mut raft);
    assert_eq!(raft.role(), Role::Leader);
    assert_eq!(sent(&effects), []);
    raft.persisted(effects.last().expect("a step").number);
    assert_eq!(sent(&steps(&mut raft))[0], PeerKind::Append);
}

#[test]
fn a_change_is_in_the_hard_state_before_it_is_in_the_log_and_survives_a_restart() {
    let (mut raft, effects) = leader();
    raft.persisted(effects.last().expect("a step").number);
    raft.receive(&yes(2, 2, 1)).expect("fine");
    settle(&mut raft);
    let step = MemberStep::AddLearner(replica(4));
    raft.change(&MembershipChange::one(step)).expect("fits");
    assert!(matches!(
        raft.change(&MembershipChange::one(step)),
        Err(RaftError::Change(ChangeError::Joint))
    ));
    let effects = steps(&mut raft);
    let hard = effects[0].hard_state.clone().expect("written before the entry");
    assert_eq!(hard.pending.len(), 1);
    assert_eq!(effects[0].entries[0].content, Content::Internal(hard.pending[0].change.clone()));
    assert!(!raft.membership().contains(replica(4)), "not before it is committed");

    // The log has the entry: another leader says that it is committed.
    let mut again = start(1, &[], Some(hard.clone()), raft.terms());
    let mut says = append(3, (2, 2), &[], 2);
    says.from = replica(3);
    again.receive(&says).expect("fine");
    let effects = steps(&mut again);
    assert!(effects.iter().any(|e| e.membership_changed));
    assert!(again.membership().learners.contains(&replica(4)));
    let hard_after = effects.iter().find_map(|e| e.hard_state.clone()).expect("written");
    assert_eq!((hard_after.membership_index, hard_after.pending.len()), (RaftIndex(2), 0));

    // The log lost the entry, as it may: it was not flushed.
    let mut terms = raft.terms();
    terms.truncate_after(RaftIndex(1));
    let mut again = start(1, &[], Some(hard), terms);
    let mut says = append(3, (1, 2), &[3], 2);
    says.from = replica(3);
    again.receive(&says).expect("fine");
    settle(&mut again);
    assert!(!again.membership().contains(replica(4)));
}

#[test]
fn a_follower_behind_the_log_begins_anew_where_the_log_begins() {
    let mut raft = start(4, &[], None, TermRuns::default());
    assert_eq!(raft.role(), Role::Learner);
    let mut membership =
        Membership { voters: (1..4).map(replica).collect(), ..Membership::default() };
    membership.learners.insert(replica(4));
    let mut made = message(PeerKind::Snapshot, 2, 4, 6);
    made.snapshot = Some(PeerSnapshot {
        index: RaftIndex(500),
        term: Term(5),
        membership: super::super::membership::encode_with_index(&membership, RaftIndex(510)),
        state: Bytes::from_static(b"offset 9000"),
    });
    raft.receive(&made).expect("fine");
    let effects = steps(&mut raft);
    let start = effects[0].install.clone().expect("the log is begun anew");
    assert_eq!((start.index, start.term), (RaftIndex(500), Term(5)));
    assert_eq!((start.membership, &start.state[..]), (membership.clone(), &b"offset 9000"[..]));
    let hard = effects[0].hard_state.clone().expect("with its members");
    assert_eq!((hard.membership, hard.membership_index), (membership, RaftIndex(510)));
    assert_eq!(hard.commit, RaftIndex(0), "of the log that is still there");
    assert_eq!(sent(&effects), []);
    for _ in 0..100 {
        raft.tick();
    }
    raft.persisted(effects[0].number);
    let effects = steps(&mut raft);
    assert_eq!(sent(&effects), [PeerKind::AppendAnswer]);
    assert_eq!(effects[0].messages[0].index, RaftIndex(500));
}

#[test]
fn a_snapshot_that_got_lost_is_sent_again() {
    let terms = TermRuns::recovered(vec![(RaftIndex(50), Term(1))], RaftIndex(60)).after(Term(1));
    let mut raft = start(1, &[], member_of(1..=3, 1), terms);
    raft.campaign().expect("campaigns");
    settle(&mut raft);
    raft.receive(&message(PeerKind::PreVoteAnswer, 2, 1, 2)).expect("fine");
    settle(&mut raft);
    raft.receive(&message(PeerKind::VoteAnswer, 2, 1, 2)).expect("fine");
    settle(&mut raft);
    let mut no = message(PeerKind::AppendAnswer, 3, 1, 2);
    (no.reject, no.index) = (true, RaftIndex(60));
    raft.receive(&no).expect("fine");
    let first = settle(&mut raft);
    assert_eq!(kinds(&first), [PeerKind::Snapshot]);
    let told = first[0].snapshot.clone().expect("where it begins");
    assert_eq!((told.index, told.term), (RaftIndex(49), Term(1)));
    assert!(raft.progress().iter().any(|p| p.replica == replica(3) && p.needs_snapshot));

    let mut again = Vec::new();
    for _ in 0..40 {
        raft.tick();
        for from in [2, 3] {
            raft.receive(&message(PeerKind::HeartbeatAnswer, from, 1, 2)).expect("fine");
        }
        again.extend(settle(&mut raft));
    }
    assert!(kinds(&again).contains(&PeerKind::Snapshot));
    raft.unreachable(replica(3));
    raft.receive(&message(PeerKind::HeartbeatAnswer, 3, 1, 2)).expect("fine");
    assert!(kinds(&settle(&mut raft)).contains(&PeerKind::Snapshot), "at once when it is known");
}

/// The engine's fault 557: after a late "no", it sent from below what it knew to be there.
#[test]
fn what_is_sent_next_stays_above_what_is_known_to_be_there() {
    let (mut raft, effects) = leader();
    raft.persisted(effects.last().expect("a step").number);
    for _ in 0..9 {
        raft.propose(Handle { records: 1, bytes: 1 }).expect("leads");
    }
    settle(&mut raft);
    raft.receive(&yes(2, 2, 8)).expect("fine");
    settle(&mut raft);
    raft.unreachable(replica(2));
    let mut late = message(PeerKind::AppendAnswer, 2, 1, 2);
    (late.reject, late.index, late.reject_hint) = (true, RaftIndex(8), RaftIndex(2));
    raft.receive(&late).expect("fine");
    raft.propose(Handle { records: 1, bytes: 1 }).expect("leads");
    let to_two = settle(&mut raft).into_iter().filter(|m| m.to == replica(2));
    for message in to_two {
        assert!(message.index >= RaftIndex(8), "{message:?}");
    }
}

/// The engine's fault 561 is about applying what is not durable: here it never is, even where the
/// entries were durable once, and were replaced.
#[test]
fn what_replaced_a_durable_entry_is_applied_when_it_is_durable_itself() {
    let mut raft = follower();
    raft.receive(&append(1, (0, 0), &[1, 1], 0)).expect("fine");
    let first = steps(&mut raft);
    raft.receive(&append(3, (0, 0), &[2], 0)).expect("fine");
    let second = steps(&mut raft);
    raft.receive(&append(4, (0, 0), &[1, 1], 2)).expect("fine");
    let third = steps(&mut raft);
    let number = |effects: &[Effects]| effects.last().expect("a step").number;
    assert_eq!(raft.commit(), RaftIndex(2));
    // On the disk now are the entries of the same terms, about to be replaced twice.
    for earlier in [&first, &second] {
        raft.persisted(number(earlier));
        let effects = steps(&mut raft);
        assert!(effects.iter().all(|e| e.committed.is_none()), "{effects:?}");
    }
    raft.persisted(number(&third));
    let committed = steps(&mut raft).iter().filter_map(|e| e.committed).max();
    assert_eq!(committed, Some(RaftIndex(2)));
}

#[test]
fn messages_keep_to_their_limit_and_follow_each_other() {
    let (mut raft, effects) = leader();
    raft.persisted(effects.last().expect("a step").number);
    settle(&mut raft);
    for _ in 0..8 {
        raft.propose(Handle { records: 1, bytes: 1 }).expect("leads");
    }
    raft.receive(&yes(2, 2, 1)).expect("fine");
    let sent = settle(&mut raft);
    let mut next = RaftIndex(1);
    for message in sent.iter().filter(|m| m.to == replica(2) && !m.entries.is_empty()) {
        assert!(message.entries.len() <= 3, "{message:?}");
        assert_eq!((message.index, message.log_term), (next, Term(2)));
        next = message.entries.last().expect("some").index;
    }
    assert_eq!(next, RaftIndex(9));
}

#[test]
fn a_follower_passes_the_wish_for_another_leader_on() {
    let mut raft = follower();
    raft.receive(&message(PeerKind::Heartbeat, 2, 1, 1)).expect("fine");
    settle(&mut raft);
    raft.transfer(replica(3));
    let wish = settle(&mut raft).pop().expect("a wish");
    assert_eq!((wish.kind, wish.to), (PeerKind::TransferLeader, replica(2)));

    let (mut raft, effects) = leader();
    raft.persisted(effects.last().expect("a step").number);
    raft.receive(&yes(2, 2, 1)).expect("fine");
    raft.receive(&yes(3, 2, 1)).expect("fine");
    settle(&mut raft);
    let mut wish = wish;
    (wish.from, wish.to) = (replica(2), replica(1));
    raft.receive(&wish).expect("fine");
    let told = settle(&mut raft);
    assert!(told.iter().any(|m| m.kind == PeerKind::TimeoutNow && m.to == replica(3)), "{told:?}");
    assert!(matches!(raft.propose(Handle { records: 1, bytes: 1 }), Err(RaftError::HandingOver)));
}
