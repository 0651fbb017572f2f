//! All metrics of a node at a moment: what is counted where it happens, and what its parts know
//! anyway. Asks no actor, so that it answers while a shard hangs.

use crate::actors::handle::PartitionHandle;
use crate::actors::partition::{PartitionApi, PartitionState};
use crate::frontends::listener::ConnectionCounters;
use crate::model::Timestamp;
use crate::observe::metrics::catalogue as of;
use crate::observe::metrics::{Measure, Protocol, Snapshot};
use crate::observe::{Hub, Instruments};
use crate::ops::crash::{CrashCounts, CrashStore};
use crate::ops::logger::LogControl;
use crate::ops::telemetry::process;
use crate::supervision::{ExitReason, Kind, State, TreeHandle, TreeStatus};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

const STATES: [PartitionState; 5] = [
    PartitionState::Serving,
    PartitionState::Recovering,
    PartitionState::Restarting,
    PartitionState::Quarantined,
    PartitionState::Stopped,
];

/// See the module.
pub(super) struct Readings {
    pub partition: PartitionHandle,
    pub instruments: Instruments,
    pub hub: Arc<Hub>,
    pub log_control: Option<LogControl>,
    pub rpc: Arc<ConnectionCounters>,
    pub http: Arc<ConnectionCounters>,
    pub started_at: Timestamp,
    crashes: Arc<CrashStore>,
    tree: OnceLock<TreeHandle>,
}

impl Readings {
    pub fn new(
        partition: PartitionHandle,
        instruments: Instruments,
        hub: Arc<Hub>,
        log_control: Option<LogControl>,
        crashes: Arc<CrashStore>,
        started_at: Timestamp,
    ) -> Arc<Self> {
        Arc::new(Self {
            partition,
            instruments,
            hub,
            log_control,
            rpc: Arc::default(),
            http: Arc::default(),
            started_at,
            crashes,
            tree: OnceLock::new(),
        })
    }

    /// The tree runs.
    pub fn started(&self, tree: &TreeHandle) {
        self.tree.get_or_init(|| tree.clone());
    }

    fn read_partition(&self, snapshot: &mut Snapshot) {
        let status = self.partition.describe();
        let place = ["log", "0"];
        snapshot.number(&of::LOG_START_OFFSET, &place, status.start.0 as f64);
        snapshot.number(&of::LOG_END_OFFSET, &place, status.high_watermark.0 as f64);
        snapshot.number(&of::LOG_SIZE, &place, status.size_bytes as f64);
        snapshot.number(&of::LOG_SEGMENTS, &place, f64::from(status.segments));
        for state in STATES {
            let labels = [place[0], place[1], state.name()];
            snapshot.number(&of::PARTITION_STATE, &labels, f64::from(state == status.state));
        }
        self.instruments.metrics.read(snapshot, place[0], place[1]);
    }

    fn read_process(&self, snapshot: &mut Snapshot) {
        let built = [env!("CARGO_PKG_VERSION"), env!("DURAMEN_BUILD_COMMIT")];
        snapshot.number(&of::BUILD_INFO, &built, 1.0);
        snapshot.number(&of::START_TIME, &[], self.started_at.0 as f64 / 1000.0);
        let usage = process::usage();
        for (family, value) in [
            (&of::RESIDENT_MEMORY, usage.resident_bytes.map(|bytes| bytes as f64)),
            (&of::CPU_SECONDS, usage.cpu_seconds),
            (&of::OPEN_FDS, usage.open_fds.map(|fds| fds as f64)),
        ] {
            if let Some(value) = value {
                snapshot.number(family, &[], value);
            }
        }
    }

