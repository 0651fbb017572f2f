//! A small world: replicas with disks that are slow and forget what was not flushed, a network
//! that loses, doubles and reorders, and a checker that sees everything. All of it from one seed.

use super::*;
use crate::model::{Chance, PeerEntry, PeerPayload};
use ::bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is wrong with the world on purpose: the checker must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// All is reported as durable when it is not.
    EarlyReports,
    /// The vote is left out of the vote file.
    ForgottenVotes,
    /// Each replica begins with other voters.
    OwnFounders,
}

#[derive(Clone)]
enum Write {
    Hard(HardState),
    Start(LogStart),
    Entry(RaftIndex, Term, PeerPayload),
    Done(u64),
}

/// What survives a crash.
#[derive(Default)]
struct Disk {
    hard: Option<HardState>,
    /// The entry before the first one.
    before: (u64, u64),
    log: VecDeque<(u64, PeerPayload)>,
}

impl Disk {
    fn last(&self) -> u64 {
        self.before.0 + self.log.len() as u64
    }

    fn entry(&self, index: u64) -> Option<&(u64, PeerPayload)> {
        self.log.get(usize::try_from(index.checked_sub(self.before.0 + 1)?).ok()?)
    }

    fn terms(&self) -> TermRuns {
        let mut runs: Vec<(RaftIndex, Term)> = Vec::new();
        for (index, (term, _)) in (self.before.0 + 1..).zip(&self.log) {
            if runs.last().is_none_or(|run| run.1.0 != *term) {
                runs.push((RaftIndex(index), Term(*term)));
            }
        }
        TermRuns::recovered(runs, RaftIndex(self.last())).after(Term(self.before.1))
    }

    fn write(&mut self, write: Write, sabotage: Sabotage) -> Option<u64> {
        match write {
            Write::Hard(mut hard) => {
                if sabotage == Sabotage::ForgottenVotes {
                    let known = self.hard.as_ref().map_or((Term(0), None), |h| (h.term, h.vote));
                    (hard.term, hard.vote) = known;
                }
                self.hard = Some(hard);
            }
            Write::Start(start) => {
                self.before = (start.index.0, start.term.0);
                self.log.clear();
            }
            Write::Entry(index, term, payload) => {
                assert!(index.0 > self.before.0 && index.0 <= self.last() + 1, "no gap in a log");
                self.log.truncate(usize::try_from(index.0 - self.before.0 - 1).expect("short"));
                self.log.push_back((term.0, payload));
            }
            Write::Done(number) => return Some(number),
        }
        None
    }
}

struct Node {
    raft: Option<PartitionRaft>,
    disk: Disk,
    queue: VecDeque<Write>,
    payloads: BTreeMap<(u64, u64), PeerPayload>,
    proposed: BTreeMap<u64, PeerPayload>,
    applied: u64,
    starts: u64,
    /// The highest term that it spoke in.
    spoke: u64,
    reads: BTreeMap<u64, u64>,
}

pub struct World {
    random: Chance,
    sabotage: Sabotage,
    nodes: BTreeMap<ReplicaId, Node>,
    net: Vec<PeerMessage>,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    pub loss_percent: u64,
    values: u64,
    wanted: Vec<ReplicaId>,
    /// The voters that the group begins with.
    founders: Vec<ReplicaId>,
    /// What the checker knows.
    leaders: BTreeMap<u64, ReplicaId>,
    votes: BTreeMap<(ReplicaId, u64), ReplicaId>,
    committed: BTreeMap<u64, (u64, Vec<u8>)>,
    pub counts: Counts,
}

/// What happened, so that a test can say that its world was not an idle one.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub leaders: u64,
    pub committed: u64,
    pub crashes: u64,
    pub installs: u64,
    pub memberships: u64,
    pub joint: u64,
    pub reads: u64,
}

fn shown(payload: &PeerPayload) -> Vec<u8> {
    match payload {
        PeerPayload::Data(groups) => groups.concat(),
        PeerPayload::Internal(bytes) => [&[0xff], &bytes[..]].concat(),
        PeerPayload::Stored => panic!("a log holds payloads"),
    }
}

