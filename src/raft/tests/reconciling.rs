//! From any group to any other, step by step, and never through one that could not decide.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn has_majority(voters: &BTreeSet<ReplicaId>, active: &BTreeSet<ReplicaId>) -> bool {
    voters.intersection(active).count() * 2 > voters.len()
}

fn replicas(least: usize) -> impl Strategy<Value = Vec<ReplicaId>> {
    let all: Vec<ReplicaId> = (1..8).map(replica).collect();
    proptest::sample::subsequence(all, least..=5).prop_shuffle()
}

proptest! {
    #[test]
    fn a_group_becomes_what_is_wanted_and_always_has_an_active_majority(
        voters in replicas(1),
        learners in replicas(0),
        wanted in replicas(1),
        inactive in replicas(0),
    ) {
        let voters: BTreeSet<ReplicaId> = voters.into_iter().collect();
        let learners = learners.into_iter().filter(|l| !voters.contains(l)).collect();
        let mut membership = Membership { voters, learners, ..Membership::default() };
        let down: BTreeSet<ReplicaId> = inactive.into_iter().collect();
        let active: BTreeSet<ReplicaId> = (1..8).map(replica).filter(|r| !down.contains(r)).collect();
        prop_assume!(has_majority(&membership.voters, &active));
        let mut me = *membership.voters.intersection(&active).next().expect("a majority");
        let last = RaftIndex(1000);
        let mut steps = 0;
        loop {
            let progress = |id: ReplicaId| ReplicaProgress {
                replica: id,
                is_learner: !membership.is_voter(id),
                matched: if active.contains(&id) { last } else { RaftIndex(0) },
                is_active: active.contains(&id),
                needs_snapshot: false,
            };
            let progress: Vec<ReplicaProgress> = membership.members().into_iter().map(progress).collect();
            match reconcile(me, &membership, &progress, last, &wanted) {
                Some(Step::Change(change)) => {
                    membership = membership.after(&change).expect("a change that fits");
                    prop_assert!(has_majority(&membership.voters, &active), "{:?}", membership);
                    if membership.is_joint() {
                        prop_assert!(has_majority(&membership.outgoing, &active));
                        membership = membership.after(&MembershipChange::default()).expect("left");
                    }
                    prop_assert!(membership.is_voter(me), "a leader removes itself");
                }
                Some(Step::Transfer(to)) => {
                    prop_assert!(membership.is_voter(to) && active.contains(&to) && to != me);
                    me = to;
                }
                None => break,
            }
            steps += 1;
            prop_assert!(steps < 40, "no end: {:?} for {:?}", membership, wanted);
        }
        if wanted.iter().all(|replica| active.contains(replica)) {
            prop_assert_eq!(&membership.voters, &wanted.iter().copied().collect());
            prop_assert!(membership.learners.is_empty() && me == wanted[0]);
        }
    }
}

#[test]
fn a_replica_is_replaced_in_one_change_once_the_new_one_has_caught_up() {
    let mut membership =
        Membership { voters: (1..4).map(replica).collect(), ..Membership::default() };
    membership.learners.insert(replica(4));
    let wanted = [replica(1), replica(2), replica(4)];
    let progress = |matched| {
        (1..5).map(move |node| ReplicaProgress {
            replica: replica(node),
            is_learner: node == 4,
            matched: RaftIndex(if node == 4 { matched } else { 1000 }),
            is_active: node != 3,
            needs_snapshot: false,
        })
    };
    let next = |matched: u64| {
        let progress: Vec<ReplicaProgress> = progress(matched).collect();
        reconcile(replica(1), &membership, &progress, RaftIndex(1000), &wanted)
    };
    assert_eq!(next(10), None, "the dead one stays until another can take its place");
    let steps = vec![MemberStep::AddVoter(replica(4)), MemberStep::Remove(replica(3))];
    assert_eq!(next(990), Some(Step::Change(MembershipChange { steps })));
}

#[test]
fn leadership_goes_back_only_to_one_that_has_everything_and_away_from_one_that_leaves_before() {
    let (me, other) = (replica(1), replica(2));
    let voters = [me, other, replica(3)].into();
    let membership = Membership { voters, ..Membership::default() };
    let step = |lag: u64, wanted: &[u32]| {
        let last = RaftIndex(1000);
        let progress = [me, other, replica(3)].map(|replica| ReplicaProgress {
            replica,
            is_learner: false,
            matched: RaftIndex(if replica == other { 1000 - lag } else { 1000 }),
            is_active: true,
            needs_snapshot: false,
        });
        let wanted: Vec<ReplicaId> = wanted.iter().copied().map(replica).collect();
        reconcile(me, &membership, &progress, last, &wanted)
    };
    assert_eq!(step(2, &[2, 1, 3]), Some(Step::Transfer(other)));
    assert_eq!(step(3, &[2, 1, 3]), None, "it would be waited for");
    assert_eq!(step(50, &[2, 3]), Some(Step::Transfer(other)), "it is not to stay");
}
