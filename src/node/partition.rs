//! The one partition of the one topic: its place in the tree, and what its settings mean to it.

use super::supervisor;
use crate::actors::gather::GatherOptions;
use crate::actors::handle::PartitionHandle;
use crate::actors::log::{self as log_actor, LogActor, LogPlan, LogPlanParts};
use crate::actors::published::Published;
use crate::actors::raft::{self as raft_actor, RaftActor, RaftOptions};
use crate::log::LogOptions;
use crate::log::batch::BatchLimits;
use crate::log::disk::Disk;
use crate::model::Clock;
use crate::observe::Instruments;
use crate::ops::settings::Settings;
use crate::supervision::{ActorRef, Admission, Exhausted, Place, Strategy, Supervisor};
use slog::{Logger, o};
use std::path::Path;
use std::sync::Arc;

/// An entry takes no further proposal beyond this many bytes.
const ENTRY_BYTES_MAX: usize = 8 << 20;

/// What a partition is built from.
pub(super) struct Ground<'a> {
    pub settings: &'a Settings,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub logger: &'a Logger,
    pub instruments: Instruments,
}

/// The one partition of the one topic.
pub(super) struct Partition {
    pub handle: PartitionHandle,
    pub log: ActorRef<LogActor>,
    pub plan: Arc<LogPlan>,
}

impl Partition {
    /// Puts its supervisor and its actors below `root`, and them on `shard`.
    pub fn plant(
        root: &Supervisor,
        shard: &Place,
        options: LogOptions,
        ground: Ground<'_>,
    ) -> Self {
        let Ground { settings, disk, clock, logger, instruments } = ground;
        let partitions = root.supervisor(supervisor(
            "partitions",
            Strategy::OneForOne,
            Exhausted::Escalate,
            settings,
        ));
        // One for all: a Raft core never comes back on a log that was not recovered with it.
        let spec = supervisor("log/0", Strategy::OneForAll, Exhausted::Quarantine, settings);
        let supervisor = partitions.supervisor(spec);
        let limits = options.batch;
        let published = Arc::new(Published::default());
        let told_by = logger.new(o!("actor" => "node/partitions/log/0"));
        let logger = logger.new(o!("actor" => "node/partitions/log/0/log"));
        let plan = Arc::new(LogPlan::new(LogPlanParts {
            disk,
            clock: Arc::clone(&clock),
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
        let handle =
            PartitionHandle::new(raft, published, clock, limits, durability, told_by, instruments);
        Self { handle, log, plan }
    }
}

/// Where a partition's files are.
fn partition_directory(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("partitions").join("log").join("0")
}

pub(super) fn log_options(settings: &Settings) -> LogOptions {
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
