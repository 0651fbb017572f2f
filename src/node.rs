//! The node: the only file that knows everyone. It builds the supervision tree from settings and
//! is the in-process API: the binary is a thin `main` on it.
//!
//! ```text
//! node                         one-for-one; gives up → the process ends with its own exit code
//! ├─ partitions                one-for-one
//! │  └─ log/0                  one-for-all, then quarantine: log ─ raft      (shard thread)
//! ├─ housekeeping                                                           (control thread)
//! └─ frontends                 one-for-one: grpc (shard thread), http (control thread)
//! ```

mod instruments;
mod readings;

use crate::actors::frontend::{self, FrontendActor, Serve};
use crate::actors::gather::GatherOptions;
use crate::actors::handle::PartitionHandle;
use crate::actors::housekeeping::{self, HousekeepingActor};
use crate::actors::log::{self as log_actor, LogActor, LogPlan, LogPlanParts};
use crate::actors::partition::{PartitionApi, PartitionState};
use crate::actors::published::Published;
use crate::actors::raft::{self as raft_actor, RaftActor, RaftOptions};
use crate::actors::readiness::{Condition, NodeInfo, Readiness, SubsystemStatus};
use crate::frontends::drain::Drain;
use crate::frontends::grpc::{GrpcFrontend, HealthSwitch, RpcLimits};
use crate::frontends::http::{HttpFrontend, HttpLimits};
use crate::log::LogOptions;
use crate::log::batch::BatchLimits;
use crate::log::disk::{Disk, RealDisk};
use crate::model::{Clock, SystemClock};
use crate::observe::metrics::Measure;
use crate::observe::{Hub, Instruments, MessageFilter};
use crate::ops::data_dir::{DataDir, DataDirError};
use crate::ops::logger::LogControl;
use crate::ops::settings::Settings;
use crate::ops::telemetry::{Telemetry, TelemetryError};
use crate::supervision::{
    ActorRef, Admission, Environment, Exhausted, Intensity, Order, Place, Shard, Strategy,
    Supervisor, SupervisorSpec, TreeHandle,
};
use readings::Readings;
use slog::{Logger, info, o, warn};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often retention and checkpoints are looked after.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);
/// What a front end may take beyond the grace of its clients, to close what is left.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages that an actor's recorder keeps.
const RECORDER_MESSAGES: usize = 256;
/// An entry takes no further proposal beyond this many bytes.
const ENTRY_BYTES_MAX: usize = 8 << 20;

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
    /// Metrics and traces cannot be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

/// What a node is started with beside its settings.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the log is.
    pub disk: Arc<dyn Disk>,
    /// Where diagnostics go.
    pub logger: Logger,
    /// What decides which of them, where that can be changed while the node runs.
    pub log_control: Option<LogControl>,
}

impl Surroundings {
    /// The machine's disk, and a logger whose level is its own affair.
    pub fn of(logger: Logger) -> Self {
        Self { disk: Arc::new(RealDisk), logger, log_control: None }
    }
}

