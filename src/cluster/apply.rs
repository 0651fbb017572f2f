//! What commands do to the catalogue: total, the same on every node, and harmless to repeat where
//! whoever asked cannot know whether it was done.

use super::catalogue::{
    Catalogue, GroupMembers, Node, NodeState, Placement, Replica, ReplicaState, Topic,
    TopicSettings,
};
use super::check::{self, NODES_MAX, PARTITIONS_MAX, REPLICAS_MAX};
use super::command::{Command, GroupNews, NodeSelf, Outcome, Rejection, RejectionKind};
use super::placement::Loads;
use super::record::PROTOCOL_MIN;
use crate::model::{FIRST_TOPIC, GroupId, NodeId, ReplicaId, Term, TopicId, TopicName};
use std::collections::BTreeSet;

/// Groups that one command tells of.
const NEWS_MAX: usize = 1024;
/// The protocol from which on the replicas of a new partition begin their group together.
const TOGETHER_SINCE: u32 = 2;
/// Replicas of the topic that every cluster begins with, as far as there are nodes.
const FIRST_REPLICATION: u32 = 3;

type Applied = Result<Outcome, Rejection>;

fn not_found(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionKind::NotFound, message)
}

fn not_now(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionKind::NotNow, message)
}

fn foreign(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionKind::Foreign, message)
}

fn exists(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionKind::Exists, message)
}

impl Catalogue {
    /// Carries out a command.
    ///
    /// # Errors
    /// [`Rejection`]: nothing is changed.
    pub fn apply(&mut self, command: &Command) -> Applied {
        self.apply_avoiding(command, &[])
    }

    /// As [`Catalogue::apply`]; new replicas go to absent nodes only where there are no others.
    ///
    /// # Errors
    /// [`Rejection`]: nothing is changed.
    pub fn apply_avoiding(&mut self, command: &Command, absent: &[NodeId]) -> Applied {
        if let Command::Found { cluster_id, node } = command {
            return self.found(cluster_id, node);
        }
        if !self.is_founded() {
            return Err(not_now("there is no cluster yet: its first node is still founding it"));
        }
        match command {
            Command::Found { .. } => unreachable!("answered above"),
            Command::Register(node) => self.register(node),
            Command::CreateTopic { name, partitions, replication_factor, settings } => {
                self.create_topic(name, (*partitions, *replication_factor), settings, absent)
            }
            Command::AlterTopic { name, partitions, replication_factor, settings } => {
                self.alter_topic(name, (*partitions, *replication_factor), settings, absent)
            }
            Command::DeleteTopic { name } => self.delete_topic(name),
            Command::AddReplica { group, node } => self.add_replica(*group, *node),
            Command::DropReplica { group, replica } => self.drop_replica(*group, *replica),
            Command::PreferLeader { group, replica } => self.prefer_leader(*group, *replica),
            Command::GroupIs { group, term, voters, learners } => {
                self.group_is(*group, *term, voters, learners)
            }
            Command::GroupsAre { groups } => self.groups_are(groups),
            Command::Leave { node } => self.leave(*node),
            Command::Remove { node } => self.remove(*node),
            Command::RaiseProtocol { protocol } => self.raise_protocol(*protocol),
            Command::Access(change) => self.access.apply(change).map(|()| Outcome::Done),
        }
    }

    fn found(&mut self, cluster_id: &str, node: &NodeSelf) -> Applied {
        let first = NodeId(1);
        if self.is_founded() {
            let is_again = self.cluster_id == cluster_id
                && self.nodes.get(&first).is_some_and(|known| known.uuid == node.uuid);
            return if is_again {
                Ok(Outcome::Node(first))
            } else {
                Err(foreign(format!(
                    "there is a cluster already ({}): start the node with --join to become a \
                     member",
                    self.cluster_id
                )))
            };
        }
        check::node(node)?;
        if cluster_id.is_empty() || cluster_id.len() > 64 {
            return Err(Rejection::invalid("a cluster's identity has 1 to 64 bytes"));
        }
        check::protocol(node, PROTOCOL_MIN)?;
        self.cluster_id = cluster_id.to_owned();
        self.protocol = node.protocol_max;
        self.nodes.insert(first, node_of(node, NodeState::Active));
        (self.last_topic, self.last_incarnation) = (1, ReplicaId::FIRST.incarnation());
        let replica = Replica { id: ReplicaId::FIRST, state: ReplicaState::Member };
        let topic = Topic {
            id: TopicId(1),
            replication_factor: FIRST_REPLICATION,
            settings: TopicSettings::default(),
            partitions: vec![Placement { replicas: vec![replica], ..Placement::default() }],
        };
        let name = TopicName::new(FIRST_TOPIC).expect("the first topic's name is valid");
        self.topics.insert(name, topic);
        Ok(Outcome::Node(first))
    }

