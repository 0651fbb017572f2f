//! How long a replica waits before it stands for election: a time by chance, or, where the connection
//! to the leader broke, only as long as it takes that others do not stand at the same time.
//!
//! Nothing of safety rests on it. Votes are asked for first (pre-vote), and whoever has not lost the
//! leader gives none, so a connection that broke without a reason disturbs nobody. Those who did lose
//! it stand one after the other, and of two who stand at once one gives way: else they split the votes
//! and wait for a timeout after all.

use super::effects::Role;
use super::partition::PartitionRaft;
use crate::model::{Chance, PeerKind, PeerMessage, RaftIndex, ReplicaId, Term};

/// Ticks between two replicas that stand: time for two round trips and a slow flush.
const APART_TICKS: usize = 3;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Suspicion {
    /// The term of the leader; in a later one it is over.
    term: u64,
    /// Who is to stand, one after the other.
    order: Vec<ReplicaId>,
    /// How many others are to stand before this replica.
    ahead: usize,
    /// Ticks until it is over: without a majority, haste is of no use.
    left: usize,
}

impl PartitionRaft {
    /// The connection to the leader broke. Releases this replica from its promise to elect nobody
    /// else for now. Those of `order` are to stand for election one after the other; if this replica is
    /// among them it does so when those before it had time to. The first does so `at_once`, or at the
    /// next tick.
    pub fn suspect_leader(&mut self, order: Vec<ReplicaId>, at_once: bool) {
        let election_ticks = self.config.election_ticks;
        let raft = &mut self.engine.raft;
        if raft.state != raft::StateRole::Follower || raft.leader_id == raft::INVALID_ID {
            return;
        }
        raft.election_elapsed = raft.election_elapsed.max(election_ticks);
        let Some(ahead) = order.iter().position(|one| *one == self.config.me) else { return };
        self.suspicion =
            Some(Suspicion { term: raft.term, order, ahead, left: 2 * election_ticks });
        self.draw_timeout();
        if ahead == 0 && at_once {
            self.stand_now();
        }
    }

    /// How long this replica waits before it stands. The engine draws from the thread's randomness; each
    /// try gets its own time from the seed.
    pub(super) fn draw_timeout(&mut self) {
        let parts = [self.config.me.raw(), self.engine.raft.term, self.attempts];
        let drawn =
            parts.iter().fold(self.config.seed, |seed, part| Chance::new(seed ^ part).next_u64());
        let ticks = self.config.election_ticks;
        let by_chance = usize::try_from(drawn % ticks as u64).expect("less than a count of ticks");
        let in_turn = self.suspicion().map(|s| (s.ahead * APART_TICKS).min(ticks - 1));
        self.engine.raft.set_randomized_election_timeout(ticks + in_turn.unwrap_or(by_chance));
    }

    fn suspicion(&self) -> Option<&Suspicion> {
        self.suspicion.as_ref().filter(|s| s.term == self.engine.raft.term && s.left > 0)
    }

    /// At each tick: what the suspect sent before it went counts for as long as a heartbeat does.
    pub(super) fn hurry(&mut self) {
        if self.suspicion().is_none() {
            self.suspicion = None;
        }
        let Some(suspicion) = &mut self.suspicion else { return };
        suspicion.left -= 1;
        let raft = &mut self.engine.raft;
        if raft.election_elapsed >= self.config.heartbeat_ticks {
            raft.election_elapsed = raft.election_elapsed.max(self.config.election_ticks);
        }
    }

    /// Whether somebody who asks for a vote gets no answer: two that stand at once would each win the
    /// other's consent, and then no majority. Who lacks entries that are here cannot win: this replica
    /// stands at once.
    pub(super) fn stands_instead_of(&mut self, asking: &PeerMessage) -> bool {
        let Some(suspicion) = self.suspicion().filter(|_| asking.kind == PeerKind::PreVote) else {
            return false;
        };
        let turn = suspicion.order.iter().position(|one| *one == asking.from);
        let is_before = turn.is_some_and(|turn| suspicion.ahead < turn);
        let log = &self.engine.raft.raft_log;
        let mine = (Term(log.last_term()), RaftIndex(log.last_index()));
        let theirs = (asking.log_term, asking.index);
        if theirs < mine {
            self.stand_now();
        }
        theirs < mine || theirs == mine && is_before
    }

    fn stand_now(&mut self) {
        if self.role() != Role::Leader {
            // The engine refuses what it cannot do now; the next tick that is due tries again.
            let _ = self.campaign();
        }
    }
}
