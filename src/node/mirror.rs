//! The mirror role: a node outside of every quorum that copies one topic of another cluster and
//! serves it for reading, with the same offsets and the same batches.
//!
//! A mirror is a node whose catalogue is not agreed on but read off its source: the topic, its
//! partitions, and this node as the only one that holds them. What plants replicas and what serves
//! readers is that of any other node. It founds no cluster, joins none, and does not gossip.

mod copy;

use super::FAREWELL;
use super::files::{self, Mark};
use super::partition::{PartitionPlan, Soil, log_options};
use super::partitions::{Registry, plan_from};
use super::supervisor;
use crate::actors::control::{Answered, Answering, ControlApi, ControlError, JoinAsked, Joined};
use crate::actors::frontend::{self, Draining, FrontendActor, Serve};
use crate::cluster::{
    Catalogue, Command, Node, NodeState, OnBehalf, Outcome, Placement, Rejection, RejectionKind,
    Replica, ReplicaState, Topic, TopicSettings,
};
use crate::guards::tls::ExpectedServer;
use crate::guards::{
    Breaker, BreakerOptions, Classify, ErrorClass, Guarded, GuardedError, RetryPolicy,
};
use crate::log::{Log, ResetTo};
use crate::model::{
    Clock, NodeId, Offset, RaftIndex, ReplicaId, Term, TopicId, TopicName, with_causes,
};
use crate::observe::metrics::{Snapshot, catalogue as of};
use crate::ops::data_dir::{DataDir, DataDirError, MirrorOf};
use crate::supervision::{Exhausted, Place, Strategy, Supervisor};
use crate::wire::client::{
    Bearer, ClientError, ClientOptions, ClusterClient, ClusterOptions, WayTold,
};
use bytes::Bytes;
use slog::{Logger, info, o, warn};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A mirror's number in its own catalogue.
const ME: NodeId = NodeId(1);
/// How often the source is asked what the topic is, and how far.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long it may take to answer, all tries together.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Looks in a row without the topic, after which it is taken for deleted: one node may be new.
const MISSED_MAX: u32 = 3;
/// How often the log tells how far the copy is, while it moves.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What a mirror copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPlan {
    /// Addresses of any nodes of the source (gRPC); the others are found from there.
    pub from: Vec<String>,
    /// The topic, all partitions.
    pub topic: TopicName,
    /// Shown to the source.
    pub token: Bearer,
}

impl MirrorPlan {
    /// What a producer is told.
    pub(super) fn read_only(&self) -> Arc<str> {
        format!("this node mirrors {} from {}: produce there", self.topic, self.source()).into()
    }

    fn source(&self) -> String {
        self.from.join(",")
    }
}

/// Why a mirror does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It may pass.
    #[error("{0}")]
    Passing(String),
    /// A person must act.
    #[error("{0}")]
    Stop(String),
}

impl Classify for Trouble {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Passing(_) => ErrorClass::Retryable,
            Self::Stop(_) => ErrorClass::Permanent,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Passing(with_causes(&error))
    }
}

/// The catalogue of a mirror. Holds nothing of the shard: front ends live there.
pub(super) struct MirrorControl {
    me: Node,
    read_only: Arc<str>,
    catalogue: watch::Sender<Arc<Catalogue>>,
}

impl std::fmt::Debug for MirrorControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MirrorControl({})", self.read_only)
    }
}

impl MirrorControl {
    /// Of this node, which knows nothing of its source yet.
    pub fn new(plan: &MirrorPlan, uuid: &str, name: String, rpc_addr: String) -> Self {
        let me = Node {
            uuid: uuid.to_owned(),
            name,
            rpc_addr,
            gossip_addr: String::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            protocol_max: crate::cluster::PROTOCOL,
            labels: BTreeMap::new(),
            state: NodeState::Active,
        };
        let catalogue = watch::channel(Arc::default()).0;
        Self { me, read_only: plan.read_only(), catalogue }
    }

