//! The part that a replica plays in its group: telling it, ticking, talking to peers, and, as its
//! leader, making the group what it is to be.

use super::{Desire, PeerFound, PeerLost, RaftActor, ReadIndex, Told, Transfer};
use crate::actors::partition::{LeaderHint, ProduceError, ReplicaProgress, ReplicaRole};
use crate::actors::peers::Outgoing;
use crate::actors::published::{Phase, ReplicaView};
use crate::log::producers::snapshot_state;
use crate::model::{NodeId, Offset, PeerKind, PeerMessage, ReplicaId, Term};
use crate::raft::{
    Membership, PartitionRaft, ReplicaProgress as ReplicaStanding, Role, Step, reconcile,
};
use actix::prelude::*;
use slog::{debug, info, warn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Ticks between two looks at what the group is to be.
const RECONCILE_TICKS: u64 = 4;
/// Election timeouts without anything to do before a group grows quiet.
const QUIET_AFTER_ELECTIONS: usize = 3;
/// How long the one that is preferred is fit to lead before leadership goes back to it (unit: election
/// timeouts): one that has just come back reads its log, or is about to go again.
const HAND_BACK_AFTER_ELECTIONS: u64 = 2;

/// Followers learn from the next entry what is committed, or after so long from a heartbeat.
const TELL_COMMIT_AFTER: Duration = Duration::from_millis(1);

/// What was told of a replica's part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    role: Option<Role>,
    term: Term,
    leader: Option<ReplicaId>,
    members: Arc<Membership>,
}

impl RaftActor {
    /// Whether nobody else belongs to the group.
    pub(super) fn is_alone(&self) -> bool {
        let members = self.raft.as_ref().map(PartitionRaft::membership);
        members.is_some_and(|members| members.is_alone(self.plan.me))
    }

    pub(super) fn not_leader(&self) -> ProduceError {
        let leader = self.raft.as_ref().and_then(PartitionRaft::leader);
        let message = match leader {
            Some(leader) => format!("this replica does not lead the partition; {leader} does"),
            None => "the partition has no leader now; one is elected within a second or two".into(),
        };
        let term = self.raft.as_ref().map_or(Term(0), PartitionRaft::term);
        let leader = leader.map(|leader| LeaderHint {
            node: leader.node(),
            rpc_addr: String::new(), // the front ends know the addresses
            term,
        });
        ProduceError::NotLeader { message, leader }
    }

    /// What recovery found is committed as far as is known.
    pub(super) fn recovered(&mut self, next_offset: Offset) {
        let end = match (&self.raft, &self.view) {
            _ if self.is_alone() => Some(next_offset),
            (Some(raft), Some(view)) => view.end_of(raft.commit()).or(Some(view.start())),
            _ => None,
        };
        if let Some(end) = end {
            self.plan.published.commit(end);
        }
        self.tell_role();
    }

    /// Tells the part that this replica plays, where it is another than before.
    pub(super) fn tell_role(&mut self) {
        let Some(raft) = &self.raft else { return };
        let (role, term, leader) = (raft.role(), raft.term(), raft.leader());
        if leader.is_some() {
            self.standing = None;
        }
        let is_same = self.shown.role == Some(role)
            && (self.shown.term, self.shown.leader) == (term, leader)
            && *self.shown.members == *raft.membership();
        if is_same {
            return;
        }
        let members = match *self.shown.members == *raft.membership() {
            true => Arc::clone(&self.shown.members),
            false => Arc::new(raft.membership().clone()),
        };
        let was_leader = self.shown.role == Some(Role::Leader);
        if role == Role::Leader && !was_leader {
            self.heir = None;
        }
        if role == Role::Leader && !(was_leader && self.shown.term == term) {
            self.sequences.lead(raft.last());
        }
        if self.shown.role != Some(role) || self.shown.leader != leader {
            debug!(self.seat.logger(), "plays its part"; "role" => ?role, "term" => term.0,
                "leader" => leader.map(|leader| leader.to_string()));
        }
        self.shown = Shown { role: Some(role), term, leader, members: Arc::clone(&members) };
        let (group, me) = (self.plan.group, self.plan.me);
        if role == Role::Leader {
            self.plan.leadership.leads_here(group, term, me, Arc::clone(&members));
        } else {
            if was_leader {
                self.step_down(leader);
                // Within its term nobody else tells that it leads no more.
                self.plan.leadership.leads_no_more(group, me);
            }
            self.plan.leadership.learn(group, term, leader);
        }
        self.tell_progress();
        if self.full.is_none() {
            self.plan.published.enter(Phase::Serving);
        }
    }

