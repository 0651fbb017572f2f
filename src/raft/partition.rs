//! The state machine around the engine: proposals, messages, ticks and persistence reports in,
//! effects out.
//!
//! Order that must hold, and that the tests hold it to:
//!
//! - A vote and the entries of a step are durable before anything that depends on them leaves.
//! - Persist, then commit, then apply, then answer. Commit moves only inside `persisted`.
//! - `advance` and `advance_append` of the engine are never called: they count entries as
//!   persisted that are not.
//! - The engine is asked again after each `persisted`: only then does it tell what is committed.
//! - A hard state that differs in its commit index alone is never written.
//! - A change of the members is in the hard state before its entry is in the log.

use super::effects::{EntrySizes, Handle, RaftConfig, RaftError, Recovered, Role};
use super::hard_state::HardState;
use super::membership::{ChangeError, MemberStep, Membership, MembershipChange};
use super::messages::{self, PeerFault, View};
use super::outbox::Outbox;
use super::storage::{State, Storage};
use super::suspicion::Suspicion;
use crate::model::{PeerKind, PeerMessage, RaftIndex, ReplicaId, Term};
use bytes::Bytes;
use raft::prelude::Message;
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};
use slog::Logger;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Reads that wait for word from a majority; more are dropped, and asked again by their callers.
const READS_MAX: usize = 1024;

/// One replica of one Raft group. Not `Send`: it lives inside its actor.
pub struct PartitionRaft {
    pub(super) engine: RawNode<Storage>,
    pub(super) storage: Storage,
    pub(super) config: RaftConfig,
    pub(super) outbox: Outbox,
    /// The vote file has changes pending that are not: it is written before anything else is.
    pub(super) rewrite: bool,
    /// The newest step that replaces entries, or the whole log. Reports of earlier ones do not reach
    /// the engine: it could take what they wrote for what is written now.
    pub(super) replaced: u64,
    /// The newest step that brought entries, or a start of the log.
    pub(super) appended: u64,
    /// The newest report that the engine was given.
    reported: u64,
    /// The step that begins the log anew, until it is durable, and where.
    pub(super) installing: Option<(u64, RaftIndex)>,
    /// Elections tried: each waits for another time.
    pub(super) attempts: u64,
    pub(super) suspicion: Option<Suspicion>,
    /// Ticks since a replica was told where the log begins, while it has not answered.
    snapshot_waits: BTreeMap<u64, usize>,
}

impl std::fmt::Debug for PartitionRaft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raft = &self.engine.raft;
        let (group, me) = (self.config.group, self.config.me);
        write!(f, "PartitionRaft({group} {me}, term {}, {:?})", raft.term, raft.state)
    }
}

