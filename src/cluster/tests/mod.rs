//! A cluster without machines: the catalogue, who is alive, and groups whose leaders do at once
//! what the catalogue wants.

mod catalogue;
mod judged;
mod placement;

use super::*;
use crate::model::{GroupId, NodeId, ReplicaId, Term, TopicName};
use std::collections::{BTreeMap, BTreeSet};

fn node_self(number: u32, rack: Option<&str>) -> NodeSelf {
    NodeSelf {
        uuid: format!("uuid-{number}"),
        name: format!("name-{number}"),
        rpc_addr: format!("127.0.0.1:{}", 8000 + number),
        gossip_addr: String::new(),
        version: "1.0.0".into(),
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL,
        labels: rack.map(|rack| ("rack".to_owned(), rack.to_owned())).into_iter().collect(),
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn create(name: &str, partitions: u32, replication_factor: u32) -> Command {
    let settings = TopicSettings::default();
    Command::CreateTopic { name: topic(name), partitions, replication_factor, settings }
}

fn founded() -> Catalogue {
    let mut catalogue = Catalogue::default();
    let found = Command::Found { cluster_id: "c1".into(), node: node_self(1, None) };
    assert_eq!(catalogue.apply(&found), Ok(Outcome::Node(NodeId(1))));
    catalogue
}

#[derive(Clone)]
struct World {
    catalogue: Catalogue,
    sight: Sight,
    /// Who votes in each group, whatever the catalogue has heard of it.
    voters: BTreeMap<GroupId, Vec<ReplicaId>>,
}

impl World {
    fn of(nodes: u32) -> Self {
        let sight = Sight { alive: BTreeSet::from([NodeId(1)]), ..Sight::default() };
        let mut world = Self { catalogue: founded(), sight, voters: BTreeMap::new() };
        for number in 2..=nodes {
            world.join(number, None);
        }
        world
    }

    fn join(&mut self, number: u32, rack: Option<&str>) {
        let joined = self.catalogue.apply(&Command::Register(node_self(number, rack)));
        let Ok(Outcome::Node(node)) = joined else { panic!("{joined:?}") };
        self.sight.alive.insert(node);
    }

    fn has_majority(&self, voters: &[ReplicaId]) -> bool {
        let alive = voters.iter().filter(|voter| self.sight.alive.contains(&voter.node()));
        2 * alive.count() > voters.len()
    }

    /// A group begins with the one replica that is a member from the first.
    fn groups_begin(&mut self) {
        for (group, _, _, placement) in self.catalogue.partitions() {
            let members = placement.replicas.iter().filter(|r| r.state == ReplicaState::Member);
            let members = members.map(|replica| replica.id);
            self.voters.entry(group).or_insert_with(|| members.collect());
        }
    }

    /// What the groups' leaders make of the catalogue, where they have a majority.
    fn groups_follow(&mut self) {
        self.groups_begin();
        let mut told = Vec::new();
        for (group, _, _, placement) in self.catalogue.partitions() {
            if !self.has_majority(&self.voters[&group]) {
                continue;
            }
            let stays = |r: &&Replica| match r.state {
                ReplicaState::Joining => self.sight.alive.contains(&r.id.node()),
                ReplicaState::Member => true,
                ReplicaState::Leaving => false,
            };
            let voters: Vec<_> = placement.replicas.iter().filter(stays).map(|r| r.id).collect();
            self.voters.insert(group, voters.clone());
            let (group, learners) = (group.raw(), Vec::new());
            told.push(Command::GroupIs { group, term: Term(1), voters, learners });
        }
        let (voters, learners) = (controller_group(&self.catalogue), Vec::new());
        told.push(Command::GroupIs { group: 0, term: Term(1), voters, learners });
        for command in told {
            self.catalogue.apply(&command).unwrap();
        }
    }

    /// Steps until nothing is left to do. Each step must be taken, and none may cost a group the
    /// majority that it had.
    fn converge(&mut self) -> usize {
        for taken in 0..5_000 {
            let mut before = None;
            while before.as_ref() != Some(&self.catalogue) {
                before = Some(self.catalogue.clone());
                self.groups_follow();
            }
            let Some(step) = next_step(&self.catalogue, &self.sight) else { return taken };
            let able: Vec<GroupId> = self.able_groups();
            self.catalogue.apply(&step).unwrap_or_else(|no| panic!("{step:?}: {no}"));
            assert_eq!(self.catalogue.fault(), None, "after {step:?}");
            let after = self.able_groups();
            assert!(able.iter().all(|group| after.contains(group)), "{step:?} cost a majority");
        }
        panic!("there is no end: {:?}", next_step(&self.catalogue, &self.sight));
    }

    /// Groups that could elect a leader, also once those that are to go are gone.
    fn able_groups(&self) -> Vec<GroupId> {
        let able = self.catalogue.partitions().filter(|(group, .., placement)| {
            let left: Vec<_> = placement
                .staying()
                .filter(|replica| replica.state == ReplicaState::Member)
                .map(|replica| replica.id)
                .collect();
            self.has_majority(&self.voters[group]) && self.has_majority(&left)
        });
        able.map(|(group, ..)| group).collect()
    }

    /// Replicas, and preferred leaders, of each node that takes replicas.
    fn loads(&self) -> BTreeMap<NodeId, (usize, usize)> {
        let mut loads: BTreeMap<_, _> =
            self.catalogue.active_nodes().map(|(id, _)| (id, (0, 0))).collect();
        for (.., placement) in self.catalogue.partitions() {
            for (place, replica) in placement.staying().enumerate() {
                let load = loads.entry(replica.id.node()).or_default();
                *load = (load.0 + 1, load.1 + usize::from(place == 0));
            }
        }
        loads
    }

    #[track_caller]
    fn assert_balanced(&self) {
        let loads = self.loads();
        let spread = |of: fn(&(usize, usize)) -> usize| {
            loads.values().map(of).max().unwrap() - loads.values().map(of).min().unwrap()
        };
        assert!(spread(|load| load.0) <= 1, "replicas: {loads:?}");
        assert!(spread(|load| load.1) <= 1, "leaders: {loads:?}");
    }

    #[track_caller]
    fn assert_whole(&self) {
        let active: Vec<_> = self.catalogue.active_nodes().map(|(id, _)| id).collect();
        for (group, _, topic, placement) in self.catalogue.partitions() {
            let goal = (topic.replication_factor as usize).min(active.len());
            assert_eq!(placement.replicas.len(), goal, "{group}: {placement:?}");
            let is_settled = |replica: &Replica| {
                replica.state == ReplicaState::Member && active.contains(&replica.id.node())
            };
            assert!(placement.replicas.iter().all(is_settled), "{group}: {placement:?}");
        }
    }
}
