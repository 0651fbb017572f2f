//! Where replicas are to be: one step at a time, so that each is safe by itself and every state
//! between two steps is one that can be lived with. Nothing here acts; the controller's leader
//! proposes the steps as commands.

use super::catalogue::{Catalogue, Node, NodeState, Placement, Replica, ReplicaState, Topic};
use super::command::Command;
use crate::model::{GroupId, NodeId, ReplicaId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Voters in the controller's group. More make it slower, not safer.
const CONTROLLER_VOTERS_MAX: usize = 7;
/// Replicas that are brought up at a time: each copies a partition over the network.
const JOINING_MAX: usize = 64;
/// The label by which replicas are spread.
const RACK: &str = "rack";

/// How the nodes are seen by whoever plans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Nodes that are there.
    pub alive: BTreeSet<NodeId>,
    /// Nodes that are silent, and not for long: nothing is given to them, nothing is taken away.
    pub doubtful: BTreeSet<NodeId>,
    /// Nodes that have been away for so long that they are to be taken out.
    pub given_up: BTreeSet<NodeId>,
}

/// The next step towards where everything is to be; `None` where it is, or nothing can be done
/// about it now.
pub fn next_step(catalogue: &Catalogue, sight: &Sight) -> Option<Command> {
    let plan = Plan { catalogue, sight, loads: Loads::of(catalogue) };
    plan.take_out()
        .or_else(|| plan.mend_all())
        .or_else(|| plan.balance_leaders())
        .or_else(|| plan.balance_replicas())
}

/// As many steps as can be taken before anything else happens, at most `steps_max`.
pub fn plan(catalogue: &Catalogue, sight: &Sight, steps_max: usize) -> Vec<Command> {
    let mut ahead = catalogue.clone();
    let mut steps = Vec::new();
    while steps.len() < steps_max {
        let Some(step) = next_step(&ahead, sight) else { break };
        // What the catalogue does not take is not proposed: it would be planned again for ever.
        if ahead.apply(&step).is_err() {
            break;
        }
        steps.push(step);
    }
    steps
}

/// The members that the controller's own group is to have, those first that stay.
pub fn controller_group(catalogue: &Catalogue) -> Vec<ReplicaId> {
    let holds = |id: NodeId| catalogue.hosted_by(id).next().is_some();
    let leaving =
        catalogue.nodes.iter().filter(|(id, node)| node.state == NodeState::Leaving && holds(**id));
    let nodes = catalogue.active_nodes().map(|(id, _)| id).chain(leaving.map(|(id, _)| *id));
    nodes.take(CONTROLLER_VOTERS_MAX).map(|node| ReplicaId::new(node, 1)).collect()
}

/// The groups that could not go on if a node were taken out now: those who vote in them and are
/// alive elsewhere are no majority.
pub fn lost_without(catalogue: &Catalogue, node: NodeId, alive: &BTreeSet<NodeId>) -> Vec<GroupId> {
    let is_lost = |voters: &[ReplicaId]| {
        let left =
            voters.iter().filter(|voter| voter.node() != node && alive.contains(&voter.node()));
        voters.iter().any(|voter| voter.node() == node) && left.count() < majority(voters.len())
    };
    let controller = is_lost(&catalogue.controller.voters).then_some(GroupId::CONTROLLER);
    let partitions = catalogue.partitions().filter(|(.., placement)| is_lost(&voters(placement)));
    controller.into_iter().chain(partitions.map(|(group, ..)| group)).collect()
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Who counts for a majority now. Those that are to go vote until they are gone.
fn voters(placement: &Placement) -> Vec<ReplicaId> {
    let votes = placement.replicas.iter().filter(|r| r.state != ReplicaState::Joining);
    votes.map(|replica| replica.id).collect()
}

/// How much each node has.
pub(super) struct Loads {
    replicas: BTreeMap<NodeId, usize>,
    leaders: BTreeMap<NodeId, usize>,
    joining: Vec<NodeId>,
}

impl Loads {
    pub fn of(catalogue: &Catalogue) -> Self {
        let mut loads =
            Self { replicas: BTreeMap::new(), leaders: BTreeMap::new(), joining: Vec::new() };
        for (.., placement) in catalogue.partitions() {
            for (place, replica) in placement.staying().enumerate() {
                loads.add(replica.id.node(), place == 0);
                if replica.state == ReplicaState::Joining {
                    loads.joining.push(replica.id.node());
                }
            }
        }
        loads
    }

    pub fn add(&mut self, node: NodeId, is_first: bool) {
        *self.replicas.entry(node).or_default() += 1;
        *self.leaders.entry(node).or_default() += usize::from(is_first);
    }

    fn replicas(&self, node: NodeId) -> usize {
        self.replicas.get(&node).copied().unwrap_or_default()
    }

    fn leaders(&self, node: NodeId) -> usize {
        self.leaders.get(&node).copied().unwrap_or_default()
    }

    /// The best of `nodes` for one more replica: another rack first, then whoever has least.
    pub fn choose(
        &self,
        catalogue: &Catalogue,
        placement: &Placement,
        nodes: &BTreeSet<NodeId>,
        is_first: bool,
    ) -> Option<NodeId> {
        let free = nodes.iter().copied().filter(|node| placement.on(*node).is_none());
        free.min_by_key(|node| {
            let leaders = if is_first { self.leaders(*node) } else { 0 };
            (rack_mates(catalogue, placement, *node, None), leaders, self.replicas(*node), *node)
        })
    }
}

fn rack(node: Option<&Node>) -> Option<&String> {
    node.and_then(|node| node.labels.get(RACK))
}

/// How many staying replicas, but for that of `besides`, share the rack of `node`. A node without
/// the label stands alone, and one that leaves is as good as gone.
fn rack_mates(
    catalogue: &Catalogue,
    placement: &Placement,
    node: NodeId,
    besides: Option<NodeId>,
) -> usize {
    let Some(own) = rack(catalogue.nodes.get(&node)) else { return 0 };
    let others = placement.staying().map(|replica| replica.id.node());
    let others = others.filter(|other| *other != node && Some(*other) != besides);
    let others = others.filter_map(|other| catalogue.nodes.get(&other));
    let others = others.filter(|other| other.state == NodeState::Active);
    others.filter(|other| rack(Some(other)) == Some(own)).count()
}

struct Plan<'a> {
    catalogue: &'a Catalogue,
    sight: &'a Sight,
    loads: Loads,
}

