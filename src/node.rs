//! The node: the only file that knows everyone. It builds the supervision tree from settings; with
//! `node/running.rs` it is the in-process API: the binary is a thin `main` on it.
//!
//! ```text
//! node                         one-for-one; gives up → the process ends with its own exit code
//! ├─ partitions                one-for-one
//! │  └─ log/0 …                one-for-all, then quarantine: log ─ raft      (shard thread)
//! ├─ access                    keeps the door what the catalogue says      (control thread)
//! ├─ planter                   makes the partitions those of the catalogue  (control thread)
//! ├─ housekeeping                                                           (control thread)
//! ├─ membership                 one-for-one: gossip                         (control thread)
//! └─ frontends                 one-for-one: grpc (shard thread), http (control thread)
//! ```

mod access;
mod audit;
mod certificates;
mod cluster;
pub mod controller;
mod files;
mod freshness;
mod front;
mod handover;
mod inside;
mod instruments;
mod membership;
mod mirror;
mod partition;
mod partitions;
pub mod peers;
mod planter;
mod readings;
mod rehearsal;
mod running;
mod task;
mod topics;

pub use crate::frontends::cluster::ClusterView;
pub use mirror::MirrorPlan;
pub use partitions::{Partitions, PlantError};

use crate::actors::control::ControlApi;
use crate::actors::groups::Groups;
use crate::actors::housekeeping::{self, HousekeepingActor, Tended};
use crate::actors::leadership::Leadership;
use crate::actors::observer::{LogLevelControl, ObserveApi, Observer};
use crate::actors::peers::PeerPost;
use crate::actors::readiness::NodeInfo;
use crate::actors::replicator::Peers;
use crate::frontends::forward::Forwarder;
use crate::frontends::grpc::{AdminService, PeerParts, PeerService};
use crate::frontends::listener;
use crate::frontends::route::Route;
use crate::guards::tls::{ExpectedServer, TlsError};
use crate::log::disk::{Disk, RealDisk};
use crate::model::{Clock, SystemClock};
use crate::observe::metrics::Measure;
use crate::observe::{Complaints, CrashSink, Hub, HubLimits, MessageFilter};
use crate::ops::audit::AuditLog;
use crate::ops::crash::CrashStore;
use crate::ops::data_dir::{self, DataDir, DataDirError};
use crate::ops::logger::LogControl;
use crate::ops::settings::Settings;
use crate::ops::telemetry::{Telemetry, TelemetryError};
use crate::supervision::{
    Environment, Exhausted, Intensity, Order, Place, Shard, ShardThreads, Strategy, Supervisor,
    SupervisorSpec, TreeHandle,
};
use access::Access;
use audit::{AuditCopy, tell_cut_off};
use certificates::Certificates;
use cluster::{Cluster, ClusterHome};
use front::Seams;
use handover::HandOver;
use inside::{ByFacts, OwnLogger};
use mirror::{Mirror, MirrorControl};
use partition::{Soil, log_options};
use partitions::Registry;
use readings::Readings;
use slog::{Logger, info, o};
use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use topics::NodeTopics;

/// How often retention and checkpoints are looked after.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);
/// What a front end may take beyond the grace of its clients, to close what is left.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A port cannot be listened on.
    #[error("cannot listen on {addr} for {what}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// Which front end.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log's settings contradict each other.
    #[error(transparent)]
    Options(#[from] crate::log::LogError),
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Metrics and traces cannot be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

/// What a node is started with beside its settings.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the log is.
    pub disk: Arc<dyn Disk>,
    /// Decides on every wait, and stamps records.
    pub clock: Arc<dyn Clock>,
    /// Where diagnostics go.
    pub logger: Logger,
    /// What decides which of them, where that can be changed while the node runs.
    pub log_control: Option<LogControl>,
    /// Decides what is left to chance; `None`: the time of the start does.
    pub seed: Option<u64>,
    /// Set where the node is to be a mirror, and part of no cluster.
    pub mirror: Option<MirrorPlan>,
}

impl Surroundings {
    /// The machine's disk and clock, and a logger whose level is its own affair.
    pub fn of(logger: Logger) -> Self {
        let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
        Self { disk, clock, logger, log_control: None, seed: None, mirror: None }
    }
}

