//! One replica of a Raft group on this node: its place in the tree, its directory, and what its
//! settings mean to it. A partition's, or the controller's: they differ in name only.

use super::files::{self, Mark};
use super::supervisor;
use crate::actors::gather::GatherOptions;
use crate::actors::groups::{Groups, Here, Wanted};
use crate::actors::handle::PartitionHandle;
use crate::actors::leadership::Leadership;
use crate::actors::log::{self as log_actor, Closers, Lives, LogActor, LogPlan};
use crate::actors::peers::PeerPost;
use crate::actors::published::Published;
use crate::actors::raft::{self as raft_actor, RaftActor, RaftOptions, RaftPlan};
use crate::cluster::TopicSettings;
use crate::guards::tls::ClientTls;
use crate::log::LogOptions;
use crate::log::batch::BatchLimits;
use crate::log::disk::Disk;
use crate::model::{Clock, Durability, GroupId, ReplicaId, TopicName};
use crate::observe::Instruments;
use crate::observe::metrics::LogMetrics;
use crate::ops::settings::{ByteSize, LogSettings, Settings, parse_duration};
use crate::supervision::{
    ActorPath, ActorRef, Admission, Exhausted, Place, Strategy, Supervisor, TreeError,
};
use slog::{Logger, o, warn};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// An entry takes no further proposal beyond this many bytes.
const ENTRY_BYTES_MAX: usize = 8 << 20;

/// About how much one message to a peer holds.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages with entries on their way to one peer, of one group.
const MESSAGES_IN_FLIGHT_MAX: usize = 16;
/// Entries that are on disk and kept in memory for peers, of one group.
const TAIL_BYTES_MAX: u64 = 2 << 20;

/// What all replicas of a node are built from.
#[derive(Debug, Clone)]
pub(super) struct Soil {
    pub settings: Arc<Settings>,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub logger: Logger,
    pub instruments: Instruments,
    pub shard: Place,
    pub closers: Arc<Closers>,
    pub groups: Arc<Groups>,
    pub leadership: Arc<Leadership>,
    pub post: Arc<dyn PeerPost>,
    /// What connections to other nodes are secured with.
    pub tls: Option<ClientTls>,
    pub seed: u64,
}

/// A replica as it is to be planted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionPlan {
    pub group: GroupId,
    /// Topic and partition; `None` for the controller's group.
    pub place: Option<(TopicName, u32)>,
    pub me: ReplicaId,
    /// The voters that its group begins with; none where the group's log will tell.
    pub founders: Vec<ReplicaId>,
    /// What differs from the node's own settings.
    pub settings: TopicSettings,
}

impl PartitionPlan {
    /// Its name below its parent in the tree.
    pub fn name(&self) -> String {
        match &self.place {
            Some((topic, partition)) => format!("{topic}/{partition}"),
            None => "group".into(),
        }
    }

    /// Where its files are.
    pub fn directory(&self, settings: &Settings) -> PathBuf {
        match &self.place {
            Some((topic, partition)) => {
                let topic = settings.data_dir.join("partitions").join(topic.as_str());
                topic.join(partition.to_string())
            }
            None => settings.data_dir.join("controller"),
        }
    }

    /// Makes the directory of a new replica its own; what another one left there goes first. Blocks.
    pub fn prepare(&self, soil: &Soil) -> io::Result<()> {
        let (disk, directory) = (&*soil.disk, self.directory(&soil.settings));
        files::refuse_links(&soil.settings.data_dir, &directory)?;
        let mark = Mark::new(self.group, self.me);
        if Mark::read(disk, &directory)? != Some(mark) {
            files::wipe(disk, &directory)?;
            mark.write(disk, &directory)?;
        }
        Ok(())
    }
}

/// A planted replica.
#[derive(Debug, Clone)]
pub(super) struct Partition {
    pub path: ActorPath,
    pub handle: PartitionHandle,
    pub log: ActorRef<LogActor>,
    pub plan: Arc<LogPlan>,
    pub metrics: Arc<LogMetrics>,
}