impl PartitionRaft {
    /// Brings a replica back from what its disk holds.
    ///
    /// `founders` are the voters that the group begins with: nothing in its log tells of them, so they
    /// are the same at each of its replicas, those that join later too. None at a replica that a
    /// founder's log will tell. They count as long as there is no vote file.
    ///
    /// A group whose only voter is this replica takes all that its log holds as committed: recovery
    /// has made it durable, and one replica is the majority.
    ///
    /// # Errors
    /// [`RaftError::Engine`] when the state found cannot be a Raft state.
    pub fn start(
        config: RaftConfig,
        founders: &[ReplicaId],
        recovered: Recovered,
        sizes: Rc<dyn EntrySizes>,
        logger: &Logger,
    ) -> Result<Self, RaftError> {
        let Recovered { hard_state, terms } = recovered;
        let mut hard = hard_state
            .unwrap_or_else(|| HardState::bootstrap(Membership::of(founders.iter().copied())));
        let (before, last) = (terms.first().0 - 1, terms.last());
        let told = hard.pending.len();
        hard.pending.retain(|pending| {
            let is_there = terms.term(pending.index) == Some(pending.term);
            pending.index > hard.membership_index && (pending.index.0 < before || is_there)
        });
        // A change that is still pending here and gone from the log was applied: only then it goes.
        while hard.pending.first().is_some_and(|pending| pending.index.0 <= before) {
            let pending = hard.pending.remove(0);
            let change = MembershipChange::decode(&pending.change).unwrap_or_default();
            hard.membership = hard.membership.after(&change).unwrap_or(hard.membership);
            hard.membership_index = pending.index;
        }
        let rewrite = hard.pending.len() < told;
        // A leader proposes a change only when the one before is applied.
        let settled = hard.pending.iter().rev().nth(1).map_or(0, |pending| pending.index.0);
        let mut commit = hard.commit.0.max(settled).clamp(before, last.0);
        if hard.membership.is_only_voter(config.me) {
            // Up to the first change it is the majority; from there on others may be needed.
            commit = hard.pending.first().map_or(last.0, |pending| commit.max(pending.index.0));
        }
        hard.commit = RaftIndex(commit);
        let unapplied = hard.pending.first().map_or(u64::MAX, |pending| pending.index.0);
        let applied = commit.min(unapplied - 1);
        let last_term = terms.term(last).unwrap_or_default();
        if hard.term < last_term {
            // A vote file is written before the first entry of its term; should it be lost, the
            // log still bounds the term from below.
            (hard.term, hard.vote) = (last_term, None);
        }
        let storage = Storage(Rc::new(RefCell::new(State { terms, hard, sizes })));
        let engine = Config {
            id: config.me.raw(),
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.message_bytes_max,
            max_inflight_msgs: config.inflight_max,
            // The next entry tells followers what is committed, or the next heartbeat: under load that
            // is half of the messages.
            skip_bcast_commit: true,
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        };
        let engine = RawNode::new(&engine, storage.clone(), logger)?;
        let mut started = Self {
            engine,
            storage,
            config,
            outbox: Outbox::default(),
            rewrite,
            replaced: 0,
            appended: 0,
            reported: 0,
            installing: None,
            attempts: 0,
            suspicion: None,
            snapshot_waits: BTreeMap::new(),
        };
        started.draw_timeout();
        Ok(started)
    }

    /// Time goes on. A lone voter that leads does not notice.
    pub fn tick(&mut self) {
        if self.is_installing() {
            return;
        }
        let leads = self.role() == Role::Leader;
        if leads && self.membership().is_alone(self.config.me) {
            return;
        }
        if leads {
            self.retry_snapshots();
        } else if !self.may_win_now() {
            return;
        }
        self.hurry();
        if self.engine.tick() && !leads {
            self.attempts += 1;
        }
        self.draw_timeout();
    }

    /// Takes a message of another replica. What its data entries hold is not kept here: the caller
    /// does, by index and term, until the entries come back in [`super::Effects::entries`].
    ///
    /// # Errors
    /// [`RaftError::Peer`] when it makes no sense; it is then without effect.
    pub fn receive(&mut self, message: &PeerMessage) -> Result<(), RaftError> {
        let from = message.from;
        let fault = |fault| RaftError::Peer { from, fault };
        let mut made = self.check(message).map_err(fault)?;
        let leads = self.role() == Role::Leader;
        match message.kind {
            PeerKind::TransferLeader => {
                let to = message.context.as_ref().try_into().map(u64::from_be_bytes);
                let to = to.ok().and_then(ReplicaId::from_raw);
                let to = to.ok_or(fault(PeerFault::Field))?;
                // A follower does not pass it on: whoever wishes asks again.
                if leads {
                    self.transfer(to);
                }
                return Ok(());
            }
            PeerKind::PreVote if self.stands_instead_of(message) => return Ok(()),
            PeerKind::ReadIndex if !leads || !self.may_read() => return Ok(()),
            PeerKind::TimeoutNow if self.is_installing() || !self.may_win_now() => return Ok(()),
            PeerKind::VoteAnswer | PeerKind::PreVoteAnswer
                if !message.reject && self.role() == Role::Candidate && !self.is_settled() =>
            {
                // A vote is asked for when all that it stands on is durable.
                return Err(fault(PeerFault::Unasked));
            }
            PeerKind::AppendAnswer
                if message.reject && leads && self.corrects_a_stale_answer(&mut made) =>
            {
                return Ok(());
            }
            _ => {}
        }
        let taken = self.engine.step(made);
        self.draw_timeout();
        match taken {
            Err(raft::Error::StepPeerNotFound) => Err(fault(PeerFault::Stranger)),
            other => Ok(other?),
        }
    }