    /// The topic with so many partitions, all of them here.
    fn of(&self, source: &MirrorOf, partitions: u32) -> Catalogue {
        let replica = |partition: u32| Replica {
            id: ReplicaId::new(ME, partition + 1),
            state: ReplicaState::Member,
        };
        let placement =
            |partition| Placement { replicas: vec![replica(partition)], ..Placement::default() };
        let topic = Topic {
            id: TopicId(source.topic_id),
            replication_factor: 1,
            settings: TopicSettings::default(),
            partitions: (0..partitions).map(placement).collect(),
        };
        Catalogue {
            cluster_id: source.cluster_id.clone(),
            nodes: BTreeMap::from([(ME, self.me.clone())]),
            topics: BTreeMap::from([(source.topic.clone(), topic)]),
            last_topic: source.topic_id,
            last_incarnation: partitions,
            ..Catalogue::default()
        }
    }

    fn refused<T: Send + 'static>(&self) -> Answering<T> {
        let message = format!("a mirror has no catalogue of its own: {}", self.read_only);
        let rejection = Rejection { kind: RejectionKind::Foreign, message };
        Box::pin(std::future::ready(Err(ControlError::Rejected(rejection))))
    }
}

impl ControlApi for MirrorControl {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    fn node(&self) -> Option<NodeId> {
        Some(ME)
    }

    fn leader(&self) -> Option<NodeId> {
        None
    }

    fn change_for(&self, _: Option<OnBehalf>, _: Command) -> Answering<Outcome> {
        self.refused()
    }

    fn change_here(&self, _: Bytes) -> Answering<Answered<Bytes>> {
        self.refused()
    }

    fn join_here(&self, _: JoinAsked) -> Answering<Answered<Joined>> {
        self.refused()
    }
}

/// How far the copy of a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Behind the last record that is stored here.
    copied: Offset,
    /// The source's high watermark, as heard last.
    end: Offset,
    /// When something was copied last, or nothing was missing (monotonic time).
    current: Duration,
}

/// How far the copies are: for metrics.
#[derive(Debug)]
pub(super) struct Copies {
    topic: TopicName,
    clock: Arc<dyn Clock>,
    partitions: Mutex<BTreeMap<u32, Progress>>,
}

impl Copies {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<u32, Progress>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is known now: what is stored here, and where the source ends.
    fn note(&self, partition: u32, copied: Option<Offset>, end: Option<Offset>) {
        let now = self.clock.monotonic();
        let mut partitions = self.partitions();
        let new = Progress { copied: Offset(0), end: Offset(0), current: now };
        let known = partitions.entry(partition).or_insert(new);
        let before = known.copied;
        known.copied = copied.unwrap_or(before).max(before);
        known.end = end.unwrap_or(known.end).max(known.copied);
        if known.copied > before || known.copied == known.end {
            known.current = now;
        }
    }

    /// Records that are missing, of all partitions, and records copied.
    fn sums(&self) -> (u64, u64) {
        let partitions = self.partitions();
        let lag = partitions.values().map(|known| known.end.0 - known.copied.0).sum();
        (lag, partitions.values().map(|known| known.copied.0).sum())
    }

    /// Adds the lag of each partition to a snapshot.
    pub fn read(&self, snapshot: &mut Snapshot) {
        let now = self.clock.monotonic();
        for (partition, known) in &*self.partitions() {
            let partition = partition.to_string();
            let place = [self.topic.as_str(), &partition];
            let lag = (known.end.0 - known.copied.0) as f64;
            let silence = match known.end == known.copied {
                true => Duration::ZERO,
                false => now.saturating_sub(known.current),
            };
            snapshot.number(&of::MIRROR_LAG, &place, lag);
            snapshot.number(&of::MIRROR_SILENCE, &place, silence.as_secs_f64());
        }
    }
}

/// What copies: at home on the control thread.
#[derive(Debug)]
pub(super) struct Mirror {
    pub plan: MirrorPlan,
    pub soil: Soil,
    pub data_dir: Arc<DataDir>,
    pub registry: Registry,
    pub control: Arc<MirrorControl>,
    pub copies: Arc<Copies>,
    pub logger: Logger,
}