/// What must be gone once a node has stopped, by name.
pub type Trace = (&'static str, Weak<dyn Any + Send + Sync>);

/// A running node. Dropping it without [`Node::shutdown`] is a crash as far as the disk is
/// concerned: nothing acknowledged is lost.
#[derive(Debug)]
pub struct Node {
    tree: TreeHandle,
    partitions: Partitions,
    shard_threads: ShardThreads,
    hub: Arc<Hub>,
    observer: Arc<dyn ObserveApi>,
    crashes: Arc<CrashStore>,
    data_dir: Arc<DataDir>,
    rpc_addr: SocketAddr,
    http_addr: SocketAddr,
    logger: Logger,
    telemetry: Option<Telemetry>,
    view: ClusterView,
    peers: Arc<Peers>,
    home: Option<Arc<ClusterHome>>,
    certificates: Option<Arc<Certificates>>,
    hand_over: HandOver,
    audit: AuditLog,
}

impl Node {
    /// Starts a node on the current actix system and returns once its ports are open; recovery goes
    /// on meanwhile, see [`Node::ready`]. Must be called on a thread that runs an actix system.
    ///
    /// # Errors
    /// [`NodeError`]: nothing is left behind then.
    pub fn start(settings: &Settings, logger: Logger) -> Result<Self, NodeError> {
        Self::start_with(settings, Surroundings::of(logger))
    }

    /// As [`Node::start`], with the log on another disk, say, or levels that can be changed.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with(settings: &Settings, surroundings: Surroundings) -> Result<Self, NodeError> {
        let Surroundings { disk, clock, logger, log_control, seed, mirror: mirrored } =
            surroundings;
        log_options(&settings.log).validate()?;
        let data_dir = Arc::new(DataDir::open(&settings.data_dir)?);
        mirror::check(&data_dir, mirrored.as_ref())?;
        has_controller(&*disk, &settings.data_dir, data_dir.cluster())?;
        let named = |actor: &'static str| logger.new(o!("actor" => actor));
        let told_by = named("node");
        let certificates = Certificates::open(settings, &clock, told_by)?;
        let tls = certificates.as_ref().map(|certificates| Arc::clone(&certificates.tls));
        let rpc = listen(settings.rpc.addr, "gRPC")?;
        let http = listen(settings.http.addr, "HTTP")?;
        let (instruments, telemetry) = instruments::make(settings, &data_dir, &clock, &logger)?;
        let filter = log_control.clone().map(|control| Arc::new(control) as Arc<dyn MessageFilter>);
        let limits = HubLimits {
            entries_max: settings.recorder.messages_max as usize,
            lines_per_second_max: u64::from(settings.logger.messages_per_second_max),
        };
        let hub = Hub::new(logger.clone(), filter, limits);
        let crashes = CrashStore::new(settings, logger.clone());
        let root = Supervisor::new(
            supervisor("node", Strategy::OneForOne, Exhausted::Escalate, settings),
            Environment {
                clock: Arc::clone(&clock),
                seed: seed.unwrap_or_else(|| clock.wall().0.unsigned_abs()),
                logger: logger.clone(),
                hub: Arc::clone(&hub),
                crashes: Some(Arc::clone(&crashes) as Arc<dyn CrashSink>),
            },
        );
        let shard = Shard::new("duramen-shard-0");
        let shard_threads = shard.threads();
        let shard = Place::Shard(shard);
        let (groups, leadership) = (Arc::<Groups>::default(), Arc::<Leadership>::default());
        let peers = Arc::<Peers>::default();
        let soil = Soil {
            settings: Arc::new(settings.clone()),
            disk,
            clock: Arc::clone(&clock),
            logger: logger.clone(),
            instruments: instruments.clone(),
            shard: shard.clone(),
            closers: Arc::default(),
            groups: Arc::clone(&groups),
            leadership: Arc::clone(&leadership),
            post: Arc::clone(&peers) as Arc<dyn PeerPost>,
            tls: tls.as_ref().map(|tls| tls.client().expecting(ExpectedServer::Node)),
            seed: seed.unwrap_or_else(|| clock.wall().0.unsigned_abs()),
        };
        let partitions = Partitions::plant_recorded(&root, soil.clone(), Arc::clone(&data_dir))?;
        if data_dir.cluster().is_none() && !settings.gossip.joins() && mirrored.is_none() {
            partitions.found()?;
        }
        let audit = AuditLog::new(data_dir.path(), Arc::clone(&clock), named("node"));
        tell_cut_off(&audit, data_dir.path(), &named("node/audit"));
        let told_by = named("node/access");
        let access = Access::new(settings, &data_dir, &clock, &audit, told_by);
        let rpc_addr = local_addr(&rpc, settings.rpc.addr);
        let http_addr = local_addr(&http, settings.http.addr);
        let read_only = mirrored.as_ref().map(MirrorPlan::read_only);
        let mut copies = None;
        let cluster = match mirrored {
            None => Cluster::below(&root, &soil, &data_dir, Arc::clone(&peers), rpc_addr),
            Some(plan) => {
                let name = settings.node.shown_name();
                let control =
                    MirrorControl::new(&plan, data_dir.node_id(), name, rpc_addr.to_string());
                let control = Arc::new(control);
                let cluster = Cluster::none(&soil, Arc::clone(&control) as Arc<dyn ControlApi>);
                let registry = partitions.registry().clone();
                let mirror = Mirror::new(plan, soil, Arc::clone(&data_dir), registry, control);
                copies = Some(Arc::clone(&mirror.copies));
                mirror.below(&root);
                cluster
            }
        };
        housekeeping_below(&root, partitions.registry().clone(), cluster.home.clone());
        let info = Arc::new(NodeInfo {
            node_id: data_dir.node_id().to_owned(),
            rpc_addr: rpc_addr.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
        });
        let control = Arc::clone(&cluster.control);
        let told_by = named("node/planter");
        access.clone().below(&root, Arc::clone(&control));
        planter::below(&root, partitions.clone(), Arc::clone(&control), told_by);
        let hand_over = HandOver {
            groups: Arc::clone(&groups),
            leadership: Arc::clone(&leadership),
            logger: named("node"),
        };
        let peer = PeerService::new(PeerParts {
            me: Arc::clone(&cluster.identity),
            inbox: groups,
            leadership: Arc::clone(&leadership),
            addresses: Arc::clone(&cluster.addresses),
            control: Arc::clone(&control),
            clock: Arc::clone(&clock),
            logger: named("node/frontends/grpc"),
        });
        let presence = cluster.presence.clone();
        let view = ClusterView {
            control: Arc::clone(&control),
            leadership: Arc::clone(&leadership),
            presence: presence.clone(),
            peers: Arc::clone(&peers) as Arc<dyn PeerPost>,
            gate: access.gate.clone(),
        };
        let admin = AdminService {
            view: view.clone(),
            acts: Arc::clone(&cluster.acts),
            anyone_may_act: settings.insecure_listen,
            wait_max: settings.rpc.request_deadline,
        };
        let topics = NodeTopics {
            partitions: partitions.registry().clone(),
            control: Arc::clone(&control),
            leadership,
            presence: presence.clone(),
            read_only,
        };
        if settings.access.audit_topic && topics.read_only.is_none() {
            let tls = tls.as_ref().map(|tls| tls.client().expecting(ExpectedServer::Node));
            let request_max = settings.rpc.message_bytes_max.len();
            let forwarder = Forwarder::new(request_max, tls, access.door.proof().clone());
            let forwarder = settings.rpc.forward.then_some(forwarder);
            AuditCopy {
                audit: audit.clone(),
                route: Route { topics: topics.clone(), forwarder },
                control: Arc::clone(&control),
                gate: access.gate.clone(),
                clock: Arc::clone(&clock),
                logger: named("node/audit"),
            }
            .below(&root);
        }
        // Together: while one drains the other must not go on taking requests.
        let front = root.supervisor(SupervisorSpec {
            order: Order::Together,
            ..supervisor("frontends", Strategy::OneForOne, Exhausted::Escalate, settings)
        });
        let complaints = Complaints::new(Arc::clone(&clock), named("node/frontends"));
        let observer: Arc<dyn ObserveApi> = Arc::new(Observer {
            tree: root.handle(),
            hub: Arc::clone(&hub),
            clock: Arc::clone(&clock),
            log_levels: log_control
                .clone()
                .map(|control| Arc::new(OwnLogger(control)) as Arc<dyn LogLevelControl>),
            explainer: Arc::new(ByFacts {
                tree: root.handle(),
                hub: Arc::clone(&hub),
                partitions: partitions.registry().clone(),
                control: Arc::clone(&control),
                complaints: Arc::clone(&complaints),
                clock: Arc::clone(&clock),
                hang_after: settings.supervision.hang_after,
            }),
            entrance: root.path().child("frontends").child("grpc"),
            logger: named("node"),
        });
        let started_at = clock.wall();
        let readings = Readings::new(
            partitions.registry().clone(),
            instruments.clone(),
            Arc::clone(&hub),
            log_control,
            Arc::clone(&crashes),
            (Arc::clone(&peers), copies),
            started_at,
        );
        if let Some(telemetry) = &telemetry {
            telemetry.measure(Arc::clone(&readings) as Arc<dyn Measure>);
        }
        if let Some(certificates) = &certificates {
            readings.secured(certificates);
        }
        let readings_of_tree = Arc::clone(&readings);
        let seams = Seams {
            topics,
            peer,
            admin,
            info,
            clock,
            complaints,
            observer: Arc::clone(&observer),
            settings,
            door: access.door,
            instruments,
            readings,
            tls,
        };
        seams.grpc_below(&front, shard, rpc, named("node/frontends/grpc"));
        seams.http_below(&front, http, named("node/frontends/http"));
        let tree = root.start();
        readings_of_tree.started(&tree);
        info!(logger, "listening"; "rpc" => %rpc_addr, "http" => %http_addr,
            "tls" => certificates.is_some());
        if let Some(certificates) = certificates.clone() {
            actix_rt::spawn(certificates.watch(tree.clone()));
        }
        Ok(Self {
            tree,
            partitions,
            shard_threads,
            hub,
            observer,
            crashes,
            data_dir,
            rpc_addr,
            http_addr,
            logger,
            telemetry,
            view,
            peers,
            home: cluster.home,
            hand_over,
            certificates,
            audit,
        })
    }
}

