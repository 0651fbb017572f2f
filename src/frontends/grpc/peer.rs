//! `duramen.v1.Peer`: what other nodes of the cluster send. Checks who they are before it takes
//! anything, and hands their messages on as they come.
//!
//! One frame of a peer is in hand at a time: until it is delivered, nothing more of its connection
//! is read.

use super::dispatch::Client;
use super::refusal::Refusal;
use crate::actors::addresses::{AddressChanges, Addresses, LocalIdentity, Standing};
use crate::actors::control::{Answered, ControlApi, ControlError, JoinAsked, Joined};
use crate::actors::leadership::Leadership;
use crate::actors::replicator::Inbox;
use crate::cluster::{NodeSelf, Rejection, RejectionKind};
use crate::frontends::access::{Asker, Needed, StreamPass};
use crate::frontends::drain::Drain;
use crate::model::{Caller, Clock, GroupId, NodeId, ReplicaId, Term};
use crate::wire::pb::duramen::v1 as pb;
use crate::wire::peer::{FRAME_BYTES_MAX, PROTOCOL_MAX, PROTOCOL_MIN, message_from_pb};
use pb::peer_server::{Peer, PeerServer};
use slog::{Logger, debug, info, warn};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tonic::{Extensions, Request, Response, Status, Streaming};

/// How long a caller may take to introduce itself.
const INTRODUCTION_MAX: Duration = Duration::from_secs(10);
/// A peer that sends frame after frame is told this often that they are taken: a notice of each would
/// be as many messages again.
const NOTICE_INTERVAL: Duration = Duration::from_millis(250);
/// Of one stranger the log tells this often.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Strangers remembered for it.
const STRANGERS_MAX: usize = 64;
/// The longest text taken from a node: its uuid, name, addresses, a label.
const TEXT_BYTES_MAX: usize = 1024;
/// Labels taken from a node.
const LABELS_MAX: usize = 64;
/// The longest command taken from a node.
const COMMAND_BYTES_MAX: usize = 1 << 20;

/// The service. Clones share it.
#[derive(Clone)]
pub struct PeerService {
    parts: Arc<PeerParts>,
    strangers: Arc<Mutex<Strangers>>,
}

#[derive(Default)]
struct Strangers {
    /// When the log last told of each, by node number.
    told: BTreeMap<u32, Duration>,
    untold: u64,
}

/// What the service is made of.
pub struct PeerParts {
    /// Who this node is, from when it is a member.
    pub me: Arc<OnceLock<LocalIdentity>>,
    /// Where messages go.
    pub inbox: Arc<dyn Inbox>,
    /// Where it learns who leads.
    pub leadership: Arc<Leadership>,
    /// Where the members are.
    pub addresses: Arc<Addresses>,
    /// The catalogue, and the way to change it.
    pub control: Arc<dyn ControlApi>,
    /// Paces what is told.
    pub clock: Arc<dyn Clock>,
    /// Where it tells what happens.
    pub logger: Logger,
}

impl PeerService {
    /// Puts it together.
    pub fn new(parts: PeerParts) -> Self {
        Self { parts: Arc::new(parts), strangers: Arc::default() }
    }

