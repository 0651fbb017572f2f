//! Who belongs to a group: what Raft calls its configuration, in our words and our bytes. A change
//! is worked out here as the engine works it out, so that a bad one is refused before it is in the
//! log.

use super::bytes::{Reader, put_u32, put_u64};
use crate::model::{RaftIndex, ReplicaId};
use bytes::Bytes;
use raft::prelude::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use std::collections::BTreeSet;

/// Members of one kind in a group, and steps in a change; far above what a group ever has.
pub(super) const MEMBERS_MAX: usize = 64;
/// What the bytes of a change begin with in the log and between nodes.
const CHANGE_TAG: u8 = 1;

/// The members of a group, in the middle of a joint change or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// They vote, and count for commits.
    pub voters: BTreeSet<ReplicaId>,
    /// During a joint change: the voters before it, whose majority is needed as well.
    pub outgoing: BTreeSet<ReplicaId>,
    /// They get all entries and do not vote.
    pub learners: BTreeSet<ReplicaId>,
    /// During a joint change: outgoing voters that will be learners after it.
    pub learners_next: BTreeSet<ReplicaId>,
    /// The leader ends the joint change by itself.
    pub auto_leave: bool,
}

/// One step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStep {
    /// It votes from then on; a learner is promoted.
    AddVoter(ReplicaId),
    /// It follows without a vote; a voter is demoted.
    AddLearner(ReplicaId),
    /// It is no member from then on.
    Remove(ReplicaId),
}

/// A change of a group's members. More than one step makes it a joint change, which the leader ends
/// by itself; no step at all is that end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembershipChange {
    /// What changes, at most 64 steps.
    pub steps: Vec<MemberStep>,
}

/// Why a change does not fit a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// One change at a time.
    #[error("the group is in the middle of a change; try again when that one is done")]
    Joint,
    /// The first member is not in the log yet; it is being written down.
    #[error("the group's first member is being written to its log; try again when that is done")]
    Founding,
    /// There is no joint change that could end.
    #[error("the change has no step")]
    Empty,
    /// Nobody would vote.
    #[error("the change would leave the group without a voter; add one first")]
    NoVoters,
    /// More than the bound.
    #[error(
        "a change has at most {MEMBERS_MAX} steps, a group at most {MEMBERS_MAX} members of a kind"
    )]
    TooLarge,
}

impl Membership {
    /// A group of one.
    pub fn lone(voter: ReplicaId) -> Self {
        Self::of([voter])
    }

    /// A group of these voters.
    pub fn of(voters: impl IntoIterator<Item = ReplicaId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Whether a replica votes.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// Whether a replica belongs to the group, voting or not.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica)
            || self.learners.contains(&replica)
            || self.learners_next.contains(&replica)
    }

    /// Whether it is in the middle of a change of more than one voter.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the replica is all there is.
    pub fn is_alone(&self, replica: ReplicaId) -> bool {
        self.is_only_voter(replica) && self.learners.is_empty()
    }

