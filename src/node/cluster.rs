//! The node's place in its cluster: what the controller, the replicators and gossip are joined by,
//! and what becoming a member does to the directory and the tree.

use super::membership;
use super::partition::{Partition, PartitionPlan, Soil};
use super::peers::{KnownMembers, TellReplicas, follow_members, replicators_below};
use super::supervisor;
use crate::actors::addresses::{Addresses, LocalIdentity, Whereabouts};
use crate::actors::control::{Answered, Answering, ControlApi, ControlError, JoinAsked, Joined};
use crate::actors::controller::{
    Control, ControlParts, DutyOptions, Formation, FormationOptions, GroupActs, Home, PeerCalls,
};
use crate::actors::groups::Groups;
use crate::actors::handle::PartitionHandle;
use crate::actors::membership::Me;
use crate::actors::presence::PresenceBoard;
use crate::actors::raft::Transfer;
use crate::actors::replicator::{OutboxLimits, Peers, PeersParts, ReplicatorOptions};
use crate::cluster::{NodeSelf, PROTOCOL_MIN, Rejection, RejectionKind, TopicSettings};
use crate::guards::tls::ClientTls;
use crate::model::{GroupId, NodeId, ReplicaId, with_causes};
use crate::ops::data_dir::{Cluster as Belonging, DataDir};
use crate::ops::settings::Settings;
use crate::supervision::{Exhausted, Strategy, Supervisor};
use crate::wire::client::ClientError;
use crate::wire::pb::duramen::v1 as pb;
use crate::wire::peer::{Denial, PeerClient, PeerProof};
use bytes::Bytes;
use slog::{o, warn};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long a call to another node may take, its connection included.
const CALL_MAX: Duration = Duration::from_secs(5);
/// When to ask again a node that could not be reached.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What is joined here.
#[derive(Clone)]
pub(super) struct Cluster {
    pub control: Arc<dyn ControlApi>,
    pub presence: PresenceBoard,
    pub addresses: Arc<Addresses>,
    /// Who this node is, from when it is a member.
    pub identity: Arc<OnceLock<LocalIdentity>>,
    pub acts: Arc<dyn GroupActs>,
    /// `None`: of a mirror.
    pub home: Option<Arc<ClusterHome>>,
}

impl Cluster {
    /// Puts the controller, the replicators and gossip below the root.
    pub fn below(
        root: &Supervisor,
        soil: &Soil,
        data_dir: &Arc<DataDir>,
        peers: Arc<Peers>,
        rpc_addr: SocketAddr,
    ) -> Self {
        let Soil { settings, clock, logger, groups, leadership, .. } = soil;
        let presence = PresenceBoard::default();
        let acts: Arc<dyn GroupActs> = Arc::new(Acts(Arc::clone(groups)));
        let control = Control::new(ControlParts {
            leadership: Arc::clone(leadership),
            presence: presence.clone(),
            calls: Arc::new(Calls { tls: soil.tls.clone(), proof: peer_proof(settings) }),
            acts: Arc::clone(&acts),
            clock: Arc::clone(clock),
            logger: logger.new(o!("actor" => "node/controller")),
        });
        let joins = settings.gossip.joins();
        if joins {
            control.outdated();
        }
        let shared: Arc<dyn ControlApi> = Arc::new(control.clone());
        let addresses = Arc::new(Addresses::new(shared, presence.clone()));
        let identity = Arc::<OnceLock<LocalIdentity>>::default();
        // The catalogue outlives a restart of its group.
        let own = root.supervisor(supervisor(
            "controller",
            Strategy::OneForOne,
            Exhausted::Quarantine,
            settings,
        ));
        let replicators = Replicators {
            peers,
            above: replicators_below(root),
            addresses: Arc::clone(&addresses),
            known: KnownMembers::of(data_dir.path()),
        };
        let home = Arc::new(ClusterHome {
            soil: soil.clone(),
            data_dir: Arc::clone(data_dir),
            parent: own.clone(),
            group: Mutex::default(),
            identity: Arc::clone(&identity),
            replicators,
        });
        let me = membership::me(settings, data_dir, rpc_addr);
        let duties = DutyOptions {
            remove_dead_after: settings.cluster.remove_dead_after,
            ..DutyOptions::default()
        };
        let cluster_id = uuid::Uuid::new_v4().to_string();
        let formation =
            FormationOptions::new(node_self(settings, &me), joins, Vec::new(), cluster_id);
        let shared_home: Arc<dyn Home> = Arc::clone(&home) as _;
        super::controller::controller_below(&own, &control, shared_home, formation, duties);
        let metrics = Arc::clone(&soil.instruments.metrics);
        membership::membership_below(
            root,
            settings,
            metrics,
            presence.clone(),
            me,
            control.watch(),
        );
        let control = Arc::new(control);
        Self { control, presence, addresses, identity, acts, home: Some(home) }
    }