    /// As a service of the gRPC port, until the drain begins.
    pub(super) fn serve(self, drain: Drain) -> PeerServer<Serving> {
        PeerServer::new(Serving { service: self, drain })
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Who this node is.
    fn me(&self) -> Result<&LocalIdentity, Status> {
        self.parts.me.get().ok_or_else(|| {
            Status::unavailable("this node is no member of a cluster yet; try again later")
        })
    }

    /// Checks an introduction. Gives back who it is, and who this node is.
    fn admit(&self, said: &pb::Introduction) -> Result<(NodeId, &LocalIdentity), Status> {
        let me = self.me()?;
        let node = NodeId(said.node);
        if said.cluster_id != me.cluster_id {
            return Err(Status::permission_denied(format!(
                "{node} is a node of another cluster ({}); this is {} of cluster {}: start it with \
                 the --join addresses of its own cluster, or on an empty directory to join this one",
                shown(&said.cluster_id),
                me.node,
                me.cluster_id
            )));
        }
        if (said.to, said.to_uuid.as_str()) != (me.node.0, me.uuid.as_str()) {
            return Err(Status::failed_precondition(format!(
                "{node} looks for {} with the directory {}, and this is {} with the directory {}: \
                 an address was given to another node, or a directory was wiped or copied; \
                 `duramen node list` tells who is where",
                NodeId(said.to),
                shown(&said.to_uuid),
                me.node,
                me.uuid
            )));
        }
        match self.parts.addresses.standing(node) {
            Standing::Unknown => Err(unknown(me.node, node)),
            Standing::Removed => Err(removed(node)),
            Standing::Member { uuid } if uuid != said.uuid => {
                Err(Status::permission_denied(format!(
                    "{node}'s directory is another one than the cluster knows (uuid {}, known is \
                     {uuid}): a wiped directory must not vote; bring the old directory back, or \
                     type `duramen node replace`",
                    shown(&said.uuid)
                )))
            }
            Standing::Member { .. } => self.check_protocol(node, said).map(|()| (node, me)),
        }
    }

    fn check_protocol(&self, node: NodeId, said: &pb::Introduction) -> Result<(), Status> {
        let (theirs, spoken) =
            (said.protocol_min..=said.protocol_max, self.parts.addresses.protocol());
        let overlap = theirs.start().max(&PROTOCOL_MIN) <= theirs.end().min(&PROTOCOL_MAX);
        if overlap && spoken.is_none_or(|protocol| theirs.contains(&protocol)) {
            return Ok(());
        }
        let spoken = spoken.map_or(String::new(), |p| format!(", its cluster protocol {p}"));
        Err(Status::failed_precondition(format!(
            "{node} (version {}) speaks protocols {} to {}, this node {PROTOCOL_MIN} to \
             {PROTOCOL_MAX}{spoken}: upgrade the older one",
            shown(&said.version),
            said.protocol_min,
            said.protocol_max
        )))
    }

    /// Tells the log of a caller that was turned away, once a second at most.
    fn tell_of_stranger(&self, said: &pb::Introduction, from: Option<SocketAddr>, why: &Status) {
        let now = self.parts.clock.monotonic();
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let Strangers { told, untold } = &mut *strangers;
        let is_recent = |at: &Duration| now.saturating_sub(*at) < TELL_INTERVAL;
        told.retain(|_, at| is_recent(at));
        if told.contains_key(&said.node) || told.len() >= STRANGERS_MAX {
            *untold += 1;
            return;
        }
        told.insert(said.node, now);
        let untold = std::mem::take(untold);
        drop(strangers);
        warn!(self.parts.logger, "a node was turned away"; "node" => %NodeId(said.node),
            "from" => from.map(|from| from.to_string()), "reason" => why.message(),
            "untold_before" => untold);
    }

    /// Delivers what a frame holds.
    fn take(&self, from: NodeId, me: NodeId, frame: pb::PeerFrame) -> Result<(), Status> {
        let wrong = |what: String| Status::invalid_argument(format!("{from} sent {what}"));
        for leads in frame.leads {
            let group = GroupId::from_raw(leads.group);
            let replica = ReplicaId::from_raw(leads.replica).filter(|r| r.node() == from);
            let (Some(group), Some(replica)) = (group, replica) else {
                return Err(wrong("news of a leader that is no replica of its own".into()));
            };
            self.parts.leadership.learn(group, Term(leads.term), Some(replica));
        }
        for message in frame.messages {
            let message = message_from_pb(message).map_err(|error| wrong(error.to_string()))?;
            if (message.from.node(), message.to.node()) != (from, me) {
                return Err(wrong(format!("a message from {} to {}", message.from, message.to)));
            }
            let (group, to) = (message.group, message.to);
            if let Err(why) = self.parts.inbox.deliver(message) {
                debug!(self.parts.logger, "a peer's message reached nobody"; "peer" => %from,
                    "group" => %group, "to" => %to, "why" => ?why);
            }
        }
        Ok(())
    }
}

/// Checks that a certificate which says which node it is of says this name; that it says one is the
/// door's to check.
fn check_name(extensions: &Extensions, name: Option<&str>) -> Result<(), Status> {
    let proved = extensions.get::<Caller>().and_then(|caller| caller.peer.as_deref());
    match proved.zip(name) {
        Some((proved, name)) if name != proved => Err(Status::permission_denied(format!(
            "the certificate is that of the node {}, and {} is who calls: a node's name is in its \
             certificate, and stays (duramen tls node {}, or --node-name)",
            shown(proved),
            shown(name),
            shown(name)
        ))),
        _ => Ok(()),
    }
}

/// The one refusal with this code: its receiver takes it as the end of its membership.
fn removed(node: NodeId) -> Status {
    Status::not_found(format!(
        "{node} was removed from the cluster: start it on an empty directory to join again"
    ))
}

fn unknown(me: NodeId, node: NodeId) -> Status {
    Status::unavailable(format!("{me} does not know a node {node} yet; try again later"))
}

/// Text of a stranger, as it may be repeated.
fn shown(text: &str) -> String {
    let short: String = text.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    if short.is_empty() { "none".into() } else { short }
}

/// The service on a port.
pub(super) struct Serving {
    service: PeerService,
    drain: Drain,
}

/// A peer's frames, as they are taken.
struct Exchange {
    service: PeerService,
    drain: Drain,
    /// Asked again when something about it changes.
    pass: StreamPass,
    frames: Streaming<pb::PeerFrame>,
    changes: AddressChanges,
    from: NodeId,
    me: NodeId,
    taken: u64,
    /// What the peer was told of that, and when it is told again.
    told: u64,
    due: Instant,
}

type NoticeStream = Pin<Box<dyn Stream<Item = Result<pb::PeerNotice, Status>> + Send>>;

impl Exchange {
    /// Takes frames until the peer is to be told of them; `None` when it ended the exchange.
    async fn next(&mut self) -> Result<Option<pb::PeerNotice>, Status> {
        loop {
            // Nobody sends the catalogue's records to one that was removed: this is how it hears.
            if self.service.parts.addresses.standing(self.from) == Standing::Removed {
                return Err(removed(self.from));
            }
            let frame = tokio::select! {
                biased;
                () = self.pass.news() => {
                    self.pass.has(Needed::Node).map_err(Refusal::from)?;
                    continue;
                }
                () = sleep_until(self.due), if self.told < self.taken => {
                    self.told = self.taken;
                    self.due = Instant::now() + NOTICE_INTERVAL;
                    return Ok(Some(pb::PeerNotice { frames: self.taken }));
                }
                () = self.changes.next() => continue,
                () = self.drain.clone().begun() => return Err(stopping()),
                frame = self.frames.message() => frame?,
            };
            let Some(frame) = frame else { return Ok(None) };
            self.service.take(self.from, self.me, frame)?;
            self.taken += 1;
        }
    }