    fn read_connections(&self, snapshot: &mut Snapshot) {
        for (protocol, counters) in [(Protocol::Grpc, &self.rpc), (Protocol::Http, &self.http)] {
            let labels = [protocol.name()];
            snapshot.number(&of::CONNECTIONS_OPEN, &labels, counters.open() as f64);
            snapshot.number(&of::CONNECTIONS, &labels, counters.accepted() as f64);
            snapshot.number(&of::CONNECTIONS_REFUSED, &labels, counters.refused() as f64);
        }
    }

    /// Restarts, exits and quarantines. Gives back the kinds by path.
    fn read_tree(&self, snapshot: &mut Snapshot) -> BTreeMap<String, Kind> {
        let mut kinds = BTreeMap::new();
        let Some(tree) = self.tree.get() else { return kinds };
        let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
        let root = tree.status();
        let mut places: Vec<&TreeStatus> = vec![&root];
        while let Some(place) = places.pop() {
            places.extend(&place.children);
            kinds.insert(place.path.to_string(), place.kind);
            if place.kind == Kind::Actor {
                let quarantined = by_kind.entry(place.path.name().to_owned()).or_default();
                *quarantined += u64::from(matches!(place.state, State::Quarantined { .. }));
            }
        }
        let tally = tree.tally();
        for (actor, quarantined) in &by_kind {
            snapshot.number(&of::RESTARTS, &[actor], tally.restarts(actor) as f64);
            snapshot.number(&of::QUARANTINED, &[actor], *quarantined as f64);
            for reason in ExitReason::KINDS {
                let count = tally.exits(actor, reason);
                snapshot.number(&of::EXITS, &[actor, reason], count as f64);
            }
        }
        kinds
    }

    fn read_recorders(&self, snapshot: &mut Snapshot, kinds: &BTreeMap<String, Kind>) {
        let mut waiting: BTreeMap<String, u64> = BTreeMap::new();
        let mut messages: BTreeMap<(String, &'static str), (u64, u64)> = BTreeMap::new();
        for recorder in self.hub.recorders() {
            let path = recorder.path_text();
            if kinds.get(&**path) == Some(&Kind::Supervisor) {
                continue;
            }
            let actor = last_step(path);
            let reading = recorder.reading();
            *waiting.entry(actor.to_owned()).or_default() += reading.mailbox;
            for kind in reading.kinds {
                let (handled, busy_ns) =
                    messages.entry((actor.to_owned(), kind.message)).or_default();
                *handled += kind.handled;
                *busy_ns += kind.busy_ns;
            }
        }
        for (actor, waiting) in &waiting {
            snapshot.number(&of::MAILBOX, &[actor], *waiting as f64);
        }
        for ((actor, message), (handled, busy_ns)) in &messages {
            snapshot.number(&of::MESSAGES, &[actor, message], *handled as f64);
            snapshot.number(&of::HANDLING, &[actor, message], *busy_ns as f64 / 1e9);
        }
        snapshot.number(&of::TAPS, &[], self.hub.taps() as f64);
        snapshot.number(&of::TAPS_DROPPED, &[], self.hub.dropped() as f64);
    }
}

impl Measure for Readings {
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.read_process(&mut snapshot);
        self.read_connections(&mut snapshot);
        let kinds = self.read_tree(&mut snapshot);
        self.read_partition(&mut snapshot);
        self.read_recorders(&mut snapshot, &kinds);
        let lines = self.log_control.as_ref().map_or(0, LogControl::dropped_count);
        snapshot.number(&of::LINES_DROPPED, &[], lines as f64);
        // The end of a burst is told of here, where no later message does it.
        self.hub.tell_of_unlogged();
        snapshot.number(&of::UNLOGGED, &[], self.hub.unlogged() as f64);
        let CrashCounts { written, suppressed, dropped, failed } = self.crashes.counts();
        for (outcome, count) in [
            ("written", written),
            ("suppressed", suppressed),
            ("dropped", dropped),
            ("failed", failed),
        ] {
            snapshot.number(&of::CRASH_REPORTS, &[outcome], count as f64);
        }
        snapshot
    }
}

fn last_step(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
