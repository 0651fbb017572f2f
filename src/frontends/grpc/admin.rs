//! `duramen.v1.Admin`: looking after a cluster. Any node takes these calls; what they change is
//! changed where the controller is led.

use super::deadline;
use super::observe::from_this_machine;
use super::refusal::Refusal;
use crate::access::{ANYONE, Action, Effect, Policy, PolicyError};
use crate::actors::control::ControlError;
use crate::actors::controller::GroupActs;
use crate::cluster::{
    AccessChange, Catalogue, Command, NodeState, Outcome, ReplicaState, Topic, TopicSettings,
    lost_without,
};
use crate::frontends::access::Asker;
use crate::frontends::cluster::{ClusterView, named};
use crate::model::{GroupId, NodeId, ReplicaId, TopicName};
use crate::wire::pb::duramen::v1 as pb;
use futures_util::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

/// Replicas of a new topic's partitions where the client does not say.
const REPLICATION_DEFAULT: u32 = 3;
/// The longest name or address taken from a client.
const TEXT_BYTES_MAX: usize = 4096;
/// How long an answer waits for the node's own door.
const IN_FORCE_MAX: Duration = Duration::from_secs(2);
/// Settings that one request may name.
const SETTINGS_MAX: usize = 64;

/// Serves `duramen.v1.Admin`.
#[derive(Debug, Clone)]
pub struct AdminService {
    /// What is known of the cluster.
    pub view: ClusterView,
    /// The way to the groups of this node.
    pub acts: Arc<dyn GroupActs>,
    /// Callers from other machines may change things: the node was told to listen without proof of
    /// who calls.
    pub anyone_may_act: bool,
    /// The longest that a change is waited for.
    pub wait_max: Duration,
}

fn text(text: String, what: &str) -> Result<String, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        let bytes = text.len();
        let message = format!("the {what} has {bytes} bytes; at most {TEXT_BYTES_MAX} are taken");
        return Err(Refusal::invalid(message));
    }
    Ok(text)
}

fn topic_name(name: &str) -> Result<TopicName, Refusal> {
    TopicName::new(name).map_err(|error| Refusal::invalid(error.to_string()))
}

fn settings(settings: Option<pb::TopicSettings>) -> Result<TopicSettings, Refusal> {
    let values = settings.unwrap_or_default().values;
    if values.len() > SETTINGS_MAX {
        return Err(Refusal::invalid(format!("at most {SETTINGS_MAX} settings are taken")));
    }
    let values =
        values.into_iter().map(|(key, value)| Ok((text(key, "key")?, text(value, "value")?)));
    values.collect::<Result<_, Refusal>>().map(TopicSettings)
}

fn find_topic<'c>(catalogue: &'c Catalogue, name: &TopicName) -> Result<&'c Topic, Refusal> {
    catalogue.topics.get(name).ok_or_else(|| {
        let known: Vec<_> = catalogue.topics.keys().map(ToString::to_string).collect();
        Refusal::not_found(format!(
            "there is no topic {name}; there are: {}",
            if known.is_empty() { "none".into() } else { named(&known) }
        ))
    })
}

/// Who asks, and until when.
struct By {
    asker: Asker,
    metadata: MetadataMap,
}

/// A request taken apart.
fn parts<T>(request: Request<T>) -> (By, T) {
    let (metadata, extensions, asked) = request.into_parts();
    (By { asker: Asker::of(&extensions), metadata }, asked)
}

fn policy(text: &str) -> Result<Policy, Refusal> {
    text.parse().map_err(|error: PolicyError| Refusal::invalid(error.to_string()))
}

/// One that somebody writes: what would never count is told while it can be written otherwise.
fn new_policy(text: &str) -> Result<Policy, Refusal> {
    let policy = policy(text)?;
    policy.check_applies().map_err(|error| Refusal::invalid(error.to_string()))?;
    Ok(policy)
}