    /// Publishes how far each member is.
    fn tell_progress(&self) {
        let Some(raft) = &self.raft else { return };
        let last = raft.last();
        let progress = raft.progress().into_iter().map(|p| ReplicaProgress {
            replica: p.replica,
            is_learner: p.is_learner,
            matched: p.matched,
            lag: last.0.saturating_sub(p.matched.0),
            is_active: p.is_active,
        });
        let view = ReplicaView {
            role: role_of(raft.role()),
            leader: raft.leader(),
            members: Arc::clone(&self.shown.members),
            progress: progress.collect(),
        };
        self.plan.published.replica_is(raft.term(), view);
    }

    /// What was proposed here may or may not be stored by the next leader.
    fn step_down(&mut self, leader: Option<ReplicaId>) {
        info!(self.seat.logger(), "leads no more";
            "leader" => leader.map_or("nobody yet".into(), |leader| leader.to_string()));
        let open = ProduceError::Unknown {
            message: "leadership was lost before the records were acknowledged; they may be \
                stored: send them again with the same producer id, or read the log's end before"
                .into(),
        };
        let mut told: Told = self.proposals.give_up_in_flight(&open);
        told.extend(self.proposals.refuse_pending(&self.not_leader()));
        self.sequences.forget_under_way();
        self.on_record(told);
    }

    /// Hands messages to those who carry them. What they cannot take is lost, as on any network.
    pub(super) fn send(&mut self, messages: Vec<PeerMessage>) {
        let mut by_node: BTreeMap<NodeId, Vec<Outgoing>> = BTreeMap::new();
        for message in messages {
            let to = message.to.node();
            if message.kind == PeerKind::Append {
                self.commit_news.told(message.commit);
            }
            if let Some(outgoing) = self.fill(message) {
                by_node.entry(to).or_default().push(outgoing);
            }
        }
        for (node, messages) in by_node {
            let replica = messages[0].message.to;
            if !self.plan.post.post(node, messages)
                && let Some(raft) = &mut self.raft
            {
                raft.unreachable(replica);
            }
        }
    }

    /// Gives a message what its entries hold, as far as that is in memory.
    fn fill(&self, mut message: PeerMessage) -> Option<Outgoing> {
        if let Some(snapshot) = &mut message.snapshot {
            let view = self.view.as_ref()?;
            // Retention may have moved on since: the leader makes another one then.
            let offset = view.end_of(snapshot.index)?;
            snapshot.state = snapshot_state(offset, self.sequences.committed());
        }
        let tail = self.tail.borrow();
        let mut is_whole = true;
        for entry in &mut message.entries {
            is_whole &= tail.fill(entry);
        }
        let log = if is_whole { None } else { self.view.clone() };
        Some(Outgoing { message, log })
    }

    /// Sees to it that followers know of what is committed though no entry follows. One that does is
    /// as good, and costs no message of its own: under load that is half of them.
    pub(super) fn tell_commit_soon(&mut self, context: &mut Context<Self>) {
        if self.shown.role != Some(Role::Leader)
            || self.is_alone()
            || !self.commit_news.wants_look(self.applied, self.proposals.is_idle())
        {
            return;
        }
        context.run_later(TELL_COMMIT_AFTER, |actor, _| {
            if actor.commit_news.look(actor.applied, actor.proposals.is_idle())
                && let Some(raft) = &mut actor.raft
            {
                raft.ping();
                actor.drive();
            }
        });
    }

    /// What all peers have need not be kept for them.
    pub(super) fn settle(&mut self) {
        let Some(raft) = &self.raft else { return };
        let behind = self.last_kept.next();
        let needed = match raft.role() {
            Role::Leader => {
                let active = raft.progress().into_iter().filter(|progress| progress.is_active);
                active.map(|progress| progress.matched.next()).min().unwrap_or(behind)
            }
            _ => behind,
        };
        self.tail.borrow_mut().settle(self.last_kept, needed);
    }