impl Mirror {
    pub fn new(
        plan: MirrorPlan,
        soil: Soil,
        data_dir: Arc<DataDir>,
        registry: Registry,
        control: Arc<MirrorControl>,
    ) -> Self {
        let copies = Arc::new(Copies {
            topic: plan.topic.clone(),
            clock: Arc::clone(&soil.clock),
            partitions: Mutex::default(),
        });
        let logger = soil.logger.new(o!("actor" => format!("node/mirror/{}", plan.topic)));
        Self { plan, soil, data_dir, registry, control, copies, logger }
    }

    /// Puts it below the root. What a person must see to takes it out of service, with the reason;
    /// what was copied is served all the same.
    pub fn below(self, root: &Supervisor) {
        let settings = Arc::clone(&self.soil.settings);
        let name = self.plan.topic.to_string();
        let mirror = Arc::new(self);
        let serve = Serve::or_out_of_service(move |mut draining: Draining| {
            let run = Arc::clone(&mirror).run();
            Box::pin(async move {
                tokio::select! {
                    reason = run => Err(reason),
                    // An error says that the actor is gone, and with it this future.
                    _ = draining.wait_for(|wanted| *wanted) => Ok(()),
                }
            })
        });
        let own = supervisor("mirror", Strategy::OneForOne, Exhausted::Quarantine, &settings);
        let spec = frontend::spec("topic", FAREWELL).named(name);
        let _ = root
            .supervisor(own)
            .child(spec, Place::Control, move |_, seat| FrontendActor::new(seat, serve.clone()));
    }

