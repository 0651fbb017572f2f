//! What a replica tells of itself, without changing anything.

use super::effects::{ReplicaProgress, Role};
use super::membership::Membership;
use super::partition::PartitionRaft;
use super::term_runs::TermRuns;
use crate::model::{RaftIndex, ReplicaId, Term};
use raft::{ProgressState, StateRole};
use std::cell::Ref;

impl PartitionRaft {
    /// The terms of all entries, for a rebuild in place.
    pub fn terms(&self) -> TermRuns {
        self.storage.0.borrow().terms.clone()
    }

    /// The part that this replica plays now.
    pub fn role(&self) -> Role {
        match self.engine.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.membership().is_voter(self.config.me) => Role::Follower,
            StateRole::Follower => Role::Learner,
        }
    }

    /// The current term.
    pub fn term(&self) -> Term {
        Term(self.engine.raft.term)
    }

    /// Who leads in this term, as far as it is known.
    pub fn leader(&self) -> Option<ReplicaId> {
        ReplicaId::from_raw(self.engine.raft.leader_id)
    }

    /// What is known to be committed; it may not be durable here yet.
    pub fn commit(&self) -> RaftIndex {
        RaftIndex(self.engine.raft.raft_log.committed)
    }

    /// The newest entry, durable or not.
    pub fn last(&self) -> RaftIndex {
        RaftIndex(self.engine.raft.raft_log.last_index())
    }

    /// The members as of the last change applied.
    pub fn membership(&self) -> Ref<'_, Membership> {
        Ref::map(self.storage.0.borrow(), |state| &state.hard.membership)
    }

    /// What a leader knows of the members, itself included, in their order; empty where this
    /// replica does not lead.
    pub fn progress(&self) -> Vec<ReplicaProgress> {
        if self.role() != Role::Leader {
            return Vec::new();
        }
        let membership = self.membership();
        let told = self.engine.raft.prs().iter().filter_map(|(id, progress)| {
            let replica = ReplicaId::from_raw(*id)?;
            Some(ReplicaProgress {
                replica,
                is_learner: !membership.is_voter(replica),
                matched: RaftIndex(progress.matched),
                is_active: replica == self.config.me || progress.recent_active,
                needs_snapshot: progress.state == ProgressState::Snapshot,
            })
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|progress| progress.replica);
        told
    }

    /// Whether the next tick makes it stand for election.
    pub fn is_about_to_stand(&self) -> bool {
        let raft = &self.engine.raft;
        let is_due = raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        is_due && raft.state != StateRole::Leader && raft.promotable()
    }

    /// Messages that were dropped since the last look, because too many waited for the disk.
    pub fn take_dropped(&mut self) -> u64 {
        self.outbox.take_dropped()
    }

    /// Whether a leader has nothing left to tell anybody: all is committed, all members have it and
    /// know. Its group may sleep, once all have been heard of lately; the engine forgets at each election
    /// timeout who was, so that this is another question.
    pub fn is_idle(&self) -> bool {
        self.is_idle_without(|_| false)
    }

    /// As [`PartitionRaft::is_idle`], whatever the replicas lack that are known to be away.
    pub fn is_idle_without(&self, is_away: impl Fn(ReplicaId) -> bool) -> bool {
        let raft = &self.engine.raft;
        let last = raft.raft_log.last_index();
        let knows = |(id, progress): (&u64, &raft::Progress)| {
            *id == raft.id
                || (progress.matched == last && progress.committed_index == last)
                || ReplicaId::from_raw(*id).is_some_and(&is_away)
        };
        self.role() == Role::Leader
            && raft.raft_log.committed == last
            && raft.lead_transferee.is_none()
            && raft.pending_read_count() == 0
            && !self.membership().is_joint()
            && !self.outbox.has_outstanding()
            && !self.engine.has_ready()
            && raft.prs().iter().all(knows)
    }
}
