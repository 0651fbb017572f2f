//! The one list of settings: key, sentence, limits, and how each is read and shown. Everything that
//! goes through all settings (layers, `config show`, `config/node.toml`) goes through [`FIELDS`].

use super::value::{TomlKind, Value};
use super::{ByteSize, Settings};
use std::ops::RangeInclusive;
use std::time::Duration;

/// One setting, without its value.
#[derive(Debug)]
pub struct Field {
    /// The dotted key, `section.name`, or `name` alone.
    pub key: &'static str,
    /// What it does, in one sentence.
    pub sentence: &'static str,
    /// What a value looks like in a TOML file, and in words with examples.
    pub kind: fn() -> (TomlKind, &'static str),
    /// The smallest and largest value allowed, where there are such.
    pub limits: fn() -> Option<String>,
    /// The value in `settings`, as text that reads back the same.
    pub show: fn(&Settings) -> String,
    /// Sets the value from text; false, and nothing set, where it is not of the kind expected.
    pub set: fn(&mut Settings, &str) -> bool,
    /// Whether the value lies within the limits.
    pub within_limits: fn(&Settings) -> bool,
}

impl Field {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("DURAMEN_{}", self.key.to_ascii_uppercase().replace('.', "_"))
    }

    /// The section in a TOML file (empty for the top) and the name there.
    pub fn section_and_name(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').unwrap_or(("", self.key))
    }

    /// The value in `settings` for files that people pass on: without what is secret.
    pub fn show_redacted(&self, settings: &Settings) -> String {
        redacted(self.key, (self.show)(settings))
    }

    /// The value in `settings` as TOML.
    pub fn show_toml(&self, settings: &Settings) -> String {
        let text = (self.show)(settings);
        match (self.kind)().0 {
            TomlKind::Text => toml::Value::String(text).to_string(),
            TomlKind::List => {
                let parts = text.split(',').filter(|part| !part.is_empty());
                toml::Value::Array(parts.map(|part| part.into()).collect()).to_string()
            }
            TomlKind::Integer | TomlKind::Number | TomlKind::Boolean => text,
        }
    }
}

/// Endings of keys whose values are nobody else's business.
const SECRET_ENDINGS: [&str; 6] = ["password", "secret", "token", "credentials", "headers", ".key"];

/// A value as it may be shown to anyone. Addresses hold no passwords: such a one is refused.
fn redacted(key: &str, value: String) -> String {
    if is_secret(key) && value != "none" { "(not shown)".into() } else { value }
}

/// Whether the value of a key is nobody else's business.
pub fn is_secret(key: &str) -> bool {
    SECRET_ENDINGS.iter().any(|ending| key.ends_with(ending))
}

/// The field with this key.
pub fn find(key: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.key == key)
}

/// Whether a value is within limits; an absent one always is.
trait Limited<B> {
    fn is_in(&self, limits: &RangeInclusive<B>) -> bool;
}

impl<B: PartialOrd> Limited<B> for B {
    fn is_in(&self, limits: &RangeInclusive<B>) -> bool {
        limits.contains(self)
    }
}

impl<B: PartialOrd> Limited<B> for Option<B> {
    fn is_in(&self, limits: &RangeInclusive<B>) -> bool {
        self.as_ref().is_none_or(|value| limits.contains(value))
    }
}

fn show_limits<B: Value>(limits: &RangeInclusive<B>) -> String {
    format!("{} to {}", limits.start().show(), limits.end().show())
}

fn set<V: Value>(place: &mut V, text: &str) -> bool {
    V::read(text).map(|value| *place = value).is_some()
}

fn kind<V: Value>(_: impl Fn(&Settings) -> &V) -> (TomlKind, &'static str) {
    (V::TOML, V::EXPECTED)
}