/// Whoever is a member has voted in the controller's group.
fn has_controller(
    disk: &dyn Disk,
    directory: &Path,
    member_of: Option<&data_dir::Cluster>,
) -> Result<(), DataDirError> {
    const CONTROLLER: &str = "controller";
    match member_of {
        Some(cluster) if !disk.exists(&directory.join(CONTROLLER)).unwrap_or(true) => {
            Err(cluster.wiped(directory, CONTROLLER))
        }
        _ => Ok(()),
    }
}

fn housekeeping_below(root: &Supervisor, partitions: Registry, home: Option<Arc<ClusterHome>>) {
    let tended: housekeeping::ListTended = Arc::new(move || {
        let (all, controller) = (partitions.all(), home.as_ref().and_then(|home| home.group()));
        let planted = all.iter().filter_map(|(_, _, local)| local.planted());
        let tended = planted.chain(&controller).map(|partition| Tended {
            log: partition.log.clone(),
            handle: partition.handle.clone(),
            has_age_limit: {
                let options = &partition.plan.options;
                options.retention_age_max.is_some() || options.segment_age_max.is_some()
            },
        });
        tended.collect()
    });
    let _ = root.child(housekeeping::spec(), Place::Control, move |_, seat| {
        HousekeepingActor::new(seat, Arc::clone(&tended), HOUSEKEEPING_INTERVAL)
    });
}

fn supervisor(
    name: &'static str,
    strategy: Strategy,
    exhausted: Exhausted,
    settings: &Settings,
) -> SupervisorSpec {
    let intensity = Intensity {
        restarts_max: settings.supervision.restarts_max,
        window: settings.supervision.window,
    };
    SupervisorSpec { intensity, ..SupervisorSpec::new(name, strategy, exhausted) }
}

fn listen(addr: SocketAddr, what: &'static str) -> Result<TcpListener, NodeError> {
    listener::listen(addr).map_err(|source| NodeError::Listen { addr, what, source })
}

fn local_addr(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