    /// Ticks while there is somebody to wait for, and something to happen.
    pub(super) fn keep_time(&mut self, context: &mut Context<Self>) {
        let has_work =
            !self.is_alone() || self.plan.wanted.load().iter().any(|one| *one != self.plan.me);
        let is_needed = self.raft.is_some() && has_work && !self.is_quiet;
        match (self.ticking, is_needed) {
            (None, true) => {
                let every = self.plan.options.tick;
                self.ticking = Some(context.run_interval(every, Self::tick));
            }
            (Some(handle), false) => {
                context.cancel_future(handle);
                self.ticking = None;
            }
            _ => {}
        }
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        let now = Instant::now();
        if is_made_up(self.ticked, now, self.plan.options.tick) {
            return;
        }
        self.ticked = Some(now);
        self.ticks += 1;
        // Without room for entries it must not stand for election.
        let goes_on = self.full.is_none() && self.may_stand();
        let Some(raft) = &mut self.raft else { return };
        if goes_on {
            raft.tick();
        }
        if let Some(read) = self.reads.tick() {
            raft.read_index(read);
        }
        if self.ticks.is_multiple_of(RECONCILE_TICKS) {
            self.reconcile();
        }
        self.drive();
        if self.ticks.is_multiple_of(RECONCILE_TICKS) && self.shown.role == Some(Role::Leader) {
            self.tell_progress();
        }
        self.grow_quiet();
        self.keep_time(context);
        if !self.proposals.is_empty() {
            self.queue_pump(context); // handing over may have come to nothing
        }
    }

    /// Whether time goes on for this replica: it stops before an election while too many others of
    /// this node stand for one.
    fn may_stand(&mut self) -> bool {
        let patience = 2 * self.plan.options.election_ticks as u64;
        self.standing.take_if(|(_, since)| self.ticks.saturating_sub(*since) > patience);
        let is_about_to = self.standing.is_none()
            && self.raft.as_ref().is_some_and(PartitionRaft::is_about_to_stand);
        !is_about_to || self.takes_stand()
    }

    /// Takes the right to stand for election, unless too many of this node have it.
    fn takes_stand(&mut self) -> bool {
        let standing = self.plan.leadership.stand(self.plan.group);
        self.standing = standing.map(|standing| (standing, self.ticks));
        self.standing.is_some()
    }

    /// A leader with nothing to do, whose living followers have everything, stops ticking and tells
    /// them to: idle groups cost nothing. (CockroachDB's quiescence.) A connection that is lost wakes
    /// those whose leader was behind it, one that is there again the leaders of those behind it that
    /// lack something; every message wakes whom it reaches.
    fn grow_quiet(&mut self) {
        let Some(raft) = &self.raft else { return };
        let is_away = |replica: ReplicaId| !self.plan.post.reaches(replica.node());
        let is_idle = raft.is_idle_without(is_away)
            && self.proposals.is_idle()
            && self.reads.is_empty()
            && self.heir.is_none()
            && self.appending.is_none()
            && self.full.is_none();
        let is_same = is_idle && std::mem::replace(&mut self.idle_at, raft.last()) == raft.last();
        self.idle_ticks = if is_same { self.idle_ticks + 1 } else { 0 };
        if self.idle_ticks < QUIET_AFTER_ELECTIONS * self.plan.options.election_ticks {
            return;
        }
        let others = raft.progress().into_iter();
        let others = others.filter(|p| p.replica != self.plan.me && !is_away(p.replica));
        let others: Vec<_> = others.collect();
        if !others.iter().all(|other| other.is_active) {
            return; // whoever is not told goes on, and would wake the rest
        }
        let (group, me, term) = (self.plan.group, self.plan.me, raft.term());
        let (last, commit) = (raft.last(), raft.commit());
        let messages = others.iter().map(|progress| PeerMessage {
            index: last,
            commit,
            ..PeerMessage::new(group, PeerKind::Quiesce, me, progress.replica, term)
        });
        let messages = messages.collect();
        self.is_quiet = true;
        self.send(messages);
    }