/// Whoever puts this policy in force would be the first whom it shuts out, where it does not know him.
/// Where nobody has admin the catalogue refuses, for all.
fn check_stays_in(asker: &Asker, policy: &Policy) -> Result<(), Refusal> {
    let Some(by) = asker.on_behalf().filter(|_| policy.has_admin()) else { return Ok(()) };
    match by.subject.as_deref() {
        Some(subject) if policy.permits(subject, Action::Admin, ANYONE) => Ok(()),
        Some(_) => Err(Refusal::not_now(format!(
            "{} would be shut out: the policy does not give that name admin; give it first, as in \
             `duramen acl add NAME '*' admin`, or ask as somebody who has it; who is denied it has none",
            asker.caller()
        ))),
        None => Err(Refusal::not_now(
            "whoever asks would be shut out: this connection proves no name, nor does a token that the \
             node does not take; ask by the certificate (--tls-dir) or the token (--token-file) of \
             somebody who has admin",
        )),
    }
}

impl AdminService {
    fn may_act(&self, extensions: &Extensions) -> Result<(), Refusal> {
        if self.anyone_may_act { Ok(()) } else { from_this_machine(extensions) }
    }

    /// Has the catalogue changed, and noted by whom.
    async fn change(&self, by: &By, command: Command) -> Result<Outcome, Refusal> {
        let time = deadline::at_most(self.wait_max, &by.metadata);
        let what = serde_json::to_string(&command).expect("plain values whose keys are texts");
        let changing = self.view.control.change_for(by.asker.on_behalf(), command);
        let changing = changing.map(|changed| changed.map_err(Refusal::from));
        let changed = deadline::within(time, changing, Refusal::action_deadline).await;
        match &changed {
            Ok(_) => by.asker.acted(what, "done".into()),
            Err(no) if no.is_denied() => by.asker.was_denied(what, no.message().to_owned()),
            Err(no) => by.asker.acted(what, no.message().to_owned()),
        }
        changed
    }

    /// Refuses what cannot be before it becomes a record of the controller's log.
    fn check_room(&self, more: u32) -> Result<(), Refusal> {
        let checked = self.view.control.catalogue().check_room(more);
        checked.map_err(|rejection| ControlError::Rejected(rejection).into())
    }

    /// What is known of who may do what.
    fn access(&self, asker: &Asker) -> pb::AccessState {
        let catalogue = self.view.control.catalogue();
        let access = &catalogue.access;
        let (on, generation) = (access.is_on, access.generation);
        let here = asker.basis(on, generation);
        pb::AccessState { on, generation, policy: access.policy.to_string(), here }
    }

    fn describe(&self, name: &TopicName) -> Result<pb::TopicDescription, Refusal> {
        let catalogue = self.view.control.catalogue();
        let topic = find_topic(&catalogue, name)?;
        Ok(self.view.topic(name, topic))
    }

    /// The member that a client means; `empty`: who is meant by nothing.
    fn member(&self, asked: String, empty: Option<NodeId>) -> Result<(NodeId, String), Refusal> {
        let asked = text(asked, "node")?;
        let catalogue = self.view.control.catalogue();
        let found = match (asked.is_empty(), empty) {
            (true, Some(node)) => catalogue.nodes.get(&node).map(|known| (node, known)),
            (true, None) => return Err(Refusal::invalid("say which node: its name or number")),
            (false, _) => catalogue.find_node(&asked),
        };
        let (id, node) = found.ok_or_else(|| {
            let known: Vec<_> = catalogue
                .nodes
                .iter()
                .filter(|(_, node)| node.state != NodeState::Removed)
                .map(|(id, node)| format!("{id} ({})", node.name))
                .collect();
            Refusal::not_found(format!("there is no such node; there are: {}", named(&known)))
        })?;
        Ok((id, node.name.clone()))
    }

    /// Groups that would be left without a majority, by the names that people know.
    fn lost_without(&self, node: NodeId) -> Vec<String> {
        let catalogue = self.view.control.catalogue();
        let alive = self.view.alive(&catalogue);
        let lost = lost_without(&catalogue, node, &alive);
        lost.into_iter().map(|group| catalogue.name_of(group)).collect()
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.view.alive(&self.view.control.catalogue()).contains(&node)
    }