/// A running node. Dropping it without [`Node::shutdown`] is a crash as far as the disk is
/// concerned: nothing acknowledged is lost.
#[derive(Debug)]
pub struct Node {
    tree: TreeHandle,
    partition: PartitionHandle,
    log_plan: Arc<LogPlan>,
    hub: Arc<Hub>,
    data_dir: DataDir,
    rpc_addr: SocketAddr,
    http_addr: SocketAddr,
    logger: Logger,
    telemetry: Option<Telemetry>,
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
        let Surroundings { disk, logger, log_control } = surroundings;
        log_options(settings).validate()?;
        let data_dir = DataDir::open(&settings.data_dir)?;
        let rpc = listen(settings.rpc.addr, "gRPC")?;
        let http = listen(settings.http.addr, "HTTP")?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (instruments, telemetry) = instruments::make(settings, &data_dir, &clock, &logger)?;
        let filter = log_control.clone().map(|control| Arc::new(control) as Arc<dyn MessageFilter>);
        let hub = Hub::new(logger.clone(), filter, RECORDER_MESSAGES);
        let root = Supervisor::new(
            supervisor("node", Strategy::OneForOne, Exhausted::Escalate, settings),
            Environment {
                clock: Arc::clone(&clock),
                seed: clock.wall().0.unsigned_abs(),
                logger: logger.clone(),
                hub: Arc::clone(&hub),
            },
        );
        let shard = Place::Shard(Shard::new("duramen-shard-0"));
        let partition =
            Partition::plant(&root, &shard, settings, &disk, &clock, &logger, &instruments);
        housekeeping_below(&root, partition.log.clone());
        let rpc_addr = local_addr(&rpc, settings.rpc.addr);
        let http_addr = local_addr(&http, settings.http.addr);
        let info = Arc::new(NodeInfo {
            node_id: data_dir.node_id().to_owned(),
            rpc_addr: rpc_addr.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
        });
        // Together: while one drains the other must not go on taking requests.
        let front = root.supervisor(SupervisorSpec {
            order: Order::Together,
            ..supervisor("frontends", Strategy::OneForOne, Exhausted::Escalate, settings)
        });
        let (handle, started_at) = (partition.handle.clone(), clock.wall());
        let readings = Readings::new(
            handle.clone(),
            instruments.clone(),
            Arc::clone(&hub),
            log_control,
            started_at,
        );
        if let Some(telemetry) = &telemetry {
            telemetry.measure(Arc::clone(&readings) as Arc<dyn Measure>);
        }
        let readings_of_tree = Arc::clone(&readings);
        let seams = Seams { partition: handle, info, clock, settings, instruments, readings };
        seams.grpc_below(&front, shard, rpc, logger.new(o!("actor" => "node/frontends/grpc")));
        seams.http_below(&front, http, logger.new(o!("actor" => "node/frontends/http")));
        let tree = root.start();
        readings_of_tree.started(&tree);
        info!(logger, "listening"; "rpc" => %rpc_addr, "http" => %http_addr);
        let Partition { handle, plan, .. } = partition;
        Ok(Self {
            tree,
            partition: handle,
            log_plan: plan,
            hub,
            data_dir,
            rpc_addr,
            http_addr,
            logger,
            telemetry,
        })
    }

    /// Where gRPC is served.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The node's identity, kept in its data directory.
    pub fn node_id(&self) -> &str {
        self.data_dir.node_id()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// The topic `log`, partition 0: append, read and describe without a network.
    pub fn log(&self) -> &PartitionHandle {
        &self.partition
    }

    /// The supervision tree: look at it, subscribe to it, act on it.
    pub fn tree(&self) -> &TreeHandle {
        &self.tree
    }

    /// The recorders of its actors, and taps on them.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Waits until recovery is over and says how it ended: serving, or out of service with a reason.
    pub async fn ready(&self) -> PartitionState {
        loop {
            let state = self.partition.describe().state;
            if !matches!(state, PartitionState::Recovering | PartitionState::Restarting) {
                return state;
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    /// Resolves, with the reason, when the root supervisor has given up.
    pub async fn failed(&self) -> String {
        match self.tree.outcome().await {
            Err(escalation) => escalation.to_string(),
            // A shutdown: whoever waits here is cancelled by it.
            Ok(()) => std::future::pending().await,
        }
    }

    /// Stops in order: no new connections, requests under way finish within the configured grace
    /// time, the log is flushed and closed. Waits for the actors for at most `grace` and a few
    /// seconds, then for the log for at most `grace`; what is not done by then is given up, which
    /// loses nothing that was acknowledged.
    pub async fn shutdown(self, grace: Duration) {
        let patience = grace + 3 * FAREWELL;
        if tokio::time::timeout(patience, self.tree.shutdown()).await.is_err() {
            warn!(self.logger, "the grace time is over"; "grace" => ?grace);
        }
        let closed = async {
            while !self.log_plan.is_closed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(grace, closed).await.is_err() {
            warn!(self.logger, "the log was not closed in time; it will be recovered");
        }
        if let Some(telemetry) = self.telemetry {
            telemetry.shutdown(grace.max(FAREWELL)).await;
        }
    }
}

/// The one partition of the one topic.
struct Partition {
    handle: PartitionHandle,
    log: ActorRef<LogActor>,
    plan: Arc<LogPlan>,
}

impl Partition {
    fn plant(
        root: &Supervisor,
        shard: &Place,
        settings: &Settings,
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        logger: &Logger,
        instruments: &Instruments,
    ) -> Self {
        let partitions = root.supervisor(supervisor(
            "partitions",
            Strategy::OneForOne,
            Exhausted::Escalate,
            settings,
        ));
        // One for all: a Raft core never comes back on a log that was not recovered with it.
        let spec = supervisor("log/0", Strategy::OneForAll, Exhausted::Quarantine, settings);
        let supervisor = partitions.supervisor(spec);
        let options = log_options(settings);
        let limits = options.batch;
        let published = Arc::new(Published::default());
        let logger = logger.new(o!("actor" => "node/partitions/log/0/log"));
        let plan = Arc::new(LogPlan::new(LogPlanParts {
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            directory: partition_directory(&settings.data_dir),
            options,
            durability: settings.log.durability,
            sync_interval: settings.log.sync_interval,
            published: Arc::clone(&published),
            logger,
            instruments: instruments.clone(),
        }));
        let log = {
            let plan = Arc::clone(&plan);
            let mut spec = log_actor::spec();
            spec.hang_after = settings.supervision.hang_after;
            supervisor.child(spec, shard.clone(), move |context, seat| {
                LogActor::new(context, seat, Arc::clone(&plan))
            })
        };
        let raft = {
            let (log, published) = (log.clone(), Arc::clone(&published));
            let options = raft_options(settings);
            let instruments = instruments.clone();
            let mut spec = raft_actor::spec();
            spec.hang_after = settings.supervision.hang_after;
            spec.admission = Admission {
                messages_max: settings.admission.messages_max as usize,
                bytes_max: settings.admission.bytes_max.len(),
            };
            spec.mailbox_len_max = spec.admission.messages_max;
            supervisor.child(spec, shard.clone(), move |_, seat| {
                let (published, instruments) = (Arc::clone(&published), instruments.clone());
                RaftActor::new(seat, log.clone(), published, options, instruments)
            })
        };
        let durability = settings.log.durability;
        let (clock, instruments) = (Arc::clone(clock), instruments.clone());
        let handle = PartitionHandle::new(raft, published, clock, limits, durability, instruments);
        Self { handle, log, plan }
    }
}

/// What front ends are built from.
struct Seams<'a> {
    partition: PartitionHandle,
    info: Arc<NodeInfo>,
    clock: Arc<dyn Clock>,
    settings: &'a Settings,
    instruments: Instruments,
    readings: Arc<Readings>,
}

impl Seams<'_> {
    fn grpc_below(&self, front: &Supervisor, place: Place, socket: TcpListener, logger: Logger) {
        let rpc = &self.settings.rpc;
        let limits = RpcLimits {
            connections_max: rpc.connections_max as usize,
            streams_max: rpc.streams_max,
            message_bytes_max: rpc.message_bytes_max.len(),
            outstanding_batches_max: rpc.outstanding_batches_max as usize,
            request_deadline: rpc.request_deadline,
            grace: self.settings.shutdown.grace,
            ..RpcLimits::default()
        };
        let (partition, node) = (self.partition.clone(), Arc::clone(&self.info));
        let clock = Arc::clone(&self.clock);
        let (counters, instruments) = (Arc::clone(&self.readings.rpc), self.instruments.clone());
        let serve = Serve::new(move |draining| {
            let frontend = GrpcFrontend {
                partition: partition.clone(),
                node: Arc::clone(&node),
                clock: Arc::clone(&clock),
                limits: limits.clone(),
                readiness: Arc::new(NodeReadiness(partition.clone())),
                health: HealthSwitch::default(),
                counters: Arc::clone(&counters),
                instruments: instruments.clone(),
                logger: logger.clone(),
            };
            serve_until(draining, socket.try_clone(), |socket, drain| frontend.serve(socket, drain))
        });
        let spec = frontend::spec("grpc", self.settings.shutdown.grace + FAREWELL);
        let _ = front.child(spec, place, move |_, seat| FrontendActor::new(seat, serve.clone()));
    }

    fn http_below(&self, front: &Supervisor, socket: TcpListener, logger: Logger) {
        let http = &self.settings.http;
        let limits = HttpLimits {
            connections_max: http.connections_max as usize,
            body_bytes_max: http.body_bytes_max.len(),
            request_deadline: self.settings.rpc.request_deadline,
            grace: self.settings.shutdown.grace,
            ..HttpLimits::default()
        };
        let (partition, node) = (self.partition.clone(), Arc::clone(&self.info));
        let clock = Arc::clone(&self.clock);
        let readiness: Arc<dyn Readiness> = Arc::new(NodeReadiness(self.partition.clone()));
        let (counters, instruments) = (Arc::clone(&self.readings.http), self.instruments.clone());
        let readings = Arc::clone(&self.readings);
        let serve = Serve::new(move |draining| {
            let frontend = HttpFrontend {
                partition: partition.clone(),
                node: Arc::clone(&node),
                readiness: Arc::clone(&readiness),
                clock: Arc::clone(&clock),
                limits: limits.clone(),
                counters: Arc::clone(&counters),
                instruments: instruments.clone(),
                measure: Arc::clone(&readings) as Arc<dyn Measure>,
                logger: logger.clone(),
            };
            serve_until(draining, socket.try_clone(), |socket, drain| frontend.serve(socket, drain))
        });
        let spec = frontend::spec("http", self.settings.shutdown.grace + FAREWELL);
        let place = Place::Control;
        let _ = front.child(spec, place, move |_, seat| FrontendActor::new(seat, serve.clone()));
    }
}

/// Joins a front end with its actor: the actor's wish to stop becomes the front end's drain.
fn serve_until<F>(
    mut draining: frontend::Draining,
    socket: std::io::Result<TcpListener>,
    serve: impl FnOnce(TcpListener, Drain) -> F + 'static,
) -> frontend::Serving
where
    F: Future<Output = std::io::Result<()>> + 'static,
{
    Box::pin(async move {
        let socket =
            socket.map_err(|error| format!("cannot reuse the listening socket: {error}"))?;
        let (switch, drain) = Drain::channel();
        let forward = async move {
            // An error says that the actor is gone, and with it this future.
            let _ = draining.wait_for(|wanted| *wanted).await;
            switch.begin();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = serve(socket, drain) => served.map_err(|error| error.to_string()),
            () = forward => Ok(()),
        }
    })
}

/// Tells how the node is without asking an actor, so that it answers while a shard hangs.
struct NodeReadiness(PartitionHandle);

impl Readiness for NodeReadiness {
    fn readiness(&self) -> Vec<SubsystemStatus> {
        let status = self.0.describe();
        let condition = match status.state {
            PartitionState::Serving if status.reason.is_empty() => Condition::Ready,
            PartitionState::Serving | PartitionState::Quarantined => Condition::Degraded,
            PartitionState::Recovering | PartitionState::Restarting | PartitionState::Stopped => {
                Condition::NotReady
            }
        };
        let reason = match status.reason {
            reason if reason.is_empty() => reason,
            reason => format!("{}: {reason}", status.state.name()),
        };
        vec![SubsystemStatus { subsystem: "partitions/log/0".into(), condition, reason }]
    }
}

fn housekeeping_below(root: &Supervisor, log: ActorRef<LogActor>) {
    let _ = root.child(housekeeping::spec(), Place::Control, move |_, seat| {
        HousekeepingActor::new(seat, vec![log.clone()], HOUSEKEEPING_INTERVAL)
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

/// Where a partition's files are.
fn partition_directory(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("partitions").join("log").join("0")
}

fn log_options(settings: &Settings) -> LogOptions {
    let log = &settings.log;
    let defaults = LogOptions::default();
    // A frame is one request, or many small ones; each record may need a batch of its own where
    // timestamps lie too far apart to share one.
    let frame_bytes_max = log.batch_bytes_max.bytes().saturating_mul(2).saturating_add(1 << 20);
    LogOptions {
        segment_bytes_max: log.segment_bytes_max.bytes(),
        segment_age_max: log.segment_age_max,
        batch: batch_limits(settings),
        frame_bytes_max: frame_bytes_max.min(1 << 30).min(log.segment_bytes_max.bytes()),
        retention_bytes_max: log.retention_bytes.map(|bytes| bytes.bytes()),
        retention_age_max: log.retention_age,
        reserve_free_bytes: log.reserve_free_bytes.bytes(),
        ..defaults
    }
}

fn batch_limits(settings: &Settings) -> BatchLimits {
    let batch_bytes_max = settings.log.batch_bytes_max.len();
    BatchLimits {
        batch_bytes_max,
        record_bytes_max: settings.log.record_bytes_max.len(),
        decompressed_bytes_max: batch_bytes_max.saturating_mul(4),
    }
}

fn raft_options(settings: &Settings) -> RaftOptions {
    #[allow(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
    let fraction = settings.log.gather_fraction as f32;
    RaftOptions {
        gather: GatherOptions {
            fraction,
            wait_max: settings.log.gather_wait_max,
            ..GatherOptions::default()
        },
        entry_bytes_max: ENTRY_BYTES_MAX.min(settings.log.batch_bytes_max.len()),
        limits: batch_limits(settings),
    }
}

fn listen(addr: SocketAddr, what: &'static str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(addr).map_err(|source| NodeError::Listen { addr, what, source })
}

fn local_addr(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