    fn into_stream(self) -> NoticeStream {
        Box::pin(futures_util::stream::try_unfold(self, |mut exchange| async move {
            Ok(exchange.next().await?.map(|notice| (notice, exchange)))
        }))
    }
}

fn stopping() -> Status {
    Status::unavailable("the node is stopping; try again later")
}

#[tonic::async_trait]
impl Peer for Serving {
    type ExchangeStream = NoticeStream;

    async fn exchange(
        &self,
        request: Request<Streaming<pb::PeerFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let peer = request.extensions().get::<Client>().map(|client| client.peer);
        let extensions = request.extensions().clone();
        let pass = Asker::of(&extensions).pass(false);
        // Behind the subscription to changes: none goes unseen.
        pass.has(Needed::Node).map_err(Refusal::from)?;
        let mut frames = request.into_inner();
        let first = tokio::select! {
            first = tokio::time::timeout(INTRODUCTION_MAX, frames.message()) => first,
            () = self.drain.clone().begun() => return Err(stopping()),
        };
        let first = first.map_err(|_| Status::deadline_exceeded("nobody introduced itself"))??;
        let said = first.and_then(|frame| frame.introduction);
        let said = said.ok_or_else(|| {
            Status::invalid_argument("the first frame must introduce the node that sends it")
        })?;
        let (from, me) = self
            .service
            .admit(&said)
            .and_then(|admitted| {
                let name = self.service.parts.addresses.name_of(admitted.0);
                check_name(&extensions, name.as_deref()).map(|()| admitted)
            })
            .inspect_err(|why| self.service.tell_of_stranger(&said, peer, why))?;
        info!(self.service.parts.logger, "a peer connected"; "peer" => %from,
            "from" => peer.map(|peer| peer.to_string()), "version" => shown(&said.version));
        let (service, me) = (self.service.clone(), me.node);
        let drain = self.drain.clone();
        let changes = service.parts.addresses.changes();
        let due = Instant::now();
        let exchange =
            Exchange { service, drain, pass, frames, changes, from, me, taken: 0, told: 0, due };
        Ok(Response::new(exchange.into_stream()))
    }

    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinResponse>, Status> {
        let extensions = request.extensions().clone();
        let asked = join_asked(request.into_inner())?;
        check_name(&extensions, Some(&asked.node.name))?;
        let answer = self.service.parts.control.join_here(asked).await.map_err(Refusal::from)?;
        Ok(Response::new(match answer {
            Answered::AskAt(ask_addr) => pb::JoinResponse { ask_addr, ..Default::default() },
            Answered::Here(Joined { cluster_id, node, members }) => pb::JoinResponse {
                ask_addr: String::new(),
                cluster_id,
                node: node.0,
                members: members
                    .into_iter()
                    .map(|(node, uuid, rpc_addr)| pb::Member { node: node.0, uuid, rpc_addr })
                    .collect(),
            },
        }))
    }