impl World {
    /// A group that begins with the first `founders` of `nodes`; not all of them start at once.
    pub fn new(seed: u64, nodes: u32, founders: u32, sabotage: Sabotage) -> Self {
        let wanted: Vec<ReplicaId> = (1..=nodes).map(replica).collect();
        let node = || Node {
            raft: None,
            disk: Disk::default(),
            queue: VecDeque::new(),
            payloads: BTreeMap::new(),
            proposed: BTreeMap::new(),
            applied: 0,
            starts: 0,
            spoke: 0,
            reads: BTreeMap::new(),
        };
        let mut world = Self {
            random: Chance::new(seed),
            sabotage,
            nodes: wanted.iter().map(|id| (*id, node())).collect(),
            net: Vec::new(),
            cut: BTreeSet::new(),
            loss_percent: 2,
            values: 0,
            wanted: wanted.clone(),
            founders: (1..=founders).map(replica).collect(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            committed: BTreeMap::new(),
            counts: Counts::default(),
        };
        for id in wanted {
            if world.below(4) > 0 {
                world.start(id);
            }
        }
        world
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn any(&mut self) -> ReplicaId {
        let ids: Vec<ReplicaId> = self.nodes.keys().copied().collect();
        ids[self.below(ids.len() as u64) as usize]
    }

    fn node(&mut self, id: ReplicaId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this world")
    }

    fn start(&mut self, id: ReplicaId) {
        let founders = self.founders.clone();
        let sabotage = self.sabotage;
        let node = self.node(id);
        if node.raft.is_some() {
            return;
        }
        node.starts += 1;
        let founders = match sabotage {
            Sabotage::OwnFounders if node.disk.hard.is_none() => vec![id],
            _ if founders.len() == 1 && id != founders[0] => Vec::new(), // its log tells
            _ => founders,
        };
        let terms = node.disk.terms();
        let recovered = Recovered { hard_state: node.disk.hard.clone(), terms };
        let config = RaftConfig { seed: id.raw() ^ node.starts << 17, me: id, ..config(1) };
        let raft = PartitionRaft::start(config, &founders, recovered, Rc::new(Three), &silent());
        let raft = raft.expect("what was written can be started from");
        assert!(raft.term().0 >= node.spoke, "{id} forgot term {}: {raft:?}", node.spoke);
        node.payloads.clear();
        for (index, (term, payload)) in (node.disk.before.0 + 1..).zip(&node.disk.log) {
            node.payloads.insert((index, *term), payload.clone());
        }
        node.applied = node.disk.before.0;
        node.raft = Some(raft);
        self.carry_out(id);
    }

    /// What was written is kept, and some of what was about to be.
    fn crash(&mut self, id: ReplicaId) {
        let sabotage = self.sabotage;
        let some = self.below(self.nodes[&id].queue.len() as u64 + 1);
        let node = self.node(id);
        let flushed: Vec<Write> = node.queue.drain(..).take(some as usize).collect();
        flushed.into_iter().for_each(|write| {
            node.disk.write(write, sabotage);
        });
        (node.raft, node.proposed) = (None, BTreeMap::new());
        node.reads.clear();
        self.counts.crashes += 1;
    }

    /// The disk of a node gets so many things done.
    fn flush(&mut self, id: ReplicaId, count: usize) {
        let sabotage = self.sabotage;
        for _ in 0..count {
            let node = self.node(id);
            let Some(write) = node.queue.pop_front() else { break };
            if let Some(number) = node.disk.write(write, sabotage)
                && let Some(raft) = &mut node.raft
            {
                raft.persisted(number);
                self.carry_out(id);
            }
        }
    }

    fn carry_out(&mut self, id: ReplicaId) {
        while let Some(effects) = self.node(id).raft.as_mut().and_then(PartitionRaft::step) {
            let early = self.sabotage == Sabotage::EarlyReports;
            let node = self.node(id);
            let writes = effects.hard_state.is_some()
                || effects.install.is_some()
                || !effects.entries.is_empty();
            node.queue.extend(effects.hard_state.map(Write::Hard));
            if let Some(start) = effects.install {
                node.applied = start.index.0;
                node.queue.push_back(Write::Start(start));
                self.counts.installs += 1;
            }
            let node = self.nodes.get_mut(&id).expect("a node");
            for NewEntry { term, index, content } in effects.entries {
                let payload = match content {
                    Content::Internal(bytes) => PeerPayload::Internal(bytes),
                    Content::Data(_) => match node.proposed.remove(&index.0) {
                        Some(payload) => payload,
                        None => node.payloads[&(index.0, term.0)].clone(),
                    },
                };
                node.payloads.insert((index.0, term.0), payload.clone());
                node.queue.push_back(Write::Entry(index, term, payload));
            }
            if writes {
                node.queue.push_back(Write::Done(effects.number));
                if early {
                    node.raft.as_mut().expect("runs").persisted(effects.number);
                }
            }
            for read in effects.reads {
                let asked = node.reads.remove(&read.read);
                assert!(asked.is_none_or(|seen| read.index.0 >= seen), "a stale read at {id}");
                self.counts.reads += 1;
            }
            if effects.membership_changed {
                self.counts.memberships += 1;
                let joint = node.raft.as_ref().is_some_and(|raft| raft.membership().is_joint());
                self.counts.joint += u64::from(joint);
            }
            if let Some(index) = effects.committed {
                self.apply(id, index.0);
            }
            effects.messages.into_iter().for_each(|message| self.send(id, message));
            self.check_leader(id);
        }
    }

    /// Everybody applies the same, in order, and only what is on the own disk.
    fn apply(&mut self, id: ReplicaId, upto: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        assert!(upto > node.applied, "{id} applies {upto} again after {}", node.applied);
        for index in node.applied + 1..=upto {
            let Some((term, payload)) = node.disk.entry(index) else {
                assert!(self.sabotage != Sabotage::None, "{id} applies {index} off its disk");
                panic!("caught: applied before it was durable");
            };
            let entry = (*term, shown(payload));
            let known = self.committed.entry(index).or_insert_with(|| entry.clone());
            assert_eq!(*known, entry, "{id} applies something else at {index}");
        }
        node.applied = upto;
        self.counts.committed = self.committed.len() as u64;
    }

    /// One leader a term, which has all that was ever committed.
    fn check_leader(&mut self, id: ReplicaId) {
        let node = &self.nodes[&id];
        let Some(raft) = node.raft.as_ref().filter(|raft| raft.role() == Role::Leader) else {
            return;
        };
        let term = raft.term().0;
        match self.leaders.insert(term, id) {
            Some(other) => assert_eq!(other, id, "two leaders in term {term}"),
            None => {
                self.counts.leaders += 1;
                let terms = raft.terms();
                let kept = self.committed.range(terms.first().0..);
                for (index, (was, _)) in kept {
                    let has = terms.term(RaftIndex(*index));
                    assert_eq!(has, Some(Term(*was)), "leader {id} of {term} lost {index}");
                }
            }
        }
    }

    fn send(&mut self, from: ReplicaId, mut message: PeerMessage) {
        let node = self.nodes.get_mut(&from).expect("a node");
        if !matches!(message.kind, PeerKind::PreVote | PeerKind::PreVoteAnswer) {
            node.spoke = node.spoke.max(message.term.0);
        }
        if message.kind == PeerKind::VoteAnswer && !message.reject {
            let before = self.votes.insert((from, message.term.0), message.to);
            let same = before.is_none_or(|to| to == message.to);
            assert!(same, "{from} voted twice in {}", message.term);
        }
        for PeerEntry { index, term, payload } in &mut message.entries {
            let kept = node.payloads.get(&(index.0, term.0));
            *payload = kept.expect("what is sent was proposed or received").clone();
        }
        if let Some(snapshot) = &mut message.snapshot {
            snapshot.state = Bytes::copy_from_slice(&snapshot.index.0.to_be_bytes());
        }
        let lost = self.below(100) < self.loss_percent;
        if lost || self.cut.contains(&(from, message.to)) || self.net.len() > 2000 {
            if self.below(4) == 0
                && let Some(raft) = &mut self.node(from).raft
            {
                raft.unreachable(message.to);
            }
            return;
        }
        self.net.push(message);
    }

    fn deliver(&mut self, at: usize, twice: bool) {
        let message = if twice { self.net[at].clone() } else { self.net.swap_remove(at) };
        let to = message.to;
        if self.cut.contains(&(message.from, to)) {
            return;
        }
        let node = self.node(to);
        let Some(raft) = &mut node.raft else { return };
        for PeerEntry { index, term, payload } in &message.entries {
            node.payloads.insert((index.0, term.0), payload.clone());
        }
        match raft.receive(&message) {
            Ok(())
            | Err(RaftError::Peer { fault: PeerFault::Stranger | PeerFault::Unasked, .. }) => {}
            Err(error) => panic!("{to} refuses {message:?}: {error}"),
        }
        self.carry_out(to);
    }

    fn propose(&mut self, id: ReplicaId) {
        self.values += 1;
        let value = Bytes::copy_from_slice(&self.values.to_be_bytes());
        let node = self.node(id);
        let Some(raft) = &mut node.raft else { return };
        if let Ok(index) = raft.propose(Handle { records: 1, bytes: 8 }) {
            let payload = PeerPayload::Data(vec![value]);
            node.payloads.insert((index.0, raft.term().0), payload.clone());
            node.proposed.insert(index.0, payload);
        } else {
            assert!(node.proposed.is_empty() || raft.role() == Role::Leader);
        }
        self.carry_out(id);
    }

    fn read(&mut self, id: ReplicaId) {
        let newest = self.committed.last_key_value().map_or(0, |(index, _)| *index);
        self.values += 1;
        let number = self.values;
        let node = self.node(id);
        let Some(raft) = &mut node.raft else { return };
        node.reads.insert(number, newest);
        raft.read_index(number);
        self.carry_out(id);
    }

    fn reconcile(&mut self, id: ReplicaId) {
        let wanted = self.wanted.clone();
        let node = self.node(id);
        let Some(raft) = node.raft.as_mut().filter(|raft| raft.role() == Role::Leader) else {
            return;
        };
        let members = raft.membership().clone();
        match reconcile(id, &members, &raft.progress(), raft.last(), &wanted) {
            Some(Step::Change(change)) => drop(raft.change(&change)),
            Some(Step::Transfer(to)) => raft.transfer(to),
            None => {}
        }
        self.carry_out(id);
    }

    fn compact(&mut self, id: ReplicaId) {
        let by = self.below(20);
        let node = self.node(id);
        let begins = |write: &Write| matches!(write, Write::Start(_));
        let Some(raft) = &mut node.raft else { return };
        let upto = node.applied.saturating_sub(by);
        if upto <= node.disk.before.0 || node.queue.iter().any(begins) {
            return;
        }
        raft.compact(RaftIndex(upto + 1));
        while node.disk.before.0 < upto {
            let (term, _) = node.disk.log.pop_front().expect("applied is on the disk");
            node.disk.before = (node.disk.before.0 + 1, term);
        }
    }

    fn tick(&mut self, id: ReplicaId) {
        if let Some(raft) = &mut self.node(id).raft {
            raft.tick();
        }
        self.carry_out(id);
    }

    /// Something happens.
    pub fn act(&mut self) {
        let id = self.any();
        match self.below(1000) {
            0..=349 => self.tick(id),
            350..=749 if !self.net.is_empty() => {
                let at = self.below(self.net.len() as u64) as usize;
                let twice = self.below(20) == 0;
                self.deliver(at, twice);
            }
            750..=869 => {
                let count = self.below(6) as usize;
                self.flush(id, count);
            }
            870..=919 => self.propose(id),
            920..=934 => self.read(id),
            935..=954 => self.reconcile(id),
            955..=964 => self.compact(id),
            965..=969 => self.crash(id),
            970..=984 => self.start(id),
            985..=987 => {
                let other = self.any();
                self.cut.extend([(id, other), (other, id)]);
            }
            988..=992 => self.cut.clear(),
            993..=994 => {
                let alone = id;
                let others: Vec<ReplicaId> = self.nodes.keys().copied().collect();
                self.cut.extend(others.iter().flat_map(|o| [(alone, *o), (*o, alone)]));
            }
            995..=996 => {
                let to = self.any();
                if let Some(raft) = &mut self.node(id).raft {
                    raft.transfer(to);
                }
                self.carry_out(id);
            }
            997..=998 => {
                let ids: Vec<ReplicaId> = self.nodes.keys().copied().collect();
                let mask = self.below(1 << ids.len());
                let some = ids.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
                let some: Vec<ReplicaId> = some.map(|(_, id)| *id).collect();
                self.wanted = if some.is_empty() { ids } else { some };
            }
            _ => {
                let ahead = self.below(4) as usize;
                let at_once = self.below(2) == 0;
                let mut order: Vec<ReplicaId> = self.nodes.keys().copied().collect();
                order.rotate_left(ahead);
                match &mut self.node(id).raft {
                    Some(raft) if ahead == 3 => raft.campaign().expect("the engine takes it"),
                    Some(raft) => raft.suspect_leader(order, at_once),
                    None => {}
                }
                self.carry_out(id);
            }
        }
    }

    /// The leader dies. Each of the others notices, if `is_noticed`, after so many messages that it
    /// had sent; then all goes its way, a tick at a time. How many until somebody leads again.
    pub fn bereave(&mut self, is_noticed: bool, late: usize) -> usize {
        let leads = |node: &&ReplicaId| {
            self.nodes[*node].raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader)
        };
        let dead = *self.nodes.keys().find(leads).expect("a group at rest has a leader");
        (0..late).for_each(|_| self.propose(dead));
        self.crash(dead);
        let left: Vec<ReplicaId> = self.nodes.keys().copied().filter(|id| *id != dead).collect();
        for id in left.iter().filter(|_| is_noticed) {
            self.node(*id).raft.as_mut().expect("runs").suspect_leader(left.clone(), true);
            self.carry_out(*id);
        }
        for ticks in 0..100 {
            for _ in 0..4 {
                (0..self.net.len()).for_each(|_| self.deliver(0, false));
                left.iter().for_each(|id| self.flush(*id, usize::MAX));
            }
            let leads = |id: &ReplicaId| {
                self.nodes[id].raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader)
            };
            if left.iter().any(leads) {
                return ticks;
            }
            left.iter().for_each(|id| self.tick(*id));
        }
        panic!("nobody leads after 100 ticks");
    }