    fn register(&mut self, node: &NodeSelf) -> Applied {
        check::node(node)?;
        check::protocol(node, self.protocol)?;
        if let Some((id, known)) = self.nodes.iter().find(|(_, known)| known.uuid == node.uuid)
            && known.state == NodeState::Removed
        {
            return Err(foreign(format!(
                "the node {id} of this directory (uuid {}) was removed from the cluster and does \
                 not come back: start it with an empty directory (--data-dir) to join as a new \
                 node",
                node.uuid
            )));
        }
        let others = self
            .nodes
            .iter()
            .filter(|(_, other)| other.state != NodeState::Removed && other.uuid != node.uuid);
        if let Some((id, other)) = others.into_iter().find(|(_, other)| other.name == node.name) {
            return Err(foreign(format!(
                "the name {name} belongs to node {id}, whose directory is another one (uuid \
                 {uuid}): a wiped directory is a new node: start it under another --node-name, or \
                 `duramen node replace {name}`",
                name = node.name,
                uuid = other.uuid
            )));
        }
        let known = self.nodes.iter().find(|(_, known)| known.uuid == node.uuid);
        let (id, state) = match known {
            Some((id, known)) => (*id, known.state),
            None if self.nodes.len() >= NODES_MAX => {
                return Err(not_now(format!(
                    "a cluster has at most {NODES_MAX} nodes in its life"
                )));
            }
            None => (self.next_node(), NodeState::Active),
        };
        self.nodes.insert(id, node_of(node, state));
        Ok(Outcome::Node(id))
    }

    fn next_node(&self) -> NodeId {
        NodeId(self.nodes.last_key_value().map_or(1, |(id, _)| id.0 + 1))
    }

    fn create_topic(
        &mut self,
        name: &TopicName,
        (partitions, replication_factor): (u32, u32),
        settings: &TopicSettings,
        absent: &[NodeId],
    ) -> Applied {
        if self.topics.contains_key(name) {
            return Err(exists(format!(
                "the topic {name} exists already: `duramen topic describe {name}` shows it"
            )));
        }
        check::replication(replication_factor)?;
        check::settings(settings, false)?;
        self.check_room(partitions)?;
        let id = TopicId(self.last_topic.checked_add(1).ok_or_else(spent)?);
        let topic =
            Topic { id, replication_factor, settings: settings.clone(), partitions: Vec::new() };
        let placed = self.place(&topic, partitions, absent)?;
        self.last_topic = id.0;
        self.topics.insert(name.clone(), Topic { partitions: placed, ..topic });
        Ok(Outcome::Done)
    }

    fn alter_topic(
        &mut self,
        name: &TopicName,
        (partitions, replication_factor): (Option<u32>, Option<u32>),
        settings: &TopicSettings,
        absent: &[NodeId],
    ) -> Applied {
        let Some(topic) = self.topics.get(name) else { return Err(unknown_topic(name)) };
        let has = topic.partitions.len() as u32;
        let wanted = partitions.unwrap_or(has);
        if wanted < has {
            return Err(Rejection::invalid(format!(
                "the topic {name} has {has} partitions, and partitions are never taken away: give \
                 {has} or more"
            )));
        }
        if let Some(factor) = replication_factor {
            check::replication(factor)?;
        }
        check::settings(settings, true)?;
        let mut topic = topic.clone();
        topic.replication_factor = replication_factor.unwrap_or(topic.replication_factor);
        for (key, value) in &settings.0 {
            if value.is_empty() {
                topic.settings.0.remove(key);
            } else {
                topic.settings.0.insert(key.clone(), value.clone());
            }
        }
        if wanted > has {
            self.check_room(wanted - has)?;
            let placed = self.place(&topic, wanted - has, absent)?;
            topic.partitions.extend(placed);
        }
        self.topics.insert(name.clone(), topic);
        Ok(Outcome::Done)
    }