    /// Whether the replica is a majority by itself.
    pub fn is_only_voter(&self, replica: ReplicaId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&replica) && self.outgoing.is_empty()
    }

    /// All members, each once.
    pub fn members(&self) -> BTreeSet<ReplicaId> {
        let sets = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        sets.into_iter().flatten().copied().collect()
    }

    /// The membership that a change leads to.
    ///
    /// # Errors
    /// [`ChangeError`] where the change does not fit; it is then without effect at every replica.
    pub fn after(&self, change: &MembershipChange) -> Result<Self, ChangeError> {
        if change.steps.is_empty() {
            return if self.is_joint() { Ok(self.left()) } else { Err(ChangeError::Empty) };
        }
        if self.is_joint() {
            return Err(ChangeError::Joint);
        }
        let mut after = self.clone();
        if change.steps.len() > 1 {
            after.outgoing.clone_from(&self.voters);
            after.auto_leave = true;
        }
        for step in &change.steps {
            match *step {
                MemberStep::AddVoter(replica) => {
                    after.learners.remove(&replica);
                    after.learners_next.remove(&replica);
                    after.voters.insert(replica);
                }
                MemberStep::AddLearner(replica) => {
                    after.voters.remove(&replica);
                    if after.outgoing.contains(&replica) {
                        after.learners_next.insert(replica);
                    } else {
                        after.learners.insert(replica);
                    }
                }
                MemberStep::Remove(replica) => {
                    after.voters.remove(&replica);
                    after.learners.remove(&replica);
                    after.learners_next.remove(&replica);
                }
            }
        }
        if after.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        let fits = change.steps.len() <= MEMBERS_MAX && after.members().len() <= MEMBERS_MAX;
        if fits { Ok(after) } else { Err(ChangeError::TooLarge) }
    }

    fn left(&self) -> Self {
        let mut after = self.clone();
        after.learners.append(&mut after.learners_next);
        after.outgoing.clear();
        after.auto_leave = false;
        after
    }

    /// Whether the engine takes it for the members of a group.
    pub(super) fn is_sound(&self) -> bool {
        let votes = |replica: &ReplicaId| self.is_voter(*replica);
        let shape = if self.is_joint() {
            self.learners_next.is_subset(&self.outgoing)
                && self.learners_next.is_disjoint(&self.voters)
        } else {
            self.learners_next.is_empty() && !self.auto_leave
        };
        shape && !self.voters.is_empty() && !self.learners.iter().any(votes)
    }

    /// Flags, then the four sets, each in order behind its count; big-endian.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self.auto_leave));
        for set in [&self.voters, &self.outgoing, &self.learners, &self.learners_next] {
            put_u32(bytes, set.len());
            for replica in set {
                put_u64(bytes, replica.raw());
            }
        }
    }

    /// Reads what [`Membership::encode`] wrote; `None` for anything else.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let auto_leave = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let mut sets = [const { BTreeSet::new() }; 4];
        for set in &mut sets {
            for _ in 0..reader.count(MEMBERS_MAX)? {
                let replica = ReplicaId::from_raw(reader.u64()?)?;
                if set.last().is_some_and(|last| *last >= replica) {
                    return None;
                }
                set.insert(replica);
            }
        }
        let [voters, outgoing, learners, learners_next] = sets;
        let read = Self { voters, outgoing, learners, learners_next, auto_leave };
        (read.is_sound() || read == Self::default()).then_some(read)
    }

    pub(super) fn to_engine(&self) -> ConfState {
        let raw = |set: &BTreeSet<ReplicaId>| set.iter().map(|r| r.raw()).collect::<Vec<u64>>();
        let mut state = ConfState::from((raw(&self.voters), raw(&self.learners)));
        state.set_voters_outgoing(raw(&self.outgoing));
        state.set_learners_next(raw(&self.learners_next));
        state.set_auto_leave(self.auto_leave);
        state
    }

    pub(super) fn of_engine(state: &ConfState) -> Self {
        let ids = |raw: &[u64]| raw.iter().filter_map(|id| ReplicaId::from_raw(*id)).collect();
        Self {
            voters: ids(state.get_voters()),
            outgoing: ids(state.get_voters_outgoing()),
            learners: ids(state.get_learners()),
            learners_next: ids(state.get_learners_next()),
            auto_leave: state.get_auto_leave(),
        }
    }
}

impl MembershipChange {
    /// One step.
    pub fn one(step: MemberStep) -> Self {
        Self { steps: vec![step] }
    }