    /// Gives a node a replica of each partition of another one, as far as it has none.
    async fn give_all(&self, by: &By, from: NodeId, to: NodeId) -> Result<usize, Refusal> {
        let catalogue = self.view.control.catalogue();
        let groups: Vec<_> = catalogue
            .partitions()
            .filter(|(.., placement)| placement.on(from).is_some() && placement.on(to).is_none())
            .map(|(group, ..)| group.raw())
            .collect();
        for group in &groups {
            self.change(by, Command::AddReplica { group: *group, node: to }).await?;
        }
        Ok(groups.len())
    }

    /// The replica that is to lead, where one is named.
    fn heir(catalogue: &Catalogue, group: GroupId, node: NodeId) -> Result<ReplicaId, Refusal> {
        let placement = catalogue.placement(group);
        let replica = placement
            .and_then(|placement| placement.on(node))
            .filter(|replica| replica.state == ReplicaState::Member);
        replica.map(|replica| replica.id).ok_or_else(|| {
            let name = catalogue.name_of(group);
            let members = placement.into_iter().flat_map(|p| p.staying());
            let members: Vec<_> = members
                .filter(|replica| replica.state == ReplicaState::Member)
                .map(|replica| replica.id.node().to_string())
                .collect();
            Refusal::not_now(format!(
                "node {node} is no member of partition {name}: its members are {}",
                named(&members)
            ))
        })
    }
}

