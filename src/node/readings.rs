//! All metrics of a node at a moment: what is counted where it happens, and what its parts know
//! anyway. Asks no actor, so that it answers while a shard hangs.

use super::certificates::Certificates;
use super::mirror::Copies;
use super::partitions::{Local, Registry};
use super::topics::status_of;
use crate::actors::partition::{PartitionState, PartitionStatus};
use crate::actors::replicator::Peers;
use crate::frontends::access::Door;
use crate::frontends::grpc::Places;
use crate::frontends::intake::Intake;
use crate::frontends::listener::ConnectionCounters;
use crate::guards::tls::describe;
use crate::model::{Timestamp, TopicName};
use crate::observe::metrics::catalogue as of;
use crate::observe::metrics::{LogMetrics, Measure, Protocol, Snapshot};
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

/// So many partitions have series of their own.
const PARTITIONS_SHOWN_MAX: usize = 1000;
/// What the others are summed under: no topic can have this name.
const OTHERS: [&str; 2] = ["(other)", ""];
/// A node of few partitions shows histograms also where nothing was counted yet.
const WHOLE_MAX: usize = 20;

/// See the module.
pub(super) struct Readings {
    pub partitions: Registry,
    pub instruments: Instruments,
    pub hub: Arc<Hub>,
    pub log_control: Option<LogControl>,
    pub rpc: Arc<ConnectionCounters>,
    pub http: Arc<ConnectionCounters>,
    pub intake: OnceLock<Intake>,
    /// Calls that are open; there once a front end is.
    pub calls: OnceLock<Places>,
    pub started_at: Timestamp,
    crashes: Arc<CrashStore>,
    peers: Arc<Peers>,
    copies: Option<Arc<Copies>>,
    tree: OnceLock<TreeHandle>,
    certificates: OnceLock<Arc<Certificates>>,
    door: OnceLock<Arc<Door>>,
}

impl Readings {
    pub fn new(
        partitions: Registry,
        instruments: Instruments,
        hub: Arc<Hub>,
        log_control: Option<LogControl>,
        crashes: Arc<CrashStore>,
        (peers, copies): (Arc<Peers>, Option<Arc<Copies>>),
        started_at: Timestamp,
    ) -> Arc<Self> {
        Arc::new(Self {
            partitions,
            instruments,
            hub,
            log_control,
            rpc: Arc::default(),
            http: Arc::default(),
            intake: OnceLock::new(),
            calls: OnceLock::new(),
            started_at,
            crashes,
            peers,
            copies,
            tree: OnceLock::new(),
            certificates: OnceLock::new(),
            door: OnceLock::new(),
        })
    }

    /// The tree runs.
    pub fn started(&self, tree: &TreeHandle) {
        self.tree.get_or_init(|| tree.clone());
    }

    /// The ports are secured.
    pub fn secured(&self, certificates: &Arc<Certificates>) {
        self.certificates.get_or_init(|| Arc::clone(certificates));
    }

    /// There is somebody at the door.
    pub fn guarded(&self, door: &Arc<Door>) {
        self.door.get_or_init(|| Arc::clone(door));
    }

    /// Each partition by itself, as far as a scrape can bear; the rest together.
    fn read_partitions(&self, snapshot: &mut Snapshot) {
        read_all(snapshot, &self.partitions.all());
        self.instruments.metrics.read(snapshot);
    }