impl Partition {
    /// Puts its supervisor and its actors below `parent`, and them on the shard. From then on
    /// messages of peers reach it.
    pub fn plant(
        parent: &Supervisor,
        soil: &Soil,
        wanted: &PartitionPlan,
    ) -> Result<Self, TreeError> {
        let Soil { settings, disk, clock, logger, instruments, shard, .. } = soil;
        // One for all: a Raft core never comes back on a log that was not recovered with it.
        let spec = supervisor("", Strategy::OneForAll, Exhausted::Quarantine, settings);
        let supervisor = parent.try_supervisor(spec.named(wanted.name()))?;
        let path = supervisor.path().clone();
        let told_by = logger.new(o!("actor" => path.to_string()));
        let mut log_settings = overridden(&settings.log, &wanted.settings, &told_by);
        if wanted.place.is_none() {
            // What a cluster agrees on is never less than durable, and the controller alone knows how
            // much of it is needed.
            log_settings.durability = Durability::Fsync;
            (log_settings.retention_bytes, log_settings.retention_age) = (None, None);
            // What one node can write every other one must be able to read, whatever it is set to.
            let least = LogSettings::default();
            log_settings.record_bytes_max =
                log_settings.record_bytes_max.max(least.record_bytes_max);
            log_settings.batch_bytes_max = log_settings.batch_bytes_max.max(least.batch_bytes_max);
            log_settings.segment_bytes_max =
                log_settings.segment_bytes_max.max(least.segment_bytes_max);
        }
        let options = log_options(&log_settings);
        let limits = options.batch;
        let published = Arc::new(Published::default());
        let metrics = Arc::new(LogMetrics::default());
        let plan = Arc::new(LogPlan {
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            me: wanted.me,
            directory: wanted.directory(settings),
            options,
            durability: log_settings.durability,
            sync_interval: log_settings.sync_interval,
            published: Arc::clone(&published),
            logger: logger.new(o!("actor" => path.child("log").to_string())),
            instruments: instruments.clone(),
            metrics: Arc::clone(&metrics),
            closers: Arc::clone(&soil.closers),
            lives: Lives::default(),
        });
        let log = {
            let plan = Arc::clone(&plan);
            let mut spec = log_actor::spec();
            spec.hang_after = settings.supervision.hang_after;
            supervisor.try_child(spec, shard.clone(), move |context, seat| {
                LogActor::new(context, seat, Arc::clone(&plan))
            })?
        };
        let members = Wanted::default();
        let raft = {
            let log = log.clone();
            let plan = Arc::new(RaftPlan {
                group: wanted.group,
                me: wanted.me,
                founders: wanted.founders.clone(),
                published: Arc::clone(&published),
                leadership: Arc::clone(&soil.leadership),
                wanted: Arc::clone(&members),
                post: Arc::clone(&soil.post),
                options: raft_options(settings, &log_settings, soil.seed),
                instruments: instruments.clone(),
                metrics: Arc::clone(&metrics),
            });
            let mut spec = raft_actor::spec();
            spec.hang_after = settings.supervision.hang_after;
            spec.admission = Admission {
                messages_max: settings.admission.messages_max as usize,
                bytes_max: settings.admission.bytes_max.len(),
            };
            spec.mailbox_len_max = spec.admission.messages_max;
            supervisor.try_child(spec, shard.clone(), move |_, seat| {
                RaftActor::new(seat, log.clone(), Arc::clone(&plan))
            })?
        };
        let here = Here { replica: wanted.me, raft: raft.clone(), wanted: members };
        soil.groups.add(wanted.group, here);
        let handle = PartitionHandle::new(
            raft.clone(),
            published,
            Arc::clone(clock),
            limits,
            log_settings.durability,
            told_by,
            instruments.clone(),
        );
        Ok(Self { path, handle, log, plan, metrics })
    }
}

/// The node's settings with those of a topic over them. One that cannot be read is told of and
/// left out: a replica that does not start would help nobody.
fn overridden(own: &LogSettings, topic: &TopicSettings, logger: &Logger) -> LogSettings {
    let mut settings = own.clone();
    for (key, value) in &topic.0 {
        let size = || value.parse::<ByteSize>().ok();
        let is_set = match key.as_str() {
            "retention_bytes" => size().map(|bytes| settings.retention_bytes = Some(bytes)),
            "retention_age" => parse_duration(value).map(|age| settings.retention_age = Some(age)),
            "segment_bytes_max" => size().map(|bytes| settings.segment_bytes_max = bytes),
            "durability" => {
                let levels = [Durability::Os, Durability::Interval, Durability::Fsync];
                let level = levels.into_iter().find(|level| level.name() == value);
                level.map(|level| settings.durability = level)
            }
            _ => None,
        };
        if is_set.is_none() {
            warn!(logger, "a setting of the topic is not one that this node can read: it keeps to \
                its own"; "key" => key, "bytes" => value.len());
        }
    }
    settings
}

pub(super) fn log_options(log: &LogSettings) -> LogOptions {
    let defaults = LogOptions::default();
    // A frame is one request, or many small ones; each record may need a batch of its own where
    // timestamps lie too far apart to share one.
    let frame_bytes_max = log.batch_bytes_max.bytes().saturating_mul(2).saturating_add(1 << 20);
    LogOptions {
        segment_bytes_max: log.segment_bytes_max.bytes(),
        segment_age_max: log.segment_age_max,
        batch: batch_limits(log),
        frame_bytes_max: frame_bytes_max.min(1 << 30).min(log.segment_bytes_max.bytes()),
        retention_bytes_max: log.retention_bytes.map(|bytes| bytes.bytes()),
        retention_age_max: log.retention_age,
        reserve_free_bytes: log.reserve_free_bytes.bytes(),
        ..defaults
    }
}

fn batch_limits(log: &LogSettings) -> BatchLimits {
    let batch_bytes_max = log.batch_bytes_max.len();
    BatchLimits {
        batch_bytes_max,
        record_bytes_max: log.record_bytes_max.len(),
        // Taken while one batch is checked, on top of all else: it is as large as a batch may be either way.
        decompressed_bytes_max: batch_bytes_max,
    }
}

fn raft_options(settings: &Settings, log: &LogSettings, seed: u64) -> RaftOptions {
    #[allow(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
    let fraction = log.gather_fraction as f32;
    RaftOptions {
        gather: GatherOptions {
            fraction,
            wait_max: log.gather_wait_max,
            ..GatherOptions::default()
        },
        entry_bytes_max: ENTRY_BYTES_MAX.min(log.batch_bytes_max.len()),
        limits: batch_limits(log),
        durability: log.durability,
        tick: settings.cluster.tick,
        election_ticks: settings.cluster.election_ticks as usize,
        heartbeat_ticks: settings.cluster.heartbeat_ticks as usize,
        message_bytes_max: MESSAGE_BYTES_MAX,
        inflight_max: MESSAGES_IN_FLIGHT_MAX,
        tail_bytes_max: TAIL_BYTES_MAX,
        seed,
    }
}
