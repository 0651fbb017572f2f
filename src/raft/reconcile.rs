//! From the members that a group has to those that it is to have, one safe step at a time. Worked
//! out anew by its leader each time something has changed, so nothing is lost with a leader.

use super::effects::ReplicaProgress;
use super::membership::{MemberStep, Membership, MembershipChange};
use crate::model::{RaftIndex, ReplicaId};
use std::collections::BTreeSet;

/// Entries that a replica may be behind and still be taken for caught up.
const LAG_MAX: u64 = 64;
/// Entries that the preferred leader may be behind when leadership goes back to it. The group takes no
/// entries until it has them, and nobody is in a hurry.
const HAND_BACK_LAG_MAX: u64 = 2;

/// What a leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Propose this change.
    Change(MembershipChange),
    /// Hand leadership to this voter.
    Transfer(ReplicaId),
}

/// What the leader `me` does next so that its group becomes `wanted`, the first of which is to lead;
/// `None` when there is nothing to do, or nothing that is safe now. `progress` is the leader's, and
/// `last` its newest entry.
///
/// Replicas that are missing come in as learners, vote when they have caught up, and only then are
/// those that are too many let go, in the same change where both happen at once. No change is made
/// that leaves less than a majority of active voters.
pub fn reconcile(
    me: ReplicaId,
    membership: &Membership,
    progress: &[ReplicaProgress],
    last: RaftIndex,
    wanted: &[ReplicaId],
) -> Option<Step> {
    if membership.is_joint() || wanted.is_empty() {
        return None;
    }
    let goal: BTreeSet<ReplicaId> = wanted.iter().copied().collect();
    let of = |replica: ReplicaId| progress.iter().find(|progress| progress.replica == replica);
    let is_active = |replica: ReplicaId| replica == me || of(replica).is_some_and(|p| p.is_active);
    let caught_up = |replica: ReplicaId| {
        let near = |p: &ReplicaProgress| p.matched.0.saturating_add(LAG_MAX) >= last.0;
        is_active(replica) && of(replica).is_some_and(|p| !p.needs_snapshot && near(p))
    };
    let is_safe = |change: &MembershipChange| {
        membership.after(change).is_ok_and(|after| {
            let active = |voters: &BTreeSet<ReplicaId>| {
                voters.iter().filter(|replica| is_active(**replica)).count() * 2 > voters.len()
            };
            active(&after.voters) && (!after.is_joint() || active(&after.outgoing))
        })
    };
    let learner_step = {
        let goes = membership.learners.difference(&goal).next();
        let goes = goes.map(|replica| MemberStep::Remove(*replica));
        goes.or_else(|| {
            let missing = goal.iter().find(|replica| !membership.contains(**replica));
            missing.map(|replica| MemberStep::AddLearner(*replica))
        })
    };
    if let Some(step) = learner_step {
        return Some(Step::Change(MembershipChange::one(step)));
    }
    let promoted = membership.learners.iter().filter(|replica| caught_up(**replica));
    let promotions: Vec<MemberStep> = promoted.map(|r| MemberStep::AddVoter(*r)).collect();
    let mut surplus: Vec<ReplicaId> =
        membership.voters.difference(&goal).copied().filter(|replica| *replica != me).collect();
    // Those that do not answer go first.
    surplus.sort_by_key(|replica| (is_active(*replica), *replica));
    let spare = (membership.voters.len() + promotions.len()).saturating_sub(goal.len());
    let removals: Vec<MemberStep> =
        surplus.into_iter().take(spare).map(MemberStep::Remove).collect();
    let whole: Vec<MemberStep> = promotions.iter().chain(&removals).copied().collect();
    let single = whole.iter().map(|step| vec![*step]);
    let changes = std::iter::once(whole.clone()).chain([promotions.clone()]).chain(single);
    let mut changes =
        changes.filter(|steps| !steps.is_empty()).map(|steps| MembershipChange { steps });
    if let Some(change) = changes.find(is_safe) {
        return Some(Step::Change(change));
    }
    let may_lead = |replica: ReplicaId| {
        replica != me && membership.voters.contains(&replica) && caught_up(replica)
    };
    let next = if goal.contains(&me) {
        let has_all = |p: &ReplicaProgress| p.matched.0.saturating_add(HAND_BACK_LAG_MAX) >= last.0;
        Some(wanted[0]).filter(|replica| may_lead(*replica) && of(*replica).is_some_and(has_all))
    } else {
        wanted.iter().copied().find(|replica| may_lead(*replica))
    };
    next.map(Step::Transfer)
}