impl Plan<'_> {
    fn is_alive(&self, node: NodeId) -> bool {
        self.sight.alive.contains(&node)
    }

    fn is_active(&self, node: NodeId) -> bool {
        self.catalogue.nodes.get(&node).is_some_and(|known| known.state == NodeState::Active)
    }

    fn has_majority(&self, voters: impl Iterator<Item = ReplicaId>) -> bool {
        let (mut all, mut alive) = (0, 0);
        for voter in voters {
            all += 1;
            alive += usize::from(self.is_alive(voter.node()));
        }
        all > 0 && alive >= majority(all)
    }

    /// Nodes that can be given a replica now.
    fn takers(&self) -> BTreeSet<NodeId> {
        let active = self.catalogue.active_nodes().map(|(id, _)| id);
        active.filter(|id| self.is_alive(*id)).collect()
    }

    /// Nodes that go: those that have handed over everything, and those that were given up where
    /// nothing is lost by it.
    fn take_out(&self) -> Option<Command> {
        let others = |id: NodeId| self.catalogue.active_nodes().any(|(other, _)| other != id);
        let goes = |(id, node): &(&NodeId, &Node)| {
            let is_out = node.state == NodeState::Leaving
                && !self.catalogue.partitions().any(|(.., p)| p.on(**id).is_some())
                && !self.catalogue.controller.voters.iter().any(|voter| voter.node() == **id);
            let is_given_up = node.state != NodeState::Removed
                && self.sight.given_up.contains(id)
                && !self.is_alive(**id)
                && lost_without(self.catalogue, **id, &self.sight.alive).is_empty();
            (is_out || is_given_up) && others(**id)
        };
        let (node, _) = self.catalogue.nodes.iter().find(goes)?;
        Some(Command::Remove { node: *node })
    }

    fn mend_all(&self) -> Option<Command> {
        let (takers, active) = (self.takers(), self.catalogue.active_nodes().count());
        self.catalogue.partitions().find_map(|(group, _, topic, placement)| {
            self.mend(group, topic, placement, &takers, active)
        })
    }

    /// What is wrong with one partition, and can be helped. Without a majority nothing can.
    fn mend(
        &self,
        group: GroupId,
        topic: &Topic,
        placement: &Placement,
        takers: &BTreeSet<NodeId>,
        active: usize,
    ) -> Option<Command> {
        if !self.has_majority(voters(placement).into_iter()) {
            return None;
        }
        let raw = group.raw();
        let factor = topic.replication_factor as usize;
        let goal = factor.min(active);
        let good = || placement.staying().filter(|replica| self.is_active(replica.id.node()));
        let has = good().count();
        let taker = self.loads.choose(self.catalogue, placement, takers, false);
        if has < goal
            && let Some(node) = taker
        {
            let joining = self.loads.joining.iter().filter(|node| self.is_alive(**node)).count();
            return (joining < JOINING_MAX).then_some(Command::AddReplica { group: raw, node });
        }
        let first = placement.staying().next()?;
        let is_silent_for_a_moment =
            self.may_lead(first) && self.sight.doubtful.contains(&first.id.node());
        if !self.can_lead(first)
            && !is_silent_for_a_moment
            && let Some(replica) = self.successor(placement, None)
        {
            return Some(Command::PreferLeader { group: raw, replica });
        }
        // One after another: each must be gone before the next goes.
        if placement.replicas.iter().any(|replica| replica.state == ReplicaState::Leaving) {
            return None;
        }
        let is_joining = placement.staying().any(|replica| {
            let node = replica.id.node();
            replica.state == ReplicaState::Joining && self.is_alive(node) && self.is_active(node)
        });
        if is_joining {
            return None;
        }
        let goes = self
            .leaver(placement, goal, taker.is_none())
            .or_else(|| (has > factor).then(|| self.spare(placement)).flatten())?;
        let left = placement
            .staying()
            .filter(|replica| replica.state == ReplicaState::Member && replica.id != goes.id);
        if !self.has_majority(left.map(|replica| replica.id)) {
            return None;
        }
        if goes.id == first.id {
            let replica = self.successor(placement, Some(goes.id))?;
            return Some(Command::PreferLeader { group: raw, replica });
        }
        Some(Command::DropReplica { group: raw, replica: goes.id })
    }

    fn may_lead(&self, replica: &Replica) -> bool {
        replica.state == ReplicaState::Member && self.is_active(replica.id.node())
    }

    fn can_lead(&self, replica: &Replica) -> bool {
        self.may_lead(replica) && self.is_alive(replica.id.node())
    }

    /// The member that leads best: whoever leads least now.
    fn successor(&self, placement: &Placement, besides: Option<ReplicaId>) -> Option<ReplicaId> {
        let able = placement.staying().filter(|r| self.can_lead(r) && Some(r.id) != besides);
        able.map(|replica| replica.id).min_by_key(|id| (self.loads.leaders(id.node()), *id))
    }

    /// A replica on a leaving node that is no longer needed there.
    fn leaver<'p>(
        &self,
        placement: &'p Placement,
        goal: usize,
        is_nowhere_free: bool,
    ) -> Option<&'p Replica> {
        let able = placement.staying().filter(|replica| self.can_lead(replica)).count();
        let is_covered = able >= goal || is_nowhere_free && able >= 1;
        let mut there = placement.staying().filter(|replica| !self.is_active(replica.id.node()));
        if is_covered { there.next() } else { None }
    }

    /// The replica that is missed least where there are too many.
    fn spare<'p>(&self, placement: &'p Placement) -> Option<&'p Replica> {
        placement.staying().max_by_key(|replica| {
            let node = replica.id.node();
            let mates = rack_mates(self.catalogue, placement, node, None);
            (!self.is_alive(node), mates, self.loads.replicas(node), node)
        })
    }

    /// Moves one preference where one node leads at least two partitions more than another one
    /// that it could hand over to, be it by way of others.
    fn balance_leaders(&self) -> Option<Command> {
        let mut ways: BTreeMap<NodeId, BTreeMap<NodeId, Command>> = BTreeMap::new();
        for (group, _, _, placement) in self.catalogue.partitions() {
            let Some(first) = placement.staying().next().filter(|r| self.can_lead(r)) else {
                continue;
            };
            for other in placement.staying().skip(1).filter(|r| self.can_lead(r)) {
                let step = Command::PreferLeader { group: group.raw(), replica: other.id };
                ways.entry(first.id.node()).or_default().entry(other.id.node()).or_insert(step);
            }
        }
        let mut from: Vec<NodeId> = ways.keys().copied().collect();
        from.sort_by_key(|node| Reverse(self.loads.leaders(*node)));
        from.into_iter().find_map(|node| self.hand_over(node, &ways))
    }

    /// The last step of the shortest way from `start` to a node that leads two less: the steps
    /// before it become as short or shorter by it.
    fn hand_over(
        &self,
        start: NodeId,
        ways: &BTreeMap<NodeId, BTreeMap<NodeId, Command>>,
    ) -> Option<Command> {
        let most = self.loads.leaders(start);
        let (mut seen, mut queue) = (BTreeSet::from([start]), VecDeque::from([start]));
        while let Some(node) = queue.pop_front() {
            for (next, step) in ways.get(&node).into_iter().flatten() {
                if self.loads.leaders(*next) + 2 <= most {
                    return Some(step.clone());
                }
                if seen.insert(*next) {
                    queue.push_back(*next);
                }
            }
        }
        None
    }

    /// Begins to move one replica from the node that has most to the one that has least; what is
    /// too many then goes by [`Plan::mend`]. One at a time: moving copies data for no one's safety.
    fn balance_replicas(&self) -> Option<Command> {
        let is_quiet = |placement: &Placement| {
            placement.replicas.iter().all(|replica| replica.state == ReplicaState::Member)
        };
        if !self.catalogue.partitions().all(|(.., placement)| is_quiet(placement)) {
            return None;
        }
        let takers = self.takers();
        let load = |node: &&NodeId| (self.loads.replicas(**node), **node);
        let (most, least) = (*takers.iter().max_by_key(load)?, *takers.iter().min_by_key(load)?);
        if self.loads.replicas(most) < self.loads.replicas(least) + 2 {
            return None;
        }
        let group = self.catalogue.partitions().find_map(|(group, _, topic, placement)| {
            let is_movable = placement.on(most).is_some()
                && placement.on(least).is_none()
                && placement.replicas.len() <= topic.replication_factor as usize
                && placement.replicas.iter().all(|replica| self.is_alive(replica.id.node()))
                && rack_mates(self.catalogue, placement, least, Some(most))
                    <= rack_mates(self.catalogue, placement, most, None);
            is_movable.then_some(group)
        })?;
        Some(Command::AddReplica { group: group.raw(), node: least })
    }
}