    /// All faults end: the group comes to rest as it is wanted, with everything that was committed.
    pub fn heal(&mut self) {
        (self.loss_percent, self.cut) = (0, BTreeSet::new());
        let ids: Vec<ReplicaId> = self.nodes.keys().copied().collect();
        self.wanted.clone_from(&ids);
        for round in 0..3000 {
            for id in &ids {
                self.start(*id);
                self.tick(*id);
                while !self.net.is_empty() {
                    self.deliver(0, false);
                }
                self.flush(*id, usize::MAX);
                if round % 5 == 0 {
                    self.reconcile(*id);
                }
            }
            if round > 20 && self.is_at_rest() {
                return self.check_rest();
            }
        }
        let shown: Vec<_> = self
            .nodes
            .values()
            .map(|n| {
                (
                    &n.raft,
                    n.raft
                        .as_ref()
                        .map(|r| (r.commit(), r.last(), r.membership().clone(), r.progress())),
                )
            })
            .collect();
        panic!("the group does not come to rest: {shown:#?}");
    }

    fn is_at_rest(&self) -> bool {
        let leads = |node: &&Node| node.raft.as_ref().is_some_and(PartitionRaft::is_idle);
        let Some(leader) = self.nodes.values().find(leads).and_then(|node| node.raft.as_ref())
        else {
            return false;
        };
        let all: BTreeSet<ReplicaId> = self.nodes.keys().copied().collect();
        leader.membership().voters == all
            && self
                .nodes
                .values()
                .all(|n| n.raft.as_ref().map(|r| r.commit()) == Some(leader.last()))
    }

    fn check_rest(&self) {
        for (id, node) in &self.nodes {
            for (index, (term, payload)) in self.committed.range(node.disk.before.0 + 1..) {
                let kept = node.disk.entry(*index).map(|(term, held)| (*term, shown(held)));
                assert_eq!(kept, Some((*term, payload.clone())), "{id} lost {index}");
            }
        }
    }
}