    /// Tag, count, steps of a kind and a replica each; big-endian.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = vec![CHANGE_TAG];
        put_u32(&mut bytes, self.steps.len());
        for step in &self.steps {
            let (kind, replica) = match step {
                MemberStep::AddVoter(replica) => (1, replica),
                MemberStep::AddLearner(replica) => (2, replica),
                MemberStep::Remove(replica) => (3, replica),
            };
            bytes.push(kind);
            put_u64(&mut bytes, replica.raw());
        }
        bytes.into()
    }

    /// Reads what [`MembershipChange::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.u8()? != CHANGE_TAG {
            return None;
        }
        let mut steps = Vec::new();
        for _ in 0..reader.count(MEMBERS_MAX)? {
            let kind = reader.u8()?;
            let replica = ReplicaId::from_raw(reader.u64()?)?;
            steps.push(match kind {
                1 => MemberStep::AddVoter(replica),
                2 => MemberStep::AddLearner(replica),
                3 => MemberStep::Remove(replica),
                _ => return None,
            });
        }
        reader.0.is_empty().then_some(Self { steps })
    }

    pub(super) fn to_engine(&self) -> ConfChangeV2 {
        let single = |step: &MemberStep| {
            let (kind, replica) = match step {
                MemberStep::AddVoter(replica) => (ConfChangeType::AddNode, replica),
                MemberStep::AddLearner(replica) => (ConfChangeType::AddLearnerNode, replica),
                MemberStep::Remove(replica) => (ConfChangeType::RemoveNode, replica),
            };
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = replica.raw();
            single
        };
        let mut change = ConfChangeV2::default();
        change.set_changes(self.steps.iter().map(single).collect::<Vec<_>>().into());
        change
    }

    /// What the engine made of a change that was proposed here.
    pub(super) fn of_engine(change: &ConfChangeV2) -> Self {
        let step = |single: &ConfChangeSingle| {
            let replica = ReplicaId::from_raw(single.node_id)?;
            Some(match single.get_change_type() {
                ConfChangeType::AddNode => MemberStep::AddVoter(replica),
                ConfChangeType::AddLearnerNode => MemberStep::AddLearner(replica),
                ConfChangeType::RemoveNode => MemberStep::Remove(replica),
            })
        };
        Self { steps: change.get_changes().iter().filter_map(step).collect() }
    }
}

/// A membership with the index of the change that led to it, as a snapshot carries it.
pub(super) fn encode_with_index(membership: &Membership, index: RaftIndex) -> Bytes {
    let mut bytes = Vec::new();
    put_u64(&mut bytes, index.0);
    membership.encode(&mut bytes);
    bytes.into()
}

/// Reads what [`encode_with_index`] wrote.
pub(super) fn decode_with_index(bytes: &[u8]) -> Option<(Membership, RaftIndex)> {
    let mut reader = Reader(bytes);
    let index = RaftIndex(reader.u64()?);
    let membership = Membership::decode(&mut reader)?;
    (reader.0.is_empty() && membership.is_sound()).then_some((membership, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;
    use proptest::prelude::*;

    fn steps() -> impl Strategy<Value = MembershipChange> {
        let step = (1..6u32, 0..3u8).prop_map(|(node, kind)| {
            let replica = ReplicaId::new(NodeId(node), node);
            match kind {
                0 => MemberStep::AddVoter(replica),
                1 => MemberStep::AddLearner(replica),
                _ => MemberStep::Remove(replica),
            }
        });
        proptest::collection::vec(step, 0..4).prop_map(|steps| MembershipChange { steps })
    }

    proptest! {
        /// The engine and we agree on what a change leads to, and on which are refused.
        #[test]
        fn changes_lead_where_the_engine_says(changes in proptest::collection::vec(steps(), 1..12)) {
            let me = ReplicaId::new(NodeId(1), 1);
            let store = raft::storage::MemStorage::new_with_conf_state((vec![me.raw()], vec![]));
            let config = raft::Config { id: me.raw(), ..raft::Config::default() };
            let logger = slog::Logger::root(slog::Discard, slog::o!());
            let mut engine = raft::RawNode::new(&config, store, &logger).expect("starts");
            let mut ours = Membership::lone(me);
            for change in changes {
                let theirs = engine.apply_conf_change(&change.to_engine());
                match ours.after(&change) {
                    Ok(after) => {
                        prop_assert!(after.is_sound());
                        let theirs = Membership::of_engine(&theirs.expect("the engine takes it"));
                        prop_assert_eq!(&theirs, &after);
                        let mut bytes = Vec::new();
                        after.encode(&mut bytes);
                        prop_assert_eq!(Membership::decode(&mut Reader(&bytes)), Some(after.clone()));
                        ours = after;
                    }
                    Err(error) => prop_assert!(theirs.is_err(), "{:?} {:?}", error, change),
                }
                prop_assert_eq!(MembershipChange::decode(&change.encode()), Some(change.clone()));
                prop_assert_eq!(MembershipChange::of_engine(&change.to_engine()), change);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(change) = MembershipChange::decode(&bytes) {
                prop_assert_eq!(change.encode(), bytes.clone());
            }
            if let Some((membership, index)) = decode_with_index(&bytes) {
                prop_assert_eq!(encode_with_index(&membership, index), bytes);
            }
        }
    }
}