    /// Of a node that belongs to none, and knows what `control` tells it.
    pub fn none(soil: &Soil, control: Arc<dyn ControlApi>) -> Self {
        let presence = PresenceBoard::default();
        let addresses = Arc::new(Addresses::new(Arc::clone(&control), presence.clone()));
        let acts: Arc<dyn GroupActs> = Arc::new(Acts(Arc::clone(&soil.groups)));
        Self { control, presence, addresses, identity: Arc::default(), acts, home: None }
    }
}

/// By what this node shows others that it is one, where certificates do not.
pub(super) fn peer_proof(settings: &Settings) -> PeerProof {
    settings.gossip.key.as_ref().map_or_else(PeerProof::default, |key| PeerProof::of(&key.bytes()))
}

/// What the node tells the catalogue of itself: what it tells by gossip, and where it gossips.
fn node_self(settings: &Settings, me: &Me) -> NodeSelf {
    let gossip = &settings.gossip;
    let Me { uuid, name, rpc_addr, protocol_max, labels, known: _ } = me.clone();
    NodeSelf {
        uuid,
        name,
        rpc_addr,
        gossip_addr: gossip.advertise.unwrap_or(gossip.addr).to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        protocol_min: PROTOCOL_MIN,
        protocol_max,
        labels,
    }
}

/// What becoming a member changes.
pub(super) struct ClusterHome {
    soil: Soil,
    data_dir: Arc<DataDir>,
    parent: Supervisor,
    group: Mutex<Option<Partition>>,
    identity: Arc<OnceLock<LocalIdentity>>,
    replicators: Replicators,
}

struct Replicators {
    peers: Arc<Peers>,
    above: Supervisor,
    addresses: Arc<Addresses>,
    known: KnownMembers,
}

impl std::fmt::Debug for ClusterHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterHome({:?})", self.data_dir.cluster())
    }
}

impl ClusterHome {
    /// The replica of the controller's group, where there is one.
    pub fn group(&self) -> Option<Partition> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this node talks to the others as who it is.
    fn introduce(&self) {
        let Some(Belonging { cluster_id, node }) = self.data_dir.cluster().cloned() else { return };
        let uuid = self.data_dir.node_id().to_owned();
        let me = LocalIdentity { cluster_id, node, uuid };
        if self.identity.set(me.clone()).is_err() {
            return;
        }
        let Soil { settings, logger, leadership, groups, shard, seed, tls, .. } = &self.soil;
        let Replicators { peers, above, addresses, known } = &self.replicators;
        let logger = logger.new(o!("actor" => above.path().to_string()));
        match known.load() {
            // Whoever let this node in has told already.
            Ok(members) if members.is_empty() => {}
            Ok(members) => addresses.told(members),
            Err(error) => warn!(logger, "the members of the last run are not known";
                "error" => %error),
        }
        let parts = PeersParts {
            me,
            addresses: Arc::clone(addresses),
            leadership: Arc::clone(leadership),
            events: Arc::new(TellReplicas(Arc::clone(groups))),
            options: ReplicatorOptions {
                outbox: OutboxLimits {
                    messages_max: settings.replicator.queue_messages_max as usize,
                    bytes_max: settings.replicator.queue_bytes_max.bytes(),
                },
                proof: peer_proof(settings),
                ..ReplicatorOptions::default()
            },
            tls: tls.clone(),
            seed: *seed,
        };
        let (peers, above, place) = (Arc::clone(peers), above.clone(), shard.clone());
        // Ends with the tree.
        actix_rt::spawn(follow_members(peers, above, place, parts, known.clone(), logger));
    }
}

impl Home for ClusterHome {
    fn cluster(&self) -> Option<(String, NodeId)> {
        self.data_dir.cluster().map(|belonging| (belonging.cluster_id.clone(), belonging.node))
    }

    fn set_cluster(&self, cluster_id: &str, node: NodeId) -> Result<(), String> {
        let belonging = Belonging { cluster_id: cluster_id.into(), node };
        self.data_dir.set_cluster(&belonging).map_err(|error| with_causes(&error))?;
        self.introduce();
        Ok(())
    }

    fn meet(&self, members: &[(NodeId, String, String)]) {
        let members = members.iter().cloned();
        let told = members.map(|(node, uuid, rpc_addr)| {
            // Its name comes with the catalogue.
            (node, Whereabouts { uuid, rpc_addr, name: String::new() })
        });
        self.replicators.addresses.told(told);
    }