    fn delete_topic(&mut self, name: &TopicName) -> Applied {
        if name.as_str() == FIRST_TOPIC {
            return Err(Rejection::invalid(format!(
                "the topic {FIRST_TOPIC} is the one that log.v1 serves: it stays"
            )));
        }
        self.topics.remove(name).map(|_| Outcome::Done).ok_or_else(|| unknown_topic(name))
    }

    /// Whether so many more partitions fit in: they are bounded over all topics, as each costs every
    /// node a little for ever.
    ///
    /// # Errors
    /// They do not, or are none.
    pub fn check_room(&self, more: u32) -> Result<(), Rejection> {
        let has: u32 = self.topics.values().map(|topic| topic.partitions.len() as u32).sum();
        if more == 0 {
            return Err(Rejection::invalid("a topic has at least one partition"));
        }
        if more > PARTITIONS_MAX.saturating_sub(has) {
            return Err(Rejection::invalid(format!(
                "{more} more partitions are too many: there are {has}, and at most \
                 {PARTITIONS_MAX} in all topics together; `duramen topic delete` makes room"
            )));
        }
        Ok(())
    }

    /// Gives new partitions their replicas, which begin their group together: a group that has no
    /// data yet has nobody to bring up. (Before protocol 2 the first one began alone.)
    fn place(
        &mut self,
        topic: &Topic,
        partitions: u32,
        absent: &[NodeId],
    ) -> Result<Vec<Placement>, Rejection> {
        let mut loads = Loads::of(self);
        let needed = partitions.checked_mul(topic.replication_factor).ok_or_else(spent)?;
        let last = self.last_incarnation;
        last.checked_add(needed).ok_or_else(spent)?;
        let present: BTreeSet<_> =
            self.active_nodes().map(|(id, _)| id).filter(|id| !absent.contains(id)).collect();
        let all: BTreeSet<_> = self.active_nodes().map(|(id, _)| id).collect();
        let nodes = if present.is_empty() { &all } else { &present };
        if nodes.is_empty() {
            return Err(not_now("no node takes replicas: all of them are leaving"));
        }
        let begin_together = self.protocol >= TOGETHER_SINCE;
        let mut placed = Vec::new();
        for _ in 0..partitions {
            let mut placement = Placement::default();
            while (placement.replicas.len() as u32) < topic.replication_factor {
                let is_first = placement.replicas.is_empty();
                let Some(node) = loads.choose(self, &placement, nodes, is_first) else { break };
                let begins = is_first || begin_together;
                let state = if begins { ReplicaState::Member } else { ReplicaState::Joining };
                self.last_incarnation += 1;
                let id = ReplicaId::new(node, self.last_incarnation);
                placement.replicas.push(Replica { id, state });
                loads.add(node, is_first);
            }
            if begin_together {
                placement.founders = placement.wanted();
            }
            placed.push(placement);
        }
        Ok(placed)
    }

    fn placement_mut(&mut self, raw: u64) -> Result<(GroupId, &mut Placement), Rejection> {
        let unknown = || not_found(format!("there is no partition with the group number {raw}"));
        let group = GroupId::from_raw(raw).ok_or_else(unknown)?;
        let (id, partition) = group.partition().ok_or_else(unknown)?;
        let topic = self.topics.values_mut().find(|topic| topic.id == id).ok_or_else(unknown)?;
        let placement = topic.partitions.get_mut(partition as usize).ok_or_else(unknown)?;
        Ok((group, placement))
    }

    fn add_replica(&mut self, group: u64, node: NodeId) -> Applied {
        self.expect_node(node)?;
        if self.nodes.get(&node).is_none_or(|known| known.state != NodeState::Active) {
            return Err(not_now(format!("node {node} is leaving and takes no replicas")));
        }
        let incarnation = self.last_incarnation.checked_add(1).ok_or_else(spent)?;
        let (group, placement) = self.placement_mut(group)?;
        if placement.on(node).is_some() {
            return Err(exists(format!("node {node} has a replica of partition {group} already")));
        }
        if placement.replicas.len() >= REPLICAS_MAX {
            return Err(not_now(format!("partition {group} has {REPLICAS_MAX} replicas already")));
        }
        let id = ReplicaId::new(node, incarnation);
        placement.replicas.push(Replica { id, state: ReplicaState::Joining });
        self.last_incarnation = incarnation;
        Ok(Outcome::Replica(id))
    }