    /// Copies until a person must act, and says why.
    async fn run(self: Arc<Self>) -> String {
        let mut known = match self.data_dir.mirror() {
            Ok(known) => known,
            Err(error) => return with_causes(&error),
        };
        if let Some(known) = &known {
            // What is here is served before the source is heard of.
            let here = self.registry.of_topic(self.plan.topic.as_str()).len() as u32;
            self.control.catalogue.send_replace(Arc::new(self.control.of(known, here)));
        }
        let source = self.guarded();
        let mut client = None;
        let mut copying = JoinSet::new();
        let (mut missed, mut told, mut told_copied) = (0, self.soil.clock.monotonic(), 0);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                Some(stopped) = copying.join_next() => {
                    return stopped.unwrap_or_else(|error| match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(error) => error.to_string(),
                    });
                }
                _ = looks.tick() => {}
            }
            let looked = source.execute(async || self.look(&mut client, known.as_ref()).await);
            let found = match looked.await.result {
                Ok(found) => found,
                Err(GuardedError::Failed(Trouble::Stop(reason))) => return reason,
                Err(GuardedError::Failed(error)) => {
                    warn!(self.logger, "the source does not answer"; "error" => %error);
                    continue;
                }
                // Told of when it opened, or by what ran out of time.
                Err(GuardedError::Open(_) | GuardedError::Deadline { .. }) => continue,
            };
            let Some(found) = found else {
                missed += 1;
                if missed >= MISSED_MAX {
                    return format!(
                        "there is no topic {} at {}: make it there, or stop this mirror",
                        self.plan.topic,
                        self.plan.source()
                    );
                }
                continue;
            };
            missed = 0;
            let here = copying.len() as u32;
            if let Err(trouble) = self.take(&mut known, &found, here).await {
                match trouble {
                    Trouble::Stop(reason) => return reason,
                    Trouble::Passing(reason) => {
                        warn!(self.logger, "not all partitions are copied yet"; "reason" => reason);
                        continue;
                    }
                }
            }
            let Some(client) = &client else { continue };
            for partition in here..found.partitions.len() as u32 {
                copying.spawn_local(copy::run(Arc::clone(&self), client.clone(), partition));
            }
            for (partition, (_, end)) in (0..).zip(&found.partitions) {
                self.copies.note(partition, None, Some(*end));
                if let Some(copy) = self.registry.get(self.plan.topic.as_str(), partition) {
                    copy.published().source_ends(*end);
                }
            }
            let now = self.soil.clock.monotonic();
            let (lag, copied) = self.copies.sums();
            if now.saturating_sub(told) >= TOLD_EVERY && (lag > 0 || copied > told_copied) {
                info!(self.logger, "copies"; "from" => self.plan.source(), "lag_records" => lag,
                    "copied" => copied);
                (told, told_copied) = (now, copied);
            }
        }
    }

    /// What asking the source goes through.
    fn guarded(&self) -> Guarded {
        let logger = self.logger.clone();
        let clock = &self.soil.clock;
        let on_change = move |from, to| {
            info!(logger, "the way to the source changes"; "from" => ?from, "to" => ?to);
        };
        Guarded {
            limiter: None,
            breaker: Breaker::on_change(
                BreakerOptions { open_for: LOOK_EVERY, ..BreakerOptions::default() },
                Arc::clone(clock),
                on_change,
            ),
            retry: RetryPolicy { retries_max: 1, ..RetryPolicy::default() },
            deadline: LOOK_MAX,
            clock: Arc::clone(clock),
        }
    }

    /// Asks the source what the topic is now; `None` where it is not there.
    async fn look(
        &self,
        client: &mut Option<ClusterClient>,
        known: Option<&MirrorOf>,
    ) -> Result<Option<Found>, Trouble> {
        let client = match client {
            Some(client) => client,
            None => {
                let logger = self.logger.clone();
                let told = WayTold::by(move |address, from, to| {
                    info!(logger, "the way to a node of the source changes"; "address" => address,
                        "from" => %from, "to" => %to);
                });
                // The source's nodes, wherever they are: as a client, and not as one of them.
                let tls = self.soil.tls.as_ref().map(|tls| tls.expecting(ExpectedServer::Any));
                let token = self.plan.token.clone();
                let shown = ClientOptions { tls, token, ..ClientOptions::default() };
                let options =
                    ClusterOptions { told: Some(told), client: shown, ..Default::default() };
                client.insert(ClusterClient::connect(&self.plan.from, options, None).await?)
            }
        };
        let topic = &self.plan.topic;
        let told = client.any().await?.metadata(vec![topic.to_string()]).await?;
        if told.cluster_id.is_empty() {
            return Err(Trouble::Passing("the source is not part of a cluster yet".into()));
        }
        if let Some(known) = known
            && known.cluster_id != told.cluster_id
        {
            return Err(Trouble::Stop(format!(
                "{} belongs to cluster {}, and what was copied to cluster {}: give the addresses \
                 of the latter, or another --data-dir to copy from this one",
                self.plan.source(),
                told.cluster_id,
                known.cluster_id
            )));
        }
        let Some(found) = told.topics.into_iter().find(|found| found.name == topic.as_str()) else {
            return Ok(None);
        };
        if let Some(known) = known
            && known.topic_id != found.id
        {
            return Err(Trouble::Stop(format!(
                "the topic {topic} was deleted at the source and made anew; what was copied is of \
                 the old one: stop this mirror, move its data directory away, and start again"
            )));
        }
        let described = client.describe(topic.as_str()).await?;
        let partitions = described
            .partitions
            .into_iter()
            .map(|partition| (Offset(partition.start_offset), Offset(partition.high_watermark)));
        let partitions: Vec<_> = partitions.collect();
        if partitions.len() < found.partitions.len() {
            return Err(Trouble::Passing(format!(
                "{} of {} partitions of {topic} can be asked for",
                partitions.len(),
                found.partitions.len()
            )));
        }
        let of = MirrorOf { cluster_id: told.cluster_id, topic: topic.clone(), topic_id: found.id };
        Ok(Some(Found { of, partitions }))
    }

    /// Makes room for what the source has and this node has not.
    async fn take(
        &self,
        known: &mut Option<MirrorOf>,
        found: &Found,
        copying: u32,
    ) -> Result<(), Trouble> {
        let partitions = found.partitions.len() as u32;
        let catalogue = self.control.of(&found.of, partitions);
        if known.is_none() {
            let (data_dir, of) = (Arc::clone(&self.data_dir), found.of.clone());
            blocking(move || data_dir.set_mirror(&of).map_err(|error| with_causes(&error))).await?;
            *known = Some(found.of.clone());
            info!(self.logger, "a mirror begins"; "from" => self.plan.source(),
                "cluster" => &found.of.cluster_id, "partitions" => partitions);
        }
        for hosted in catalogue.hosted_by(ME).filter(|hosted| hosted.partition >= copying) {
            let (start, _) = found.partitions[hosted.partition as usize];
            let is_here = self.registry.local(hosted.topic.as_str(), hosted.partition).is_some();
            // One that begins at 0 is as new ones are.
            if is_here || start == Offset(0) {
                continue;
            }
            info!(self.logger, "the source has dropped what came before: the copy begins there";
                "partition" => hosted.partition, "offset" => start.0);
            let (soil, plan) = (self.soil.clone(), plan_from(&hosted, &catalogue));
            blocking(move || begin_at(&soil, &plan, start)).await?;
        }
        self.control.catalogue.send_if_modified(|old| {
            let is_new = **old != catalogue;
            *old = Arc::new(catalogue);
            is_new
        });
        Ok(())
    }
}