    fn plant(&self, me: ReplicaId, birth: Formation) -> PartitionHandle {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(planted) = &*group {
            return planted.handle.clone();
        }
        let plan = PartitionPlan {
            group: GroupId::CONTROLLER,
            place: None,
            me,
            founders: match birth {
                Formation::Found => vec![me],
                Formation::Join | Formation::Known => Vec::new(), // the group's log tells
            },
            settings: TopicSettings::default(),
        };
        let planted = Partition::plant(&self.parent, &self.soil, &plan)
            .expect("the tree runs, and the name is this group's own");
        let handle = planted.handle.clone();
        *group = Some(planted);
        drop(group);
        self.introduce();
        handle
    }
}

/// The groups of this node, by their actors.
#[derive(Debug)]
struct Acts(Arc<Groups>);

impl Acts {
    fn of(&self, group: GroupId) -> Result<crate::actors::groups::Here, String> {
        self.0.get(group).ok_or_else(|| format!("this node has no replica of {group}"))
    }
}

impl GroupActs for Acts {
    fn desire(&self, group: GroupId, replicas: Vec<ReplicaId>) -> Result<(), String> {
        self.of(group)?.desire(replicas);
        Ok(())
    }

    fn transfer(&self, group: GroupId, to: Option<ReplicaId>) -> Result<(), String> {
        self.of(group)?.raft.tell(Transfer { to }).map_err(|refused| refused.to_string())
    }
}

/// Calls to other nodes, a connection each: they are rare.
#[derive(Debug, Clone)]
struct Calls {
    tls: Option<ClientTls>,
    proof: PeerProof,
}

impl Calls {
    async fn connect(&self, addr: &str) -> Result<PeerClient, ControlError> {
        let client = PeerClient::connect(addr, CALL_MAX, self.tls.as_ref()).await;
        Ok(client.map_err(not_sent)?.proving(&self.proof))
    }
}

impl PeerCalls for Calls {
    fn change(
        &self,
        addr: String,
        cluster_id: String,
        from: NodeId,
        command: Bytes,
    ) -> Answering<Answered<Bytes>> {
        let calls = self.clone();
        Box::pin(async move {
            let mut client = calls.connect(&addr).await?;
            let asked = pb::ChangeRequest { cluster_id, from: from.0, command };
            let answer = client.change(asked).await.map_err(denied)?;
            Ok(match answer.ask_addr.is_empty() {
                true => Answered::Here(answer.outcome),
                false => Answered::AskAt(answer.ask_addr),
            })
        })
    }

    fn join(&self, addr: String, asked: JoinAsked) -> Answering<Answered<Joined>> {
        let calls = self.clone();
        Box::pin(async move {
            let mut client = calls.connect(&addr).await?;
            let JoinAsked { node, cluster_id } = asked;
            let NodeSelf { uuid, name, rpc_addr, gossip_addr, version, .. } = node;
            let answer = client.join(pb::JoinRequest {
                uuid,
                name,
                rpc_addr,
                gossip_addr,
                version,
                protocol_min: node.protocol_min,
                protocol_max: node.protocol_max,
                labels: node.labels.into_iter().collect(),
                cluster_id,
            });
            let answer = answer.await.map_err(denied)?;
            if !answer.ask_addr.is_empty() {
                return Ok(Answered::AskAt(answer.ask_addr));
            }
            if answer.node == 0 || answer.cluster_id.is_empty() {
                let message = format!("{addr} let this node in and did not say as whom");
                return Err(ControlError::Unknown { message });
            }
            let members = answer.members.into_iter();
            Ok(Answered::Here(Joined {
                cluster_id: answer.cluster_id,
                node: NodeId(answer.node),
                members: members.map(|m| (NodeId(m.node), m.uuid, m.rpc_addr)).collect(),
            }))
        })
    }
}

/// Nothing was asked yet: nothing was changed.
fn not_sent(error: ClientError) -> ControlError {
    ControlError::Unavailable { message: with_causes(&error), retry_after: RETRY_AFTER }
}

fn denied(error: ClientError) -> ControlError {
    let ClientError::Refused(refusal) = &error else {
        return ControlError::Unknown { message: with_causes(&error) };
    };
    let message = refusal.message.clone();
    let rejected = |kind| ControlError::Rejected(Rejection { kind, message: message.clone() });
    match Denial::of(refusal) {
        Denial::Exists => rejected(RejectionKind::Exists),
        Denial::NotFound => rejected(RejectionKind::NotFound),
        Denial::NotNow => rejected(RejectionKind::NotNow),
        Denial::Foreign => rejected(RejectionKind::Foreign),
        Denial::Invalid => ControlError::Invalid { message },
        Denial::Unavailable => ControlError::Unavailable { message, retry_after: RETRY_AFTER },
        Denial::Unknown => ControlError::Unknown { message },
    }
}