    /// The leader says that nothing is going on. Whoever does not see it so goes on ticking, and
    /// wakes the leader when it misses it.
    pub(super) fn quiesce(&mut self, message: &PeerMessage) {
        let Some(raft) = &self.raft else { return };
        let agrees = raft.leader() == Some(message.from)
            && raft.term() == message.term
            && (raft.last(), raft.commit()) == (message.index, message.commit)
            && raft.role() != Role::Leader
            && self.appending.is_none();
        self.is_quiet = agrees;
    }

    /// Something happens.
    pub(super) fn wake(&mut self) {
        if !std::mem::take(&mut self.is_quiet) {
            return;
        }
        self.idle_ticks = 0;
        if let Some(raft) = &mut self.raft {
            raft.ping();
        }
    }

    /// Whether it is time to hand over to the one that is preferred, which is fit to lead.
    fn may_hand_back(&mut self, to: ReplicaId) -> bool {
        let least = HAND_BACK_AFTER_ELECTIONS * self.plan.options.election_ticks as u64;
        let is_to_stay = self.plan.wanted.load().contains(&self.plan.me);
        let known = self.heir.filter(|(heir, _)| *heir == to);
        let (_, since) = *self.heir.insert(known.unwrap_or((to, self.ticks)));
        let is_time = !is_to_stay || self.ticks.saturating_sub(since) >= least;
        if is_time {
            self.heir = None; // should nothing come of it, there is as much time before the next try
        }
        is_time
    }

    /// Who is to stand for election, in turn, when the leader at `lost` is gone: the order is that in
    /// which they are preferred. Without room for entries this replica must not.
    fn candidates(&self, lost: NodeId) -> Vec<ReplicaId> {
        let Some(raft) = &self.raft else { return Vec::new() };
        let (members, wanted) = (raft.membership(), self.plan.wanted.load());
        let rest = members.voters.iter().filter(|voter| !wanted.contains(voter));
        let may_stand = |one: &&ReplicaId| {
            let is_able = **one != self.plan.me || self.full.is_none();
            one.node() != lost && members.is_voter(**one) && is_able
        };
        wanted.iter().chain(rest).filter(may_stand).copied().collect()
    }

    /// As the leader: takes the next step towards what the group is to be.
    fn reconcile(&mut self) {
        let wanted = self.plan.wanted.load();
        let Some(raft) = &mut self.raft else { return };
        if raft.role() != Role::Leader || wanted.is_empty() {
            return;
        }
        let (progress, last) = (raft.progress(), raft.last());
        let members = raft.membership().clone();
        let step = reconcile(self.plan.me, &members, &progress, last, &wanted);
        if let Some(Step::Transfer(to)) = step
            && !self.may_hand_back(to)
        {
            return;
        }
        let Some(raft) = &mut self.raft else { return };
        match step {
            None => {}
            Some(Step::Change(change)) => match raft.change(&change) {
                Ok(()) => info!(self.seat.logger(), "changes its members"; "change" => ?change),
                // One change at a time: the next tick tries again.
                Err(error) => debug!(self.seat.logger(), "no change now"; "reason" => %error),
            },
            Some(Step::Transfer(to)) => {
                info!(self.seat.logger(), "hands leadership over"; "to" => %to);
                raft.transfer(to);
            }
        }
    }

    /// Answers reads whose entry is committed here.
    pub(super) fn answer_reads(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        self.reads.answer(self.applied, self.plan.published.high_watermark());
    }
}

/// Whether a tick only makes up for one that was missed. After a pause of this thread the timer fires
/// for all of it at once, before anything is heard that came meanwhile: a leader would take its own
/// silence for that of its followers, and a follower for its leader's.
fn is_made_up(last: Option<Instant>, now: Instant, tick: Duration) -> bool {
    last.is_some_and(|last| now.duration_since(last) < tick / 2)
}

fn role_of(role: Role) -> ReplicaRole {
    match role {
        Role::Leader => ReplicaRole::Leader,
        Role::Follower => ReplicaRole::Follower,
        Role::Candidate => ReplicaRole::Candidate,
        Role::Learner => ReplicaRole::Learner,
    }
}