    async fn change(
        &self,
        request: Request<pb::ChangeRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let extensions = request.extensions().clone();
        let pb::ChangeRequest { cluster_id, from, command } = request.into_inner();
        let from = NodeId(from);
        check_name(&extensions, self.service.parts.addresses.name_of(from).as_deref())?;
        let me = self.service.me()?;
        if cluster_id != me.cluster_id {
            let message = format!(
                "{from} of another cluster ({}) may not change cluster {}",
                shown(&cluster_id),
                me.cluster_id
            );
            let rejection = Rejection { kind: RejectionKind::Foreign, message };
            return Err(Refusal::from(ControlError::from(rejection)).into());
        }
        // Whoever asks for it is a member, or has nothing to change.
        match self.service.parts.addresses.standing(from) {
            Standing::Member { .. } => {}
            Standing::Removed => return Err(removed(from)),
            Standing::Unknown => return Err(unknown(me.node, from)),
        }
        if command.len() > COMMAND_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "a command of {} bytes; at most {COMMAND_BYTES_MAX} are taken",
                command.len()
            )));
        }
        let answer =
            self.service.parts.control.change_here(command).await.map_err(Refusal::from)?;
        Ok(Response::new(match answer {
            Answered::AskAt(ask_addr) => pb::ChangeResponse { ask_addr, ..Default::default() },
            Answered::Here(outcome) => pb::ChangeResponse { ask_addr: String::new(), outcome },
        }))
    }
}

fn join_asked(asked: pb::JoinRequest) -> Result<JoinAsked, Status> {
    let pb::JoinRequest { uuid, name, rpc_addr, gossip_addr, version, .. } = asked;
    let texts = [&uuid, &name, &rpc_addr, &gossip_addr, &version, &asked.cluster_id];
    let labels = asked.labels.iter().flat_map(|(key, value)| [key, value]);
    if asked.labels.len() > LABELS_MAX {
        let message = format!("a node has at most {LABELS_MAX} labels");
        return Err(Status::invalid_argument(message));
    }
    if texts.into_iter().chain(labels).any(|text| text.len() > TEXT_BYTES_MAX) {
        let message = format!("a node's names and addresses have at most {TEXT_BYTES_MAX} bytes");
        return Err(Status::invalid_argument(message));
    }
    let node = NodeSelf {
        uuid,
        name,
        rpc_addr,
        gossip_addr,
        version,
        protocol_min: asked.protocol_min,
        protocol_max: asked.protocol_max,
        labels: asked.labels.into_iter().collect(),
    };
    Ok(JoinAsked { node, cluster_id: asked.cluster_id })
}

impl fmt::Debug for PeerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerService").field(&self.parts.me.get()).finish()
    }
}