macro_rules! field {
    ($key:literal, $($path:ident).+, $limits:expr, $sentence:expr) => {
        Field {
            limits: || Some(show_limits(&$limits)),
            within_limits: |settings| settings.$($path).+.is_in(&$limits),
            ..field!($key, $($path).+, $sentence)
        }
    };
    ($key:literal, $($path:ident).+, $sentence:expr) => {
        Field {
            key: $key,
            sentence: $sentence,
            kind: || kind(|settings| &settings.$($path).+),
            limits: || None,
            show: |settings| settings.$($path).+.show(),
            set: |settings, text| set(&mut settings.$($path).+, text),
            within_limits: |_| true,
        }
    };
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: ByteSize = ByteSize(1 << 10);
const GIB: ByteSize = ByteSize(1 << 30);

/// Every setting, by section.
pub static FIELDS: [Field; 79] = [
    field!(
        "data_dir",
        data_dir,
        "Where the node keeps everything it stores; relative to where it is started."
    ),
    field!(
        "insecure_listen",
        insecure_listen,
        "Without certificates, allows addresses that other machines can reach, although nothing is \
         encrypted and nobody is asked who they are."
    ),
    field!(
        "node.name",
        node.name,
        "The name people call this node by; none: the name of the host."
    ),
    field!(
        "node.labels",
        node.labels,
        "What else is to be known of this node, as in rack=a: replicas of a partition are spread \
         over racks."
    ),
    field!(
        "rpc.addr",
        rpc.addr,
        "Where the gRPC front end listens; port 0 takes a free one, told in ports.json."
    ),
    field!(
        "rpc.connections_max",
        rpc.connections_max,
        1..=65_536,
        "gRPC connections open at once. Where more come those end that are not used, else the new ones."
    ),
    field!(
        "rpc.streams_max",
        rpc.streams_max,
        1..=65_536,
        "Calls and streams open at once on one gRPC connection."
    ),
    field!(
        "rpc.calls_max",
        rpc.calls_max,
        1..=1_048_576,
        "Calls and streams of clients open at once on all gRPC connections together; where there are \
         as many, a connection gets eight."
    ),
    field!(
        "rpc.message_bytes_max",
        rpc.message_bytes_max,
        KIB..=GIB,
        "Largest gRPC message read; must hold log.batch_bytes_max and 64KiB more."
    ),
    field!(
        "rpc.outstanding_batches_max",
        rpc.outstanding_batches_max,
        1..=4096,
        "Unanswered batches on one stream before the server stops reading from it."
    ),
    field!(
        "rpc.forward",
        rpc.forward,
        "Passes requests to append on to the node that leads their partition; false: refuses them."
    ),
    field!(
        "rpc.request_deadline",
        rpc.request_deadline,
        MS..=HOUR,
        "How long a request may wait for its answer, unless the client asks for less."
    ),
    field!(
        "rpc.idle_timeout",
        rpc.idle_timeout,
        SECOND..=DAY,
        "How long a connection may be without a call, before its client is told to go."
    ),
    field!(
        "http.addr",
        http.addr,
        "Where the HTTP front end listens; port 0 takes a free one, told in ports.json."
    ),
    field!("http.body_bytes_max", http.body_bytes_max, KIB..=GIB, "Largest HTTP request body."),
    field!(
        "http.connections_max",
        http.connections_max,
        1..=65_536,
        "HTTP connections open at once. Where more come those end that are not used, else the new ones."
    ),
    field!(
        "tls.dir",
        tls.dir,
        "Where ca.pem, node.pem, node-key.pem and, where there is one, crl.pem are: with them \
         everything on the gRPC and HTTP ports is encrypted, and everybody must show a certificate \
         of the CA; none: only the single files below. Make them with: duramen tls init. Read again \
         when they change."
    ),
    field!(
        "tls.ca_file",
        tls.ca_file,
        "The CA whose certificates are trusted; none: that of tls.dir."
    ),
    field!("tls.cert_file", tls.cert_file, "What this node shows; none: that of tls.dir."),
    field!("tls.key_file", tls.key_file, "The key of tls.cert_file; none: that of tls.dir."),
    field!(
        "tls.crl_file",
        tls.crl_file,
        "The list of certificates that are no longer good; none: that of tls.dir, once it is there."
    ),
    field!(
        "tls.peer_ca_file",
        tls.peer_ca_file,
        "The CA whose certificates are trusted of nodes that this one connects to; none: tls.ca_file."
    ),
    field!(
        "tls.peer_cert_file",
        tls.peer_cert_file,
        "What this node shows when it connects to others; none: tls.cert_file."
    ),
    field!("tls.peer_key_file", tls.peer_key_file, "The key of tls.peer_cert_file."),
    field!(
        "tls.rotation_grace",
        tls.rotation_grace,
        MS * 100..=DAY,
        "How long a connection may stay after the certificates that it was made with are replaced; \
         one whose certificate is revoked goes at once."
    ),
    field!(
        "access.enabled",
        access.enabled,
        "Denies everything that the cluster's policy does not permit, whatever the cluster's own \
         switch says (duramen acl on)."
    ),
    field!(
        "access.admins",
        access.admins,
        "Subjects that may do everything on this node, as to write a first policy or to mend a broken \
         one: names that are proved, neither * nor roles."
    ),
    field!(
        "access.model_file",
        access.model_file,
        "A model of casbin, such as the book's: with access.policy_file, in force on this node \
         beside the cluster's policy; every request is about the object *."
    ),
    field!(
        "access.policy_file",
        access.policy_file,
        "The policy of access.model_file; both are read again when they change, and what cannot be \
         read denies everything."
    ),
    field!(
        "access.audit_topic",
        access.audit_topic,
        "Copies what was noted of denied requests and administrative acts to the topic _audit, while \
         access control is on; it is in the node's own files in any case."
    ),
    field!(
        "access.stale_after",
        access.stale_after,
        SECOND..=HOUR,
        "A node that does not hear for so long that its policy is the cluster's newest, as it is cut off, \
         denies until it hears; none: it goes on with the policy that it knew."
    ),
    field!(
        "access.token_keys_file",
        access.token_keys_file,
        "The keys that tokens are checked with, as a set of JSON Web Keys (duramen token keys); \
         none: no tokens are taken."
    ),
    field!("access.token_issuer", access.token_issuer, "Who must have issued a token."),
    field!("access.token_audience", access.token_audience, "For whom a token must be."),
    field!(
        "access.token_leeway",
        access.token_leeway,
        Duration::ZERO..=HOUR,
        "How far the clocks of a token's issuer and of this node may differ."
    ),
    field!(
        "log.durability",
        log.durability,
        "How safe a record is when it is acknowledged. fsync: on stable storage. interval: handed \
         to the operating system and synced every log.sync_interval. os: handed to the operating \
         system."
    ),
    field!(
        "log.sync_interval",
        log.sync_interval,
        MS..=HOUR,
        "Time between syncs where log.durability is interval."
    ),
    field!(
        "log.batch_bytes_max",
        log.batch_bytes_max,
        KIB..=GIB,
        "Largest record batch; must hold log.record_bytes_max and 4KiB more."
    ),
    field!(
        "log.record_bytes_max",
        log.record_bytes_max,
        ByteSize(1)..=GIB,
        "Largest record: key, value and headers."
    ),
    field!(
        "log.segment_bytes_max",
        log.segment_bytes_max,
        ByteSize(64 << 10)..=ByteSize(64 << 30),
        "A segment file is closed at this size; must hold log.batch_bytes_max and 4KiB more."
    ),
    field!(
        "log.segment_age_max",
        log.segment_age_max,
        SECOND..=DAY * 3650,
        "A segment is closed at this age, so that retention by age can let go of it; none: closed \
         by size only."
    ),
    field!(
        "log.retention_bytes",
        log.retention_bytes,
        KIB..=ByteSize(1 << 60),
        "The oldest closed segments are removed while the log is larger; none: nothing is removed \
         for its size."
    ),
    field!(
        "log.retention_age",
        log.retention_age,
        SECOND..=DAY * 36_500,
        "Closed segments are removed when their newest record is older; none: nothing is removed \
         for its age."
    ),
    field!(
        "log.reserve_free_bytes",
        log.reserve_free_bytes,
        ByteSize(0)..=ByteSize(1 << 50),
        "Writes are refused when less than this is free on the disk; reads go on."
    ),
    field!(
        "log.gather_fraction",
        log.gather_fraction,
        0.0..=1.0,
        "Before a small flush, wait for this share of the usual number of requests, so that one \
         flush serves more of them; 0: never wait."
    ),
    field!(
        "log.gather_wait_max",
        log.gather_wait_max,
        Duration::ZERO..=MS * 100,
        "Longest such wait."
    ),
    field!(
        "gossip.addr",
        gossip.addr,
        "Where nodes gossip about who is there, by TCP and UDP; port 0 takes a free one."
    ),
    field!(
        "gossip.advertise",
        gossip.advertise,
        "The address that other nodes are told to gossip with; none: where this node listens."
    ),
    field!(
        "gossip.join",
        gossip.join,
        "Where any nodes of the cluster gossip: an empty directory joins them; with an empty list \
         it becomes a cluster of its own."
    ),
    field!(
        "gossip.key",
        gossip.key,
        "The key with which nodes encrypt gossip, 32 bytes as base64 or hexadecimal, the same on \
         all of them; none: nothing is encrypted."
    ),
    field!(
        "gossip.connections_max",
        gossip.connections_max,
        4..=1024,
        "Gossip connections that may be open at once; the oldest that has not finished its message \
         gives way."
    ),
    field!(
        "gossip.message_bytes_max",
        gossip.message_bytes_max,
        ByteSize(64 << 10)..=ByteSize::mib(16),
        "Largest message on a gossip connection: all that a node knows of a thousand others has room."
    ),
    field!(
        "gossip.message_timeout",
        gossip.message_timeout,
        MS * 100..=SECOND * 60,
        "How long a message on a gossip connection may take."
    ),
    field!(
        "gossip.multicast",
        gossip.multicast,
        "The group in which a node that knows nobody looks for others of its network, as in \
         239.255.84.0:8402; none: it does not look."
    ),
    field!(
        "cluster.advertise_rpc",
        cluster.advertise_rpc,
        "Where clients and other nodes are to reach this one; none: where the gRPC front end listens."
    ),
    field!(
        "cluster.tick",
        cluster.tick,
        MS * 5..=SECOND * 10,
        "The unit of time of elections and heartbeats."
    ),
    field!(
        "cluster.election_ticks",
        cluster.election_ticks,
        3..=1000,
        "Ticks without a leader before a replica stands for election, up to twice as many by chance."
    ),
    field!(
        "cluster.heartbeat_ticks",
        cluster.heartbeat_ticks,
        1..=100,
        "Ticks between two heartbeats of a leader."
    ),
    field!(
        "cluster.remove_dead_after",
        cluster.remove_dead_after,
        SECOND * 10..=DAY * 365,
        "A member that was away for so long is removed, and its replicas are made anew elsewhere; \
         none: only an operator removes."
    ),
    field!(
        "cluster.replication_factor",
        cluster.replication_factor,
        1..=7,
        "Replicas of each partition of a new topic that does not say, as far as there are nodes."
    ),
    field!(
        "replicator.queue_bytes_max",
        replicator.queue_bytes_max,
        ByteSize::mib(1)..=GIB,
        "Bytes of messages that may wait for one other node; more are dropped and sent again later."
    ),
    field!(
        "replicator.queue_messages_max",
        replicator.queue_messages_max,
        16..=1_000_000,
        "Messages that may wait for one other node; more are dropped and sent again later."
    ),
    field!(
        "admission.messages_max",
        admission.messages_max,
        1..=1_048_576,
        "Requests that may wait per partition; further ones are refused as overloaded."
    ),
    field!(
        "admission.bytes_max",
        admission.bytes_max,
        KIB..=ByteSize(64 << 30),
        "Bytes of requests that may wait per partition; must hold log.batch_bytes_max."
    ),
    field!(
        "admission.incoming_bytes_max",
        admission.incoming_bytes_max,
        ByteSize::mib(1)..=ByteSize(64 << 30),
        "Bytes of requests that are still coming in, of all clients together; where there are more, \
         the one begun first gives way. Must hold rpc.message_bytes_max and http.body_bytes_max."
    ),
    field!(
        "supervision.restarts_max",
        supervision.restarts_max,
        0..=1000,
        "Restarts of one part within supervision.window; one more, and it leaves service."
    ),
    field!(
        "supervision.window",
        supervision.window,
        SECOND..=DAY,
        "The window over which restarts are counted."
    ),
    field!(
        "supervision.hang_after",
        supervision.hang_after,
        MS * 100..=HOUR,
        "A part that makes no progress for so long counts as hung and is replaced."
    ),
    field!(
        "shutdown.grace",
        shutdown.grace,
        Duration::ZERO..=HOUR,
        "How long requests under way may take to finish when the node is told to stop."
    ),
    field!(
        "logger.spec",
        logger.spec,
        "Which lines are written: a level, then patterns with levels of their own, of actor paths \
         and of messages below them, as in info,partitions/*/log:trace,*/Append:debug. Lines of \
         libraries are below library, as in library/h2:debug. Taken over on SIGHUP."
    ),
    field!(
        "logger.format",
        logger.format,
        "What a line looks like: text, json or logfmt; auto: text on a terminal, json otherwise."
    ),
    field!(
        "logger.messages_per_second_max",
        logger.messages_per_second_max,
        10..=10_000_000,
        "Messages between actors that are logged in a second where their level is trace; what is \
         beyond is counted and told."
    ),
    field!(
        "recorder.messages_max",
        recorder.messages_max,
        16..=65_536,
        "Messages that are remembered of each actor, for crash reports and taps."
    ),
    field!(
        "crash.reports_max",
        crash.reports_max,
        1..=10_000,
        "Crash reports kept in the data directory; the oldest are removed first."
    ),
    field!(
        "crash.bytes_max",
        crash.bytes_max,
        ByteSize::mib(1)..=GIB,
        "Bytes of crash reports kept; the oldest are removed first."
    ),
    field!(
        "telemetry.otlp_endpoint",
        telemetry.otlp_endpoint,
        "The OpenTelemetry collector that gets metrics and traces (OTLP over gRPC), as in \
         http://127.0.0.1:4317; none: nobody."
    ),
    field!(
        "telemetry.traces_ratio",
        telemetry.traces_ratio,
        0.0..=1.0,
        "Share of the requests without a trace context that are traced; of those with one the \
         caller decides."
    ),
    field!(
        "telemetry.metrics_interval",
        telemetry.metrics_interval,
        MS * 100..=HOUR,
        "Time between two exports of all metrics to the collector, or to the debug directory."
    ),
    field!(
        "telemetry.debug_dir",
        telemetry.debug_dir,
        "Where metrics-*.log and traces-*.log are written, for a look at both without a collector; \
         none: nowhere."
    ),
];

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn secrets_are_not_shown_and_everything_else_is() {
        assert_eq!(redacted("rpc.auth_token", "abc".into()), "(not shown)");
        assert_eq!(redacted("gossip.key", "abc".into()), "(not shown)");
        assert_eq!(redacted("x.endpoint", "http://host/a@b".into()), "http://host/a@b");
        assert_eq!(redacted("log.durability", "fsync".into()), "fsync");
    }
}