impl actix::Handler<PeerLost> for RaftActor {
    type Result = ();

    fn handle(&mut self, PeerLost { node }: PeerLost, context: &mut Self::Context) {
        self.heir = self.heir.filter(|(heir, _)| heir.node() != node);
        let candidates = self.candidates(node);
        // A node that held hundreds of leaders leaves hundreds of groups to stand here at once.
        let at_once = candidates.first() == Some(&self.plan.me) && self.takes_stand();
        let Some(raft) = &mut self.raft else { return };
        if raft.leader().is_some_and(|leader| leader.node() == node) {
            // It may be dead: only who ticks notices.
            self.is_quiet = false;
            debug!(self.seat.logger(), "the leader's node cannot be reached"; "node" => %node,
                "candidates" => ?candidates);
            raft.suspect_leader(candidates, at_once);
        }
        let members = raft.membership().clone();
        let all = members.voters.iter().chain(&members.outgoing).chain(&members.learners);
        let there: Vec<ReplicaId> = all.copied().filter(|r| r.node() == node).collect();
        for replica in there {
            raft.unreachable(replica);
        }
        self.drive();
        self.keep_time(context);
    }
}

impl actix::Handler<PeerFound> for RaftActor {
    type Result = ();

    fn handle(&mut self, PeerFound { node }: PeerFound, context: &mut Self::Context) {
        let Some(raft) = &self.raft else { return };
        let lacks = |p: &ReplicaStanding| p.replica.node() == node && p.matched < raft.last();
        if raft.progress().iter().any(lacks) {
            self.wake();
            self.drive();
            self.keep_time(context);
        }
    }
}

impl actix::Handler<Desire> for RaftActor {
    type Result = ();

    fn handle(&mut self, Desire: Desire, context: &mut Self::Context) {
        self.heir = None;
        self.wake();
        self.reconcile();
        self.drive();
        self.keep_time(context);
    }
}

impl actix::Handler<Transfer> for RaftActor {
    type Result = ();

    fn handle(&mut self, Transfer { to }: Transfer, context: &mut Self::Context) {
        self.wake();
        self.keep_time(context);
        let Some(raft) = &mut self.raft else { return };
        if raft.role() != Role::Leader {
            return;
        }
        let (me, last) = (self.plan.me, raft.last());
        let able = |p: &&ReplicaStanding| p.is_active && !p.is_learner;
        let progress = raft.progress();
        let others = progress.iter().filter(able).filter(|p| p.replica != me);
        let nearest = || others.max_by_key(|p| p.matched).map(|p| p.replica);
        match to.or_else(nearest) {
            Some(to) => {
                info!(self.seat.logger(), "hands leadership over"; "to" => %to, "last" => last.0);
                raft.transfer(to);
                self.drive();
            }
            None => warn!(self.seat.logger(), "nobody can take leadership over"),
        }
    }
}

impl actix::Handler<ReadIndex> for RaftActor {
    type Result = ();

    fn handle(&mut self, ReadIndex { answer }: ReadIndex, context: &mut Self::Context) {
        if self.is_alone() {
            // Nobody else can have acknowledged anything. A reader that has gone is no error.
            let _ = answer.send(Ok(self.plan.published.high_watermark()));
            return;
        }
        let patience = self.plan.options.election_ticks * 4;
        let Some(read) = self.reads.take(answer, patience) else { return };
        self.wake();
        if let Some(raft) = &mut self.raft {
            raft.read_index(read);
        }
        self.drive();
        self.keep_time(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_the_thread_counts_as_one_tick_and_a_late_one_as_one() {
        let (began, tick) = (Instant::now(), Duration::from_millis(50));
        let fired = [0, 50, 100, 600, 600, 600, 601, 650, 720, 750].map(Duration::from_millis);
        let mut last = None;
        let mut counted = Vec::new();
        for at in fired {
            if !is_made_up(last, began + at, tick) {
                last = Some(began + at);
                counted.push(at.as_millis());
            }
        }
        assert_eq!(counted, [0, 50, 100, 600, 650, 720, 750]);
    }
}