#[tonic::async_trait]
impl pb::admin_server::Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<pb::CreateTopicRequest>,
    ) -> Result<Response<pb::TopicDescription>, Status> {
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let name = topic_name(&asked.name)?;
        by.asker.check(Action::Create, name.as_str()).map_err(Refusal::from)?;
        let or = |asked: u32, default: u32| if asked == 0 { default } else { asked };
        let partitions = or(asked.partitions, 1);
        self.check_room(partitions)?;
        let command = Command::CreateTopic {
            name: name.clone(),
            partitions,
            replication_factor: or(asked.replication_factor, REPLICATION_DEFAULT),
            settings: settings(asked.settings)?,
        };
        self.change(&by, command).await?;
        Ok(Response::new(self.describe(&name)?))
    }

    async fn alter_topic(
        &self,
        request: Request<pb::AlterTopicRequest>,
    ) -> Result<Response<pb::TopicDescription>, Status> {
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let name = topic_name(&asked.name)?;
        by.asker.check(Action::Alter, name.as_str()).map_err(Refusal::from)?;
        let given = |asked: u32| (asked != 0).then_some(asked);
        let catalogue = self.view.control.catalogue();
        let has = catalogue.topics.get(&name).map(|topic| topic.partitions.len() as u32);
        if let Some(more) =
            has.and_then(|has| asked.partitions.checked_sub(has)).filter(|more| *more > 0)
        {
            self.check_room(more)?;
        }
        let command = Command::AlterTopic {
            name: name.clone(),
            partitions: given(asked.partitions),
            replication_factor: given(asked.replication_factor),
            settings: settings(asked.settings)?,
        };
        self.change(&by, command).await?;
        Ok(Response::new(self.describe(&name)?))
    }

    async fn delete_topic(
        &self,
        request: Request<pb::DeleteTopicRequest>,
    ) -> Result<Response<pb::DeleteTopicResponse>, Status> {
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let name = topic_name(&asked.name)?;
        by.asker.check(Action::Delete, name.as_str()).map_err(Refusal::from)?;
        self.change(&by, Command::DeleteTopic { name }).await?;
        Ok(Response::new(pb::DeleteTopicResponse {}))
    }

    async fn describe_topic(
        &self,
        request: Request<pb::DescribeTopicRequest>,
    ) -> Result<Response<pb::TopicDescription>, Status> {
        let (by, asked) = parts(request);
        let name = topic_name(&asked.name)?;
        by.asker.check(Action::Describe, name.as_str()).map_err(Refusal::from)?;
        Ok(Response::new(self.describe(&name)?))
    }

    async fn list_topics(
        &self,
        request: Request<pb::ListTopicsRequest>,
    ) -> Result<Response<pb::ListTopicsResponse>, Status> {
        let asker = Asker::of(request.extensions());
        let catalogue = self.view.control.catalogue();
        let shown = catalogue.topics.iter();
        let shown = shown.filter(|(name, _)| asker.may(Action::Describe, name.as_str()));
        let topics = shown.map(|(name, topic)| self.view.topic(name, topic));
        Ok(Response::new(pb::ListTopicsResponse { topics: topics.collect() }))
    }

    async fn cluster_status(
        &self,
        _: Request<pb::ClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        Ok(Response::new(self.view.status()))
    }

    async fn leave_node(
        &self,
        request: Request<pb::LeaveNodeRequest>,
    ) -> Result<Response<pb::NodeActionResponse>, Status> {
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let (node, name) = self.member(asked.node, self.view.control.node())?;
        self.change(&by, Command::Leave { node }).await?;
        let mut warnings = Vec::new();
        if !self.is_alive(node) {
            warnings.push(format!(
                "node {node} is not there: its replicas are given to others where there are any"
            ));
        }
        let message = format!(
            "node {node} ({name}) hands over what it has and is taken out then: `duramen cluster \
             status` shows how far it is"
        );
        Ok(Response::new(pb::NodeActionResponse { node: node.0, message, warnings }))
    }

    async fn replace_node(
        &self,
        request: Request<pb::ReplaceNodeRequest>,
    ) -> Result<Response<pb::NodeActionResponse>, Status> {
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let (dead, name) = self.member(asked.dead, None)?;
        let replacement = match asked.replacement {
            none if none.is_empty() => None,
            asked => Some(self.member(asked, None)?.0),
        };
        if replacement == Some(dead) {
            return Err(Refusal::invalid("a node cannot be its own replacement").into());
        }
        if self.is_alive(dead) && self.view.control.catalogue().nodes.len() > 1 {
            return Err(Refusal::not_now(format!(
                "node {dead} ({name}) is there: `duramen node leave {name}` hands over what it has"
            ))
            .into());
        }
        let lost = self.lost_without(dead);
        self.change(&by, Command::Leave { node: dead }).await?;
        let mut warnings = Vec::new();
        if !lost.is_empty() {
            warnings.push(format!(
                "these have no majority now and stay as they are until another member is back: {}",
                named(&lost)
            ));
        }
        let given = match replacement {
            Some(to) => {
                let count = self.give_all(&by, dead, to).await?;
                format!("{count} of its replicas go to node {to}")
            }
            None => "its replicas go to wherever there is room".into(),
        };
        let message = format!("node {dead} ({name}) is replaced: {given}; it is taken out then");
        Ok(Response::new(pb::NodeActionResponse { node: dead.0, message, warnings }))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::NodeActionResponse>, Status> {
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let (node, name) = self.member(asked.node, None)?;
        let lost = self.lost_without(node);
        let mut warnings = Vec::new();
        if !lost.is_empty() {
            let which = named(&lost);
            if !asked.force {
                return Err(Refusal::not_now(format!(
                    "without node {node} ({name}) these are left without a majority: {which}; \
                     bring other members back first, or `duramen node leave {name}`; --force \
                     removes it all the same"
                ))
                .into());
            }
            warnings.push(format!("these are left without a majority, and stand still: {which}"));
        }
        if self.is_alive(node) {
            warnings.push(format!("node {node} is there: stop it, it is no member any more"));
        }
        self.change(&by, Command::Remove { node }).await?;
        let message = format!("node {node} ({name}) is no member any more");
        Ok(Response::new(pb::NodeActionResponse { node: node.0, message, warnings }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let name = topic_name(&asked.topic)?;
        let catalogue = self.view.control.catalogue();
        let topic = find_topic(&catalogue, &name)?;
        if asked.partition as usize >= topic.partitions.len() {
            let message = format!("topic {name} has {} partitions", topic.partitions.len());
            return Err(Refusal::not_found(message).into());
        }
        let group = GroupId::partition_of(topic.id, asked.partition);
        let (leader, _) = self.view.leader(group);
        let to = if asked.to.is_empty() {
            let mut others = topic.partitions[asked.partition as usize].staying().filter(|r| {
                r.state == ReplicaState::Member
                    && Some(r.id.node()) != leader
                    && self.is_alive(r.id.node())
            });
            others.next().map(|replica| replica.id).ok_or_else(|| {
                Refusal::not_now(format!(
                    "partition {name}/{} has no other member that is there",
                    asked.partition
                ))
            })?
        } else {
            let (node, _) = self.member(asked.to, None)?;
            Self::heir(&catalogue, group, node)?
        };
        // In the catalogue as well: else it would be handed back.
        let prefer = Command::PreferLeader { group: group.raw(), replica: to };
        self.change(&by, prefer).await?;
        if leader.is_some() && leader == self.view.control.node() {
            self.acts.transfer(group, Some(to)).map_err(Refusal::not_now)?;
        }
        Ok(Response::new(pb::TransferLeaderResponse { leader: to.node().0 }))
    }

    async fn get_access(
        &self,
        request: Request<pb::GetAccessRequest>,
    ) -> Result<Response<pb::AccessState>, Status> {
        Ok(Response::new(self.access(&Asker::of(request.extensions()))))
    }

    async fn change_access(
        &self,
        request: Request<pb::ChangeAccessRequest>,
    ) -> Result<Response<pb::AccessState>, Status> {
        use pb::change_access_request::Change;
        self.may_act(request.extensions())?;
        let (by, asked) = parts(request);
        let change = match asked.change {
            Some(Change::Add(text)) => AccessChange::Add(new_policy(&text)?),
            Some(Change::Remove(text)) => AccessChange::Remove(policy(&text)?),
            Some(Change::Load(text)) => AccessChange::Load(new_policy(&text)?),
            Some(Change::Switch(on)) => {
                if on {
                    check_stays_in(&by.asker, &self.view.control.catalogue().access.policy)?;
                }
                AccessChange::Switch { on }
            }
            None => return Err(Refusal::invalid("say what is to be changed").into()),
        };
        self.change(&by, Command::Access(change)).await?;
        // Whoever is answered finds it in force, at this node at least.
        let generation = self.view.control.catalogue().access.generation;
        by.asker.until_in_force(generation, IN_FORCE_MAX).await;
        Ok(Response::new(self.access(&by.asker)))
    }

    async fn test_access(
        &self,
        request: Request<pb::TestAccessRequest>,
    ) -> Result<Response<pb::TestAccessResponse>, Status> {
        let (by, pb::TestAccessRequest { subject, action, object }) = parts(request);
        let subject = text(subject, "subject")?;
        let action: Action = action.parse().map_err(|()| {
            let known = Action::ALL.map(Action::name).join(", ");
            Refusal::invalid(format!("there is no such action; there are {known}"))
        })?;
        let object = if object.is_empty() { ANYONE.to_owned() } else { text(object, "object")? };
        let catalogue = self.view.control.catalogue();
        let speaking = catalogue.access.policy.speaking(&subject, action, &object);
        let is_taken = speaking.iter().any(|rule| rule.effect == Effect::Deny);
        let judged = by.asker.would(&subject, action, &object);
        Ok(Response::new(pb::TestAccessResponse {
            permitted: !speaking.is_empty() && !is_taken,
            passes: judged.is_ok(),
            refusal: judged.err().map_or_else(String::new, |denied| denied.to_string()),
            rules: speaking.into_iter().map(ToString::to_string).collect(),
            why: by.asker.ground(&subject, action, &object),
        }))
    }
}

#[cfg(test)]
mod tests;
