//! Every metric that a node has: the one table from which the exposition, the OTLP metrics and
//! `docs/metrics.md` are made.
//!
//! Names keep to Prometheus' conventions: base units, counters end in `_total`. Labels have few
//! values: an actor is named by its kind (the last step of its path), never by its path.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the node.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values by size.
    Histogram,
}

impl Kind {
    /// The name in the exposition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric, without its values.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The unit (as UCUM writes it, which OTLP asks for).
    pub unit: &'static str,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// What it counts or shows.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($id:ident = $name:literal $kind:ident $unit:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// All of them, in the order in which they are shown.
        pub static CATALOGUE: &[&Family] = &[$(&$id),+];
    };
}

catalogue! {
    BUILD_INFO = "duramen_build_info" Gauge "1" ["version", "commit"]
        "Always 1; the labels say what was built.";
    START_TIME = "process_start_time_seconds" Gauge "s" []
        "When the node started, in seconds since 1970 UTC.";
    RESIDENT_MEMORY = "process_resident_memory_bytes" Gauge "By" []
        "Memory of the process that is in RAM.";
    CPU_SECONDS = "process_cpu_seconds_total" Counter "s" []
        "CPU time that the process has used, in user and system mode.";
    OPEN_FDS = "process_open_fds" Gauge "{file}" []
        "Files and sockets that the process has open.";

    LOG_START_OFFSET = "duramen_log_start_offset" Gauge "{record}" ["topic", "partition"]
        "The oldest offset that can be read.";
    LOG_END_OFFSET = "duramen_log_end_offset" Gauge "{record}" ["topic", "partition"]
        "One past the newest committed record.";
    LOG_SIZE = "duramen_log_size_bytes" Gauge "By" ["topic", "partition"]
        "Bytes of frames in all segments.";
    LOG_SEGMENTS = "duramen_log_segments" Gauge "{segment}" ["topic", "partition"]
        "Segments of the log.";
    PARTITION_STATE = "duramen_partition_state" Gauge "1" ["topic", "partition", "state"]
        "1 for the state that the partition is in, 0 for the others.";
    APPENDED_RECORDS = "duramen_log_appended_records_total" Counter "{record}"
        ["topic", "partition"] "Records appended to the log.";
    APPENDED_BYTES = "duramen_log_appended_bytes_total" Counter "By" ["topic", "partition"]
        "Bytes appended to the log, frames included.";
    RETIRED_SEGMENTS = "duramen_log_retention_removed_segments_total" Counter "{segment}"
        ["topic", "partition"] "Segments that retention removed.";
    RETIRED_BYTES = "duramen_log_retention_removed_bytes_total" Counter "By"
        ["topic", "partition"] "Bytes of the segments that retention removed.";
    PRODUCER_DUPLICATES = "duramen_producer_duplicates_total" Counter "{batch}"
        ["topic", "partition"]
        "Batches that idempotent producers sent again, answered with where they are stored.";
    PRODUCER_REFUSED = "duramen_producer_refused_total" Counter "{batch}" ["topic", "partition"]
        "Batches refused since they are not their idempotent producer's next ones.";

    RAFT_DROPPED = "duramen_raft_dropped_messages_total" Counter "{message}" ["topic", "partition"]
        "Messages to other replicas that were not sent, since too many waited for the disk.";

    FLUSH_DURATION = "duramen_flush_duration_seconds" Histogram "s" ["topic", "partition"]
        "How long a write of one or more requests took, its sync included.";
    FLUSH_BYTES = "duramen_flush_size_bytes" Histogram "By" ["topic", "partition"]
        "Bytes of one flush, frames left out.";
    FLUSH_RECORDS = "duramen_flush_records" Histogram "{record}" ["topic", "partition"]
        "Records of one flush.";
    FLUSH_FAILURES = "duramen_flush_failures_total" Counter "{flush}"
        ["topic", "partition"] "Writes and syncs that failed; a full disk counts too.";

    MAILBOX = "duramen_mailbox_messages" Gauge "{message}" ["actor"]
        "Messages that wait in mailboxes of actors of this kind.";
    MESSAGES = "duramen_actor_messages_total" Counter "{message}" ["actor", "message"]
        "Messages that actors of this kind have handled.";
    HANDLING = "duramen_actor_handling_seconds_total" Counter "s" ["actor", "message"]
        "Time that actors of this kind have spent in handlers.";
    RESTARTS = "duramen_actor_restarts_total" Counter "{restart}" ["actor"]
        "How often actors of this kind were started again.";
    EXITS = "duramen_actor_exits_total" Counter "{exit}" ["actor", "reason"]
        "Lives of actors of this kind that ended.";
    QUARANTINED = "duramen_actors_quarantined" Gauge "{actor}" ["actor"]
        "Actors of this kind that are out of service until somebody acts.";
    CRASH_REPORTS = "duramen_crash_reports_total" Counter "{crash}" ["outcome"]
        "Crashes by what became of their reports; suppressed: another of the same path just before.";

    REQUESTS = "duramen_requests_total" Counter "{request}" ["protocol", "method", "outcome"]
        "Requests of clients that have ended, of streams that read those whose first answer could be \
         sent; each request of a produce stream counts.";
    REQUEST_DURATION = "duramen_request_duration_seconds" Histogram "s" ["protocol", "method"]
        "How long requests took; of streams that read, until the first answer can be sent.";
    REFUSALS = "duramen_refused_requests_total" Counter "{request}" ["reason"]
        "Requests to append that a partition did not take: which bound was reached, or its state.";
    CONNECTIONS_OPEN = "duramen_connections_open" Gauge "{connection}" ["protocol"]
        "Connections of clients that are open.";
    CONNECTIONS = "duramen_connections_accepted_total" Counter "{connection}" ["protocol"]
        "Connections of clients that were accepted.";
    CONNECTIONS_REFUSED = "duramen_connections_refused_total" Counter "{connection}"
        ["protocol"] "Connections that were closed at once because too many were open and in use.";
    CONNECTIONS_CROWDED = "duramen_connections_crowded_total" Counter "{connection}" ["protocol"]
        "Connections without calls that gave way to newer ones, since too many were open.";
    CALLS_OPEN = "duramen_calls_open" Gauge "{call}" []
        "gRPC calls and streams of clients that are open; rpc.calls_max is for all together.";
    CALLS_REFUSED = "duramen_calls_refused_total" Counter "{call}" []
        "gRPC calls that were not begun: too many were open, and the connection had a few.";
    CONNECTIONS_GAVE_WAY = "duramen_connections_gave_way_total" Counter "{connection}" []
        "gRPC connections that were closed: too many calls took no answers, theirs among them, or none of theirs took what came for it.";
    HANDSHAKES = "duramen_tls_handshakes_total" Counter "{handshake}" ["protocol", "outcome"]
        "TLS handshakes of clients by how they ended; crowded: it gave way to newer ones.";
    HANDSHAKES_OPEN = "duramen_tls_handshakes_open" Gauge "{handshake}" ["protocol"]
        "TLS handshakes of clients that are under way.";
    RELOAD_FAILURES = "duramen_tls_reload_failures_total" Counter "{reload}" []
        "Times that changed certificates could not be used; those before stayed in force.";
    CERTIFICATE_EXPIRES = "duramen_tls_certificate_expires_seconds" Gauge "s" []
        "When this node's certificate expires, in seconds since 1970 UTC; absent without TLS.";
    INCOMING_BYTES = "duramen_incoming_bytes" Gauge "By" []
        "Bytes of clients' requests that are still coming in; admission.incoming_bytes_max at most.";
    INCOMING_REFUSED = "duramen_incoming_refused_total" Counter "{request}" ["protocol", "reason"]
        "Requests that were given up half-way in: too many bytes of all together, or too much time.";
    RECEIVED = "duramen_network_received_bytes_total" Counter "By" ["protocol"]
        "Bytes read from connections of clients.";
    SENT = "duramen_network_sent_bytes_total" Counter "By" ["protocol"]
        "Bytes written to connections of clients.";

    DENIED = "duramen_access_denied_total" Counter "{request}" ["protocol", "reason"]
        "Requests that were not let pass: of nobody known, without the right, of a node as if it were \
         a client, after too many failures, or before this node could tell.";
    FORBIDDEN = "duramen_access_forbidden_total" Counter "{request}" ["protocol", "action"]
        "Requests of somebody known who has not the right, by what it was.";
    FAILED_TOKENS = "duramen_access_failed_tokens_total" Counter "{token}" ["protocol"]
        "Tokens that were shown and proved nothing.";
    FAILING_SOURCES = "duramen_access_failing_sources" Gauge "{source}" []
        "Addresses of IPv4 and networks of IPv6 whose failed tokens are remembered; 4096 at most.";
    FORGOTTEN_SOURCES = "duramen_access_forgotten_sources_total" Counter "{source}" []
        "Sources of failed tokens that were forgotten before their time, as there were too many.";
    POLICY_GENERATION = "duramen_access_policy_generation" Gauge "1" []
        "The generation of the cluster's policy that this node decides by.";
    ENFORCED = "duramen_access_enforced" Gauge "1" []
        "1 where something is asked of whoever calls, 0 where everybody may do everything.";
    UNUSABLE_FILES = "duramen_access_unusable_files_total" Counter "{read}" []
        "Times that a policy, or the keys of tokens, could not be used as they were: with such a \
         policy everything is denied, with such keys no token is taken.";
    AUDIT_LINES = "duramen_audit_lines_total" Counter "{line}" ["outcome"]
        "Lines of the audit log that were written; lost: what there was no room for, or no disk.";

    GOSSIP_REFUSED = "duramen_gossip_refused_total" Counter "{message}" ["reason"]
        "Packets, connections and nodes of gossip that were not taken, and answers not given.";

    PEER_FRAMES = "duramen_peer_frames_total" Counter "{frame}" ["node"]
        "Frames sent to another node.";
    PEER_MESSAGES = "duramen_peer_messages_total" Counter "{message}" ["node"]
        "Messages between replicas sent to another node, of all groups.";
    PEER_BYTES = "duramen_peer_sent_bytes_total" Counter "By" ["node"]
        "Bytes of frames sent to another node.";
    PEER_DROPPED = "duramen_peer_dropped_messages_total" Counter "{message}" ["node"]
        "Messages to another node that were not sent: no connection, or too many waited.";
    PEER_CONNECTIONS = "duramen_peer_connections_total" Counter "{connection}" ["node"]
        "Connections to another node that it has accepted; each but the first is a reconnect.";
    PEER_QUEUE = "duramen_peer_queue_messages" Gauge "{message}" ["node"]
        "Messages that wait to be sent to another node.";
    PEER_QUEUE_BYTES = "duramen_peer_queue_bytes" Gauge "By" ["node"]
        "Bytes of the messages that wait to be sent to another node.";

    MIRROR_LAG = "duramen_mirror_lag_records" Gauge "{record}" ["topic", "partition"]
        "Records that a mirror lacks of its source, as far as it has heard of it.";
    MIRROR_SILENCE = "duramen_mirror_silence_seconds" Gauge "s" ["topic", "partition"]
        "For how long a mirror that lacks records has copied none; 0 where it lacks none.";

    TAPS = "duramen_taps_open" Gauge "{tap}" []
        "Taps that are open.";
    TAPS_DROPPED = "duramen_tap_dropped_messages_total" Counter "{message}" []
        "Messages that did not fit the queue of a tap.";
    LINES_DROPPED = "duramen_logger_dropped_lines_total" Counter "{line}" []
        "Lines of diagnostics that were dropped because standard error was read too slowly.";
    UNLOGGED = "duramen_logger_unlogged_messages_total" Counter "{message}" []
        "Messages of actors that were to be logged and were too many in a second.";
    SPANS_EXPORTED = "duramen_telemetry_exported_spans_total" Counter "{span}" []
        "Spans that a collector or a debug file has taken.";
    SPANS_DROPPED = "duramen_telemetry_dropped_spans_total" Counter "{span}" []
        "Spans that did not fit the queue, or that no collector took.";
    EXPORT_FAILURES = "duramen_telemetry_export_failures_total" Counter "{export}" []
        "Exports of spans or metrics that failed.";
}

/// The catalogue as a table in Markdown.
pub fn markdown() -> String {
    let mut text =
        String::from("| name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for Family { name, kind, unit, labels, help } in CATALOGUE {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, labels) = (kind.name(), labels.join(", "));
        text += &format!("| `{name}` | {kind} | {unit} | {labels} | {help} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_keep_to_the_conventions() {
        let mut seen = HashSet::new();
        for family in CATALOGUE {
            let Family { name, kind, unit, labels, help } = family;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("duramen_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let bare = name.trim_end_matches("_total");
            assert_eq!(bare.ends_with("_seconds"), *unit == "s", "{name} is in {unit}");
            assert_eq!(bare.ends_with("_bytes"), *unit == "By", "{name} is in {unit}");
            for reserved in ["_count", "_sum", "_bucket", "_milliseconds", "_info"] {
                let is_info = reserved == "_info" && *unit == "1";
                assert!(is_info || !bare.ends_with(reserved), "{name}");
            }
            assert!(labels.iter().all(|label| !["le", "quantile", "path"].contains(label)));
            assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
        }
    }
}