    fn check(&self, message: &PeerMessage) -> Result<Message, PeerFault> {
        let (raft, state) = (&self.engine.raft, self.storage.0.borrow());
        let term_of = |index| raft.raft_log.term(index).ok().filter(|term| *term > 0);
        messages::checked(
            message,
            &View {
                group: self.config.group,
                me: self.config.me,
                term: raft.term,
                is_leader: raft.state == StateRole::Leader,
                commit: raft.raft_log.committed,
                last: raft.raft_log.last_index(),
                membership: (&state.hard.membership, state.hard.membership_index),
                term_of: &term_of,
            },
        )
    }

    /// A "no" that was overtaken by a later "yes" says nothing any more, and the next entry to send
    /// stays above those that are known to be there.
    fn corrects_a_stale_answer(&self, answer: &mut Message) -> bool {
        let raft = &self.engine.raft;
        let Some(progress) = raft.prs().get(answer.from) else { return false };
        if answer.term != raft.term {
            return false;
        }
        let matched = progress.matched;
        if answer.reject_hint < matched {
            (answer.reject_hint, answer.log_term) = (matched, 0);
        }
        answer.index <= matched && matched > 0
    }

    /// Proposes an entry; answers the index that it gets. It shows up among the entries of the next
    /// step.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] and [`RaftError::HandingOver`] here.
    pub fn propose(&mut self, handle: Handle) -> Result<RaftIndex, RaftError> {
        self.check_leads()?;
        self.engine.propose(Vec::new(), handle.encode())?;
        Ok(self.last())
    }

    /// Proposes a change of the members. It holds once it is committed.
    ///
    /// # Errors
    /// As [`PartitionRaft::propose`], and [`RaftError::Change`] when it does not fit, or another
    /// one is under way; so it is at the very first change of a group, which writes its founder down:
    /// ask again when that is committed.
    pub fn change(&mut self, change: &MembershipChange) -> Result<(), RaftError> {
        self.check_leads()?;
        if self.engine.raft.has_pending_conf() || self.membership().is_joint() {
            return Err(ChangeError::Joint.into());
        }
        self.membership().after(change)?;
        let founder = MembershipChange::one(MemberStep::AddVoter(self.config.me));
        let founded = self.storage.0.borrow().hard.membership_index > RaftIndex(0);
        if !founded && self.membership().is_only_voter(self.config.me) && *change != founder {
            // Nothing in the log tells of the first member: whoever reads it from its beginning would
            // take the next one for the only voter.
            self.engine.propose_conf_change(Vec::new(), founder.to_engine())?;
            return Err(ChangeError::Founding.into());
        }
        Ok(self.engine.propose_conf_change(Vec::new(), change.to_engine())?)
    }

    /// Whether it hands leadership over: then it takes no entries, for an election timeout at most.
    pub fn is_handing_over(&self) -> bool {
        self.role() == Role::Leader && self.engine.raft.lead_transferee.is_some()
    }

    fn check_leads(&self) -> Result<(), RaftError> {
        match self.role() {
            Role::Leader if self.is_handing_over() => Err(RaftError::HandingOver),
            Role::Leader => Ok(()),
            _ => Err(RaftError::NotLeader),
        }
    }

    /// Hands leadership to a voter, as soon as it holds all entries. A follower passes the wish on
    /// to its leader. Nothing comes of it when the voter does not answer within an election timeout.
    pub fn transfer(&mut self, to: ReplicaId) {
        if self.role() == Role::Leader {
            if self.membership().is_voter(to) {
                self.engine.transfer_leader(to.raw());
            }
            return;
        }
        let Some(leader) = self.leader() else { return };
        let (group, me) = (self.config.group, self.config.me);
        let kind = PeerKind::TransferLeader;
        let mut wish = PeerMessage::new(group, kind, me, leader, Term(0));
        wish.context = Bytes::copy_from_slice(&to.raw().to_be_bytes());
        self.outbox.send_now(wish);
    }

