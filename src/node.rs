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

mod front;
mod inside;
mod instruments;
mod partition;
mod readings;

use crate::actors::handle::PartitionHandle;
use crate::actors::housekeeping::{self, HousekeepingActor, Tended};
use crate::actors::log::LogPlan;
use crate::actors::observer::{LogLevelControl, ObserveApi, Observer};
use crate::actors::partition::{PartitionApi, PartitionState};
use crate::actors::readiness::NodeInfo;
use crate::log::disk::{Disk, RealDisk};
use crate::model::{Clock, SystemClock};
use crate::observe::metrics::Measure;
use crate::observe::{Complaints, CrashSink, Hub, HubLimits, MessageFilter};
use crate::ops::crash::CrashStore;
use crate::ops::data_dir::{DataDir, DataDirError};
use crate::ops::logger::LogControl;
use crate::ops::settings::Settings;
use crate::ops::telemetry::{Telemetry, TelemetryError};
use crate::supervision::{
    Environment, Exhausted, Intensity, Order, Place, Shard, ShardThreads, Strategy, Supervisor,
    SupervisorSpec, TreeHandle,
};
use front::Seams;
use inside::{ByFacts, OwnLogger};
use partition::{Ground, Partition, log_options};
use readings::Readings;
use slog::{Logger, info, o, warn};
use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::time::Duration;

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
}

impl Surroundings {
    /// The machine's disk and clock, and a logger whose level is its own affair.
    pub fn of(logger: Logger) -> Self {
        let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
        Self { disk, clock, logger, log_control: None, seed: None }
    }
}

/// A running node. Dropping it without [`Node::shutdown`] is a crash as far as the disk is
/// concerned: nothing acknowledged is lost.
#[derive(Debug)]
pub struct Node {
    tree: TreeHandle,
    partition: PartitionHandle,
    log_plan: Arc<LogPlan>,
    shard_threads: ShardThreads,
    hub: Arc<Hub>,
    observer: Arc<dyn ObserveApi>,
    crashes: Arc<CrashStore>,
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
        let Surroundings { disk, clock, logger, log_control, seed } = surroundings;
        let options = log_options(settings);
        options.validate()?;
        let data_dir = DataDir::open(&settings.data_dir)?;
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
        let ground = Ground {
            settings,
            disk,
            clock: Arc::clone(&clock),
            logger: &logger,
            instruments: instruments.clone(),
        };
        let partition = Partition::plant(&root, &shard, options, ground);
        let (log, handle) = (partition.log.clone(), partition.handle.clone());
        housekeeping_below(&root, Tended { log, handle });
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
        let complaints =
            Complaints::new(Arc::clone(&clock), logger.new(o!("actor" => "node/frontends")));
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
                partition: partition.handle.clone(),
                complaints: Arc::clone(&complaints),
                clock: Arc::clone(&clock),
                hang_after: settings.supervision.hang_after,
            }),
            entrance: root.path().child("frontends").child("grpc"),
            logger: logger.new(o!("actor" => "node")),
        });
        let (handle, started_at) = (partition.handle.clone(), clock.wall());
        let readings = Readings::new(
            handle.clone(),
            instruments.clone(),
            Arc::clone(&hub),
            log_control,
            Arc::clone(&crashes),
            started_at,
        );
        if let Some(telemetry) = &telemetry {
            telemetry.measure(Arc::clone(&readings) as Arc<dyn Measure>);
        }
        let readings_of_tree = Arc::clone(&readings);
        let seams = Seams {
            partition: handle,
            info,
            clock,
            complaints,
            observer: Arc::clone(&observer),
            settings,
            instruments,
            readings,
        };
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
            shard_threads,
            hub,
            observer,
            crashes,
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

    /// What its front ends show of its inside, and what they let an operator do.
    pub fn observer(&self) -> &Arc<dyn ObserveApi> {
        &self.observer
    }

    /// Where reports of crashes go.
    pub fn crashes(&self) -> &Arc<CrashStore> {
        &self.crashes
    }

    /// The threads of its shard, those that were given up included.
    pub fn shard_threads(&self) -> ShardThreads {
        self.shard_threads.clone()
    }

    /// What is to be gone when the node has stopped and all that it gave out is dropped, by name.
    pub fn traces(&self) -> Vec<(&'static str, Weak<dyn Any + Send + Sync>)> {
        let mut traces = self.tree.traces();
        // Held by the flush threads as well.
        traces.push(("the log's plan, or a flush thread", Arc::downgrade(&self.log_plan) as _));
        let published = Arc::downgrade(self.partition.published());
        traces.push(("what the partition published, or a handle on it", published));
        traces
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
        let reported = async {
            while !self.crashes.is_idle() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(FAREWELL, reported).await.is_err() {
            warn!(self.logger, "the last crash report was not written in time");
        }
        if let Some(telemetry) = self.telemetry {
            telemetry.shutdown(grace.max(FAREWELL)).await;
        }
    }
}

fn housekeeping_below(root: &Supervisor, tended: Tended) {
    let _ = root.child(housekeeping::spec(), Place::Control, move |_, seat| {
        HousekeepingActor::new(seat, vec![tended.clone()], HOUSEKEEPING_INTERVAL)
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
    TcpListener::bind(addr).map_err(|source| NodeError::Listen { addr, what, source })
}

fn local_addr(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