/// What a look at the source found.
struct Found {
    of: MirrorOf,
    /// Where each partition begins and ends.
    partitions: Vec<(Offset, Offset)>,
}

async fn blocking(
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), Trouble> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    done.map_err(Trouble::Passing)
}

/// Makes the log of a partition that was never here, so that its first record gets this offset. The
/// mark comes last: what is not marked is made again. Blocks.
fn begin_at(soil: &Soil, plan: &PartitionPlan, start: Offset) -> Result<(), String> {
    let (disk, directory) = (&*soil.disk, plan.directory(&soil.settings));
    let failed = |error: &dyn std::error::Error| {
        format!("{} cannot be made: {}", directory.display(), with_causes(error))
    };
    files::refuse_links(&soil.settings.data_dir, &directory).map_err(|error| failed(&error))?;
    files::wipe(disk, &directory).map_err(|error| failed(&error))?;
    disk.create_dir_all(&directory).map_err(|error| failed(&error))?;
    let options = log_options(&soil.settings.log);
    let (disk_of_log, clock) = (Arc::clone(&soil.disk), Arc::clone(&soil.clock));
    let begun = || {
        let (mut log, _) = Log::open(disk_of_log, clock, &directory, options, &mut |_, _| ())?;
        log.reset(ResetTo { index: RaftIndex(0), term: Term(0), offset: start })?;
        log.close()
    };
    begun().map_err(|error| failed(&error))?;
    Mark::new(plan.group, plan.me).write(disk, &directory).map_err(|error| failed(&error))
}

/// Checks that a directory may be a mirror's, or a node's. Blocks.
pub(super) fn check(data_dir: &DataDir, plan: Option<&MirrorPlan>) -> Result<(), DataDirError> {
    let path = || data_dir.path().to_owned();
    let known = data_dir.mirror()?;
    match (plan, known) {
        (None, None) => Ok(()),
        (None, Some(MirrorOf { topic, .. })) => {
            Err(DataDirError::OfAMirror { path: path(), topic: topic.to_string() })
        }
        (Some(plan), Some(MirrorOf { topic, .. })) if plan.topic == topic => Ok(()),
        (Some(_), Some(MirrorOf { topic, .. })) => {
            Err(DataDirError::OfAMirror { path: path(), topic: topic.to_string() })
        }
        (Some(_), None) => {
            let is_used = data_dir.cluster().is_some() || data_dir.replicas()?.seen_incarnation > 0;
            if is_used { Err(DataDirError::OfANode { path: path() }) } else { Ok(()) }
        }
    }
}