    /// Stands for election, if this replica votes. A lone voter whose log is durable wins at once.
    ///
    /// # Errors
    /// [`RaftError::Engine`] when the engine refuses.
    pub fn campaign(&mut self) -> Result<(), RaftError> {
        if self.is_installing() || !self.may_win_now() || !self.engine.raft.promotable() {
            return Ok(());
        }
        self.attempts += 1;
        self.engine.campaign()?;
        self.draw_timeout();
        Ok(())
    }

    /// The next tick makes it stand for election.
    pub fn stand_at_next_tick(&mut self) {
        self.engine.raft.election_elapsed = self.engine.raft.randomized_election_timeout();
    }

    /// Asks up to where a read must see; answered in [`super::Effects::reads`], or not at all when the
    /// leader changes or a message is lost: the caller asks again, under another number.
    pub fn read_index(&mut self, read: u64) {
        if self.may_read() {
            self.engine.read_index(self.read_name(read).to_vec());
        }
    }

    fn may_read(&self) -> bool {
        self.engine.raft.pending_read_count() < READS_MAX
    }

    /// Names a read, and whose it is: of this replica, since this start.
    pub(super) fn read_name(&self, read: u64) -> [u8; 24] {
        let mut name = [0; 24];
        let parts = [self.config.me.raw(), self.config.seed, read];
        for (part, at) in parts.iter().zip(name.chunks_exact_mut(8)) {
            at.copy_from_slice(&part.to_be_bytes());
        }
        name
    }

    /// As a leader: tells everybody at once that it is there.
    pub fn ping(&mut self) {
        self.engine.ping();
    }

    /// What was sent to a replica did not get there.
    pub fn unreachable(&mut self, replica: ReplicaId) {
        let progress = self.engine.raft.prs().get(replica.raw());
        if progress.is_some_and(|progress| progress.state == ProgressState::Snapshot) {
            self.engine.report_snapshot(replica.raw(), SnapshotStatus::Failure);
        }
        self.engine.report_unreachable(replica.raw());
    }

    /// A lost snapshot is sent again: nothing else would tell that it is lost.
    fn retry_snapshots(&mut self) {
        let prs = self.engine.raft.prs();
        let waiting = |id: &u64| prs.get(*id).is_some_and(|p| p.state == ProgressState::Snapshot);
        self.snapshot_waits.retain(|id, _| waiting(id));
        for (id, _) in prs.iter().filter(|(id, _)| waiting(id)) {
            *self.snapshot_waits.entry(*id).or_default() += 1;
        }
        let patience = 2 * self.config.election_ticks;
        let overdue = self.snapshot_waits.iter().filter(|(_, ticks)| **ticks >= patience);
        for id in overdue.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.snapshot_waits.remove(&id);
            self.engine.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// Reports that hard state, start of the log and entries of all steps up to `number` are
    /// durable. Cumulative: never before every earlier step is.
    pub fn persisted(&mut self, number: u64) {
        self.outbox.persisted(number);
        self.report();
    }

    /// Tells the engine how far things are durable.
    pub(super) fn report(&mut self) {
        let number = self.outbox.durable();
        if number <= self.reported || number < self.replaced {
            return;
        }
        self.reported = number;
        self.engine.on_persist_ready(number);
        if let Some((_, index)) = self.installing.take_if(|(step, _)| *step <= number) {
            self.engine.advance_apply_to(index.0);
        }
    }

    /// Forgets entries before `first`, which retention removed from the log. Those that are not
    /// applied yet stay.
    pub fn compact(&mut self, first: RaftIndex) {
        if !self.is_installing() {
            let applied = self.engine.raft.raft_log.applied;
            let terms = &mut self.storage.0.borrow_mut().terms;
            terms.drop_before(first.min(RaftIndex(applied + 1)).min(terms.last().next()));
        }
    }

    fn is_installing(&self) -> bool {
        self.installing.is_some() || self.engine.snap().is_some()
    }

    /// All entries are durable, and the engine knows.
    fn is_settled(&self) -> bool {
        let log = &self.engine.raft.raft_log;
        log.unstable_entries().is_empty()
            && log.persisted == log.last_index()
            && self.appended <= self.reported
    }

    /// The only voter wins when it asks, and must not before its log is durable.
    fn may_win_now(&self) -> bool {
        !self.membership().is_only_voter(self.config.me) || self.is_settled()
    }
}
