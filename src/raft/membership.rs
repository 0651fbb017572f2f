//! Who belongs to a group: what Raft calls its configuration, in our words.

use crate::model::ReplicaId;
use std::collections::BTreeSet;

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

impl Membership {
    /// A group of one.
    pub fn lone(voter: ReplicaId) -> Self {
        Self { voters: BTreeSet::from([voter]), ..Self::default() }
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
        *self == Self::lone(replica)
    }
}