    fn drop_replica(&mut self, group: u64, replica: ReplicaId) -> Applied {
        let (group, placement) = self.placement_mut(group)?;
        // Only a member that votes can carry the group on.
        let goes_on = placement
            .staying()
            .any(|other| other.id != replica && other.state == ReplicaState::Member);
        let found = placement.replicas.iter_mut().find(|known| known.id == replica);
        let known = found
            .ok_or_else(|| not_found(format!("partition {group} has no replica {replica}")))?;
        if known.state != ReplicaState::Leaving && !goes_on {
            return Err(not_now(format!(
                "{replica} is the last member of partition {group}: add another one first"
            )));
        }
        known.state = ReplicaState::Leaving;
        Ok(Outcome::Replica(replica))
    }

    fn prefer_leader(&mut self, group: u64, replica: ReplicaId) -> Applied {
        let (group, placement) = self.placement_mut(group)?;
        let place = placement
            .replicas
            .iter()
            .position(|known| known.id == replica && known.state == ReplicaState::Member);
        let place =
            place.ok_or_else(|| not_found(format!("partition {group} has no member {replica}")))?;
        let first = placement.replicas.remove(place);
        placement.replicas.insert(0, first);
        Ok(Outcome::Done)
    }

    fn group_is(
        &mut self,
        group: u64,
        term: Term,
        voters: &[ReplicaId],
        learners: &[ReplicaId],
    ) -> Applied {
        let all = || voters.iter().chain(learners);
        let is_sound = all().count() <= 4 * REPLICAS_MAX && !voters.is_empty();
        if !is_sound || all().any(|replica| ReplicaId::from_raw(replica.raw()).is_none()) {
            return Err(Rejection::invalid("the members of the group are not valid"));
        }
        if group == GroupId::CONTROLLER.raw() {
            if term >= self.controller.term {
                let (voters, learners) = (voters.to_vec(), learners.to_vec());
                self.controller = GroupMembers { term, voters, learners };
            }
            return Ok(Outcome::Done);
        }
        let (_, placement) = self.placement_mut(group)?;
        if term >= placement.term {
            *placement = placement.told(term, voters, learners);
        }
        Ok(Outcome::Done)
    }

    fn groups_are(&mut self, groups: &[GroupNews]) -> Applied {
        if groups.len() > NEWS_MAX {
            let message = format!("at most {NEWS_MAX} groups are told of at once");
            return Err(Rejection::invalid(message));
        }
        for GroupNews { group, term, voters, learners } in groups {
            // One that is gone meanwhile has no news.
            let _ = self.group_is(*group, *term, voters, learners);
        }
        Ok(Outcome::Done)
    }

    fn expect_node(&self, node: NodeId) -> Result<&Node, Rejection> {
        self.nodes.get(&node).filter(|known| known.state != NodeState::Removed).ok_or_else(|| {
            not_found(format!("there is no node {node}: `duramen node list` shows all"))
        })
    }

    fn leave(&mut self, node: NodeId) -> Applied {
        self.expect_node(node)?;
        if !self.active_nodes().any(|(other, _)| other != node) {
            return Err(not_now(format!(
                "node {node} is the last one that takes replicas: start another one with --join \
                 first"
            )));
        }
        if let Some(known) = self.nodes.get_mut(&node) {
            known.state = NodeState::Leaving;
        }
        Ok(Outcome::Node(node))
    }