    fn read_process(&self, snapshot: &mut Snapshot) {
        let built = [env!("CARGO_PKG_VERSION"), env!("BUILT_FROM_COMMIT")];
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
            snapshot.counter(&of::CONNECTIONS_CROWDED, &labels, &counters.crowded);
            for (outcome, counter) in [
                ("ok", &counters.handshakes_ok),
                ("failed", &counters.handshakes_failed),
                ("crowded", &counters.handshakes_crowded),
            ] {
                snapshot.counter(&of::HANDSHAKES, &[labels[0], outcome], counter);
            }
            snapshot.number(&of::HANDSHAKES_OPEN, &labels, counters.handshakes_open() as f64);
        }
        if let Some(intake) = self.intake.get() {
            intake.read(snapshot);
        }
        if let Some(calls) = self.calls.get() {
            calls.read(snapshot);
        }
        if let Some(door) = self.door.get() {
            door.read(snapshot);
        }
        let certificates = self.certificates.get();
        let failures = certificates.map_or(0, |certificates| certificates.failures.get());
        snapshot.number(&of::RELOAD_FAILURES, &[], failures as f64);
        let own = certificates.map(|certificates| certificates.tls.now());
        let own = own.as_ref().and_then(|now| now.served().chain().first());
        if let Some(Ok(own)) = own.map(describe) {
            let expires = own.not_after.0 as f64 / 1000.0;
            snapshot.number(&of::CERTIFICATE_EXPIRES, &[], expires);
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
        self.read_partitions(&mut snapshot);
        self.peers.read(&mut snapshot);
        if let Some(copies) = &self.copies {
            copies.read(&mut snapshot);
        }
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

fn read_all(snapshot: &mut Snapshot, all: &[(TopicName, u32, Arc<Local>)]) {
    let (shown, rest) = all.split_at(all.len().min(PARTITIONS_SHOWN_MAX));
    for (topic, partition, local) in shown {
        let place = [topic.as_str(), &partition.to_string()];
        read_group(snapshot, place, &[local], all.len() <= WHOLE_MAX);
    }
    if !rest.is_empty() {
        let rest: Vec<&Arc<Local>> = rest.iter().map(|(_, _, local)| local).collect();
        read_group(snapshot, OTHERS, &rest, false);
    }
}

/// The series of one partition, or of several together: offsets and sizes are added up, and a state
/// tells how many are in it.
fn read_group(snapshot: &mut Snapshot, place: [&str; 2], group: &[&Arc<Local>], whole: bool) {
    let statuses: Vec<_> = group.iter().map(|local| status_of(local)).collect();
    let sum = |of: fn(&PartitionStatus) -> u64| statuses.iter().map(of).sum::<u64>() as f64;
    snapshot.number(&of::LOG_START_OFFSET, &place, sum(|status| status.start.0));
    snapshot.number(&of::LOG_END_OFFSET, &place, sum(|status| status.high_watermark.0));
    snapshot.number(&of::LOG_SIZE, &place, sum(|status| status.size_bytes));
    snapshot.number(&of::LOG_SEGMENTS, &place, sum(|status| status.segments.into()));
    for state in STATES {
        let count = statuses.iter().filter(|status| status.state == state).count();
        snapshot.number(&of::PARTITION_STATE, &[place[0], place[1], state.name()], count as f64);
    }
    let planted = group.iter().filter_map(|local| local.planted());
    let logs: Vec<&LogMetrics> = planted.map(|planted| &*planted.metrics).collect();
    LogMetrics::read(&logs, snapshot, place, whole);
}

fn last_step(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::super::partition::PartitionPlan;
    use super::super::partitions::Growth;
    use super::*;
    use crate::cluster::TopicSettings;
    use crate::model::{GroupId, NodeId, ReplicaId, TopicId};
    use crate::observe::metrics::Value;

    fn absent(partition: u32) -> (TopicName, u32, Arc<Local>) {
        let topic = TopicName::new("orders").unwrap();
        let plan = PartitionPlan {
            group: GroupId::partition_of(TopicId(2), partition),
            place: Some((topic.clone(), partition)),
            me: ReplicaId::new(NodeId(1), partition + 2),
            founders: Vec::new(),
            settings: TopicSettings::default(),
        };
        let growth = Growth::Absent("node/partitions".into(), "gone".into());
        (topic, partition, Arc::new(Local { plan, growth }))
    }

    #[test]
    fn beyond_a_thousand_partitions_the_rest_is_one_series() {
        let all: Vec<_> = (0..1005).map(absent).collect();
        let states = |all: &[_]| {
            let mut snapshot = Snapshot::default();
            read_all(&mut snapshot, all);
            let families: Vec<_> = snapshot.families().collect();
            let of_state =
                families.iter().find(|(family, _)| std::ptr::eq(*family, &of::PARTITION_STATE));
            let (_, samples) = of_state.expect("every partition has a state");
            let quarantined = samples.iter().filter(|sample| sample.labels[2] == "quarantined");
            let read = quarantined.map(|sample| (sample.labels[0].clone(), sample.value.clone()));
            read.collect::<Vec<_>>()
        };
        assert_eq!(states(&all[..1000]).len(), 1000);
        let bounded = states(&all);
        assert_eq!(bounded.len(), 1001);
        assert_eq!(bounded[1000], ("(other)".to_owned(), Value::Number(5.0)));
        assert_eq!(bounded[999], ("orders".to_owned(), Value::Number(1.0)));
    }
}