    fn remove(&mut self, node: NodeId) -> Applied {
        if self.nodes.get(&node).is_some_and(|known| known.state == NodeState::Removed) {
            return Ok(Outcome::Node(node));
        }
        self.expect_node(node)?;
        if !self.active_nodes().any(|(other, _)| other != node) {
            return Err(not_now(format!("node {node} is the last one that takes replicas")));
        }
        let stranded = self.partitions().find(|(_, _, _, placement)| {
            let is_member = |replica: &&Replica| replica.state == ReplicaState::Member;
            let mut members = placement.replicas.iter().filter(is_member).peekable();
            members.peek().is_some() && members.all(|member| member.id.node() == node)
        });
        if let Some((group, ..)) = stranded {
            let name = self.name_of(group);
            return Err(not_now(format!(
                "all that is known to be in partition {name} is on node {node}: bring the node \
                 back until `duramen cluster status` shows another member, or delete the topic"
            )));
        }
        if let Some(known) = self.nodes.get_mut(&node) {
            known.state = NodeState::Removed;
        }
        let placements = self.topics.values_mut().flat_map(|topic| &mut topic.partitions);
        for replica in placements.flat_map(|placement| &mut placement.replicas) {
            if replica.id.node() == node {
                replica.state = ReplicaState::Leaving;
            }
        }
        Ok(Outcome::Node(node))
    }

    fn raise_protocol(&mut self, protocol: u32) -> Applied {
        let members = self.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
        if let Some((id, node)) = members.into_iter().find(|(_, node)| node.protocol_max < protocol)
        {
            return Err(not_now(format!(
                "node {id} (version {}) speaks no protocol beyond {}: upgrade it first",
                node.version, node.protocol_max
            )));
        }
        self.protocol = self.protocol.max(protocol);
        Ok(Outcome::Done)
    }

    /// What cannot be in a catalogue, where it is in this one.
    pub fn fault(&self) -> Option<String> {
        if self.nodes.keys().any(|id| id.0 == 0) || self.nodes.len() > NODES_MAX {
            return Some("the nodes' numbers are not possible".into());
        }
        if let Err(error) = self.access.policy.check() {
            return Some(error.to_string());
        }
        let mut topics = BTreeSet::new();
        let mut replicas = BTreeSet::new();
        for topic in self.topics.values() {
            if topic.id.0 == 0 || topic.id.0 > self.last_topic || !topics.insert(topic.id) {
                return Some(format!("the number {} of a topic is not possible", topic.id.0));
            }
            for placement in &topic.partitions {
                let mut nodes = BTreeSet::new();
                for Replica { id, .. } in &placement.replicas {
                    let is_possible = ReplicaId::from_raw(id.raw()).is_some()
                        && id.incarnation() <= self.last_incarnation
                        && self.nodes.contains_key(&id.node())
                        && nodes.insert(id.node())
                        && replicas.insert(*id);
                    if !is_possible {
                        return Some(format!("the replica {id} is not possible"));
                    }
                }
            }
        }
        let total: usize = self.topics.values().map(|topic| topic.partitions.len()).sum();
        (total > PARTITIONS_MAX as usize).then(|| format!("{total} partitions are too many"))
    }
}

impl Placement {
    /// As it is after the group's leader told of its members: who votes is a member, who was to go
    /// and is gone is forgotten.
    pub fn told(&self, term: Term, voters: &[ReplicaId], learners: &[ReplicaId]) -> Self {
        let is_gone = |replica: &Replica| {
            replica.state == ReplicaState::Leaving
                && !voters.contains(&replica.id)
                && !learners.contains(&replica.id)
        };
        let replicas = self.replicas.iter().filter(|replica| !is_gone(replica));
        let replicas = replicas.map(|replica| match replica.state {
            ReplicaState::Joining if voters.contains(&replica.id) => {
                Replica { state: ReplicaState::Member, ..*replica }
            }
            _ => *replica,
        });
        Self { replicas: replicas.collect(), term, founders: self.founders.clone() }
    }
}

fn unknown_topic(name: &TopicName) -> Rejection {
    not_found(format!(
        "there is no topic {name}: `duramen topic list` shows all, `duramen topic create {name}` \
         makes it"
    ))
}

fn spent() -> Rejection {
    not_now("the cluster has given out all numbers that there are")
}

fn node_of(node: &NodeSelf, state: NodeState) -> Node {
    Node {
        uuid: node.uuid.clone(),
        name: node.name.clone(),
        rpc_addr: node.rpc_addr.clone(),
        gossip_addr: node.gossip_addr.clone(),
        version: node.version.clone(),
        protocol_max: node.protocol_max,
        labels: node.labels.clone(),
        state,
    }
}
