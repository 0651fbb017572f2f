//! What a node can be told: every setting, its default, and the layers it may come from.
//!
//! A setting is known by its key (`log.batch_bytes_max`). The same key names it in the TOML file
//! (`[log]`, `batch_bytes_max`), in the environment (`DURAMEN_LOG_BATCH_BYTES_MAX`), in
//! `duramen config show` and in every error. Flags win over variables, variables over the file, the
//! file over the defaults, key by key ([`Sources::layer`]). [`fields::FIELDS`] is the one list of keys,
//! with sentence and limits; this file holds the types and the defaults.

mod cluster;
mod error;
pub mod fields;
mod file;
mod layers;
mod proglog;
mod rules;
mod sample;
mod value;

#[cfg(test)]
mod tests;

pub use cluster::{GossipKey, HostPort, Labels};
pub use error::{Fault, SettingsError};
pub use layers::{Flag, Loaded, Origin, Sources};
pub use sample::sample_file;
pub use value::{ByteSize, LogFormat, Url, Value, parse_duration, show_duration};

use crate::model::Durability;
use crate::ops::logger::LevelSpec;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Everything a node is started with. Read once, validated once, then passed on as its sections.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the node keeps everything it stores.
    pub data_dir: PathBuf,
    /// Allows addresses that other machines can reach, without TLS.
    pub insecure_listen: bool,
    /// Who this node is.
    pub node: NodeSettings,
    /// The gRPC front end.
    pub rpc: RpcSettings,
    /// The HTTP front end.
    pub http: HttpSettings,
    /// Certificates.
    pub tls: TlsSettings,
    /// Who may do what.
    pub access: AccessSettings,
    /// The commit log.
    pub log: LogSettings,
    /// How nodes learn of each other.
    pub gossip: GossipSettings,
    /// The group of nodes that this one is part of.
    pub cluster: ClusterSettings,
    /// What may wait for a peer.
    pub replicator: ReplicatorSettings,
    /// How much may wait at once.
    pub admission: AdmissionSettings,
    /// When parts are restarted, and when no more.
    pub supervision: SupervisionSettings,
    /// How the node leaves.
    pub shutdown: ShutdownSettings,
    /// Diagnostics on standard error.
    pub logger: LoggerSettings,
    /// What is kept of messages that were handled.
    pub recorder: RecorderSettings,
    /// Reports of crashes.
    pub crash: CrashSettings,
    /// Where metrics and traces go beside `/metrics`.
    pub telemetry: TelemetrySettings,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSettings {
    /// The name people call it by; `None`: the name of the host.
    pub name: Option<String>,
    /// What else is to be known of it.
    pub labels: Labels,
}

impl NodeSettings {
    /// The name people call it by.
    pub fn shown_name(&self) -> String {
        let host = || Some(hostname::get().ok()?.to_string_lossy().into_owned());
        self.name.clone().or_else(host).unwrap_or_else(|| "unnamed".into())
    }
}

/// Certificates: what is given by itself counts before what is in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Where `ca.pem`, `node.pem`, `node-key.pem` and perhaps `crl.pem` are.
    pub dir: Option<PathBuf>,
    /// Whose certificates are trusted.
    pub ca_file: Option<PathBuf>,
    /// What the node shows.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Certificates that are no longer good.
    pub crl_file: Option<PathBuf>,
    /// Whose certificates are trusted of nodes that this one connects to.
    pub peer_ca_file: Option<PathBuf>,
    /// What the node shows when it connects to others.
    pub peer_cert_file: Option<PathBuf>,
    /// Its key.
    pub peer_key_file: Option<PathBuf>,
    /// How long a connection may stay after the certificates it was made with are replaced.
    pub rotation_grace: Duration,
}

impl TlsSettings {
    /// Whether everything is encrypted, and everybody is asked who they are.
    pub fn is_on(&self) -> bool {
        self.dir.is_some()
            || [&self.ca_file, &self.cert_file, &self.key_file].into_iter().any(Option::is_some)
    }
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            dir: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            crl_file: None,
            peer_ca_file: None,
            peer_cert_file: None,
            peer_key_file: None,
            rotation_grace: Duration::from_secs(30),
        }
    }
}

/// How nodes learn of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipSettings {
    /// Where it listens, by TCP and UDP; port 0 takes a free one.
    pub addr: SocketAddr,
    /// What is told to others; `None`: where it listens.
    pub advertise: Option<SocketAddr>,
    /// Where any member gossips; empty: nobody is looked for.
    pub join: Vec<HostPort>,
    /// The key that all nodes share; `None`: nothing is encrypted.
    pub key: Option<GossipKey>,
    /// Connections open at once; the oldest unfinished one gives way.
    pub connections_max: u32,
    /// Largest message on a connection.
    pub message_bytes_max: ByteSize,
    /// How long a message on a connection may take.
    pub message_timeout: Duration,
    /// The group in which a node that knows nobody looks for others; `None`: it does not.
    pub multicast: Option<SocketAddr>,
}

impl GossipSettings {
    /// Whether the node looks for a cluster to join; without, an empty directory founds one.
    pub fn joins(&self) -> bool {
        !self.join.is_empty() || self.multicast.is_some()
    }
}

/// The group of nodes that a node is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Where clients and peers are to reach this node; `None`: where gRPC listens.
    pub advertise_rpc: Option<HostPort>,
    /// The unit of time of elections and heartbeats.
    pub tick: Duration,
    /// Ticks without a leader before a follower stands for election.
    pub election_ticks: u32,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// A member that was away so long is removed; `None`: only an operator removes.
    pub remove_dead_after: Option<Duration>,
    /// Replicas of each partition of a topic that does not say.
    pub replication_factor: u32,
}

/// What may wait for a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicatorSettings {
    /// Bytes of messages waiting for one peer.
    pub queue_bytes_max: ByteSize,
    /// Messages waiting for one peer.
    pub queue_messages_max: u32,
}

/// The gRPC front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcSettings {
    /// Where it listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Connections open at once; further ones are closed on arrival.
    pub connections_max: u32,
    /// HTTP/2 streams open at once on one connection.
    pub streams_max: u32,
    /// Calls of clients open at once on all connections.
    pub calls_max: u32,
    /// Largest gRPC message read.
    pub message_bytes_max: ByteSize,
    /// Unanswered batches on one stream before the server stops reading from it.
    pub outstanding_batches_max: u32,
    /// Passes requests to append on to the node that leads their partition.
    pub forward: bool,
    /// How long a request may wait for its answer, unless the client asks for less.
    pub request_deadline: Duration,
    /// How long a connection may be without a call before its client is told to go.
    pub idle_timeout: Duration,
}

/// The HTTP front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where it listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Largest request body.
    pub body_bytes_max: ByteSize,
    /// Connections open at once; further ones are closed on arrival.
    pub connections_max: u32,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessSettings {
    /// Denies what the cluster's policy does not permit, also before the cluster says so.
    pub enabled: bool,
    /// Subjects that may do everything on this node.
    pub admins: Vec<String>,
    /// A model and …
    pub model_file: Option<PathBuf>,
    /// … a policy of casbin, in force on this node beside that of the cluster.
    pub policy_file: Option<PathBuf>,
    /// Copies what was noted of denied requests and administrative acts to the topic `_audit`.
    pub audit_topic: bool,
    /// The longest that the cluster's policy counts after it was known to be the newest; `None`: for ever.
    pub stale_after: Option<Duration>,
    /// The keys of tokens, as a set of JSON Web Keys; `None`: no tokens are taken.
    pub token_keys_file: Option<PathBuf>,
    /// Who issues tokens.
    pub token_issuer: String,
    /// For whom tokens are.
    pub token_audience: String,
    /// How far the clocks of issuer and node may differ.
    pub token_leeway: Duration,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            admins: Vec::new(),
            model_file: None,
            policy_file: None,
            audit_topic: true,
            // Longer than elections and restarts take, shorter than people need to rely on a change.
            stale_after: Some(Duration::from_secs(10)),
            token_keys_file: None,
            token_issuer: "duramen".into(),
            token_audience: "duramen".into(),
            token_leeway: Duration::from_secs(30),
        }
    }
}

/// The commit log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// How safe a record is when it is acknowledged.
    pub durability: Durability,
    /// Time between syncs where the durability is `interval`.
    pub sync_interval: Duration,
    /// Largest record batch.
    pub batch_bytes_max: ByteSize,
    /// Largest record.
    pub record_bytes_max: ByteSize,
    /// A segment is closed at this size.
    pub segment_bytes_max: ByteSize,
    /// A segment is closed at this age; `None`: by size only.
    pub segment_age_max: Option<Duration>,
    /// Oldest segments go when the log is larger; `None`: kept.
    pub retention_bytes: Option<ByteSize>,
    /// Segments go when their newest record is older; `None`: kept.
    pub retention_age: Option<Duration>,
    /// Writes are refused when less of the disk is free.
    pub reserve_free_bytes: ByteSize,
    /// Share of the usual number of requests to wait for before a small flush, 0 to 1.
    pub gather_fraction: f64,
    /// Longest wait for that share.
    pub gather_wait_max: Duration,
}

/// How much may wait at once, before anything is queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// Requests waiting per partition.
    pub messages_max: u32,
    /// Bytes of requests waiting per partition.
    pub bytes_max: ByteSize,
    /// Bytes of requests that are still coming in, of all clients together.
    pub incoming_bytes_max: ByteSize,
}

/// When parts are restarted, and when no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisionSettings {
    /// Restarts of one part within the window before it is given up.
    pub restarts_max: u32,
    /// The window over which restarts are counted.
    pub window: Duration,
    /// A part that makes no progress for so long counts as hung.
    pub hang_after: Duration,
}

/// How the node leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// How long requests under way may take to finish.
    pub grace: Duration,
}

/// Diagnostics on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggerSettings {
    /// Which lines are written.
    pub spec: LevelSpec,
    /// What a line looks like.
    pub format: LogFormat,
    /// Messages between actors that are logged in a second; more are counted.
    pub messages_per_second_max: u32,
}

/// What is kept of messages that were handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderSettings {
    /// Messages kept for each actor.
    pub messages_max: u32,
}

/// Reports of crashes, in the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashSettings {
    /// Reports kept; the oldest go first.
    pub reports_max: u32,
    /// Bytes of reports kept; the oldest go first.
    pub bytes_max: ByteSize,
}

/// Where metrics and traces go beside `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetrySettings {
    /// An OTLP collector's gRPC address, `http://host:port`; `None`: none.
    pub otlp_endpoint: Option<Url>,
    /// Share of the requests without a trace context that are traced, 0 to 1.
    pub traces_ratio: f64,
    /// Time between two exports of all metrics.
    pub metrics_interval: Duration,
    /// Where files of metrics and traces are written; `None`: nowhere.
    pub debug_dir: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./duramen-data"),
            insecure_listen: false,
            node: NodeSettings::default(),
            rpc: RpcSettings::default(),
            http: HttpSettings::default(),
            tls: TlsSettings::default(),
            access: AccessSettings::default(),
            log: LogSettings::default(),
            gossip: GossipSettings::default(),
            cluster: ClusterSettings::default(),
            replicator: ReplicatorSettings {
                queue_bytes_max: ByteSize::mib(32),
                queue_messages_max: 4096,
            },
            admission: AdmissionSettings::default(),
            supervision: SupervisionSettings::default(),
            shutdown: ShutdownSettings { grace: Duration::from_secs(10) },
            logger: LoggerSettings {
                spec: LevelSpec::default(),
                format: LogFormat::Auto,
                messages_per_second_max: 4_000,
            },
            recorder: RecorderSettings { messages_max: 256 },
            crash: CrashSettings { reports_max: 50, bytes_max: ByteSize::mib(16) },
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl Default for RpcSettings {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8400)),
            connections_max: 1024,
            streams_max: 128,
            calls_max: 1024,
            message_bytes_max: ByteSize::mib(17),
            outstanding_batches_max: 16,
            forward: true,
            request_deadline: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(5 * 60),
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            body_bytes_max: ByteSize::mib(16),
            connections_max: 256,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            sync_interval: Duration::from_secs(1),
            batch_bytes_max: ByteSize::mib(16),
            record_bytes_max: ByteSize::mib(8),
            segment_bytes_max: ByteSize::mib(256),
            segment_age_max: None,
            retention_bytes: None,
            retention_age: None,
            reserve_free_bytes: ByteSize::mib(16),
            gather_fraction: 0.9,
            gather_wait_max: Duration::from_millis(1),
        }
    }
}

impl Default for GossipSettings {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8401)),
            advertise: None,
            join: Vec::new(),
            key: None,
            connections_max: 32,
            message_bytes_max: ByteSize::mib(1),
            message_timeout: Duration::from_secs(5),
            multicast: None,
        }
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            advertise_rpc: None,
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            remove_dead_after: None,
            replication_factor: 3,
        }
    }
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            messages_max: 8192,
            bytes_max: ByteSize::mib(64),
            incoming_bytes_max: ByteSize::mib(18),
        }
    }
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            traces_ratio: 0.01,
            metrics_interval: Duration::from_secs(10),
            debug_dir: None,
        }
    }
}

impl Default for SupervisionSettings {
    fn default() -> Self {
        Self {
            restarts_max: 3,
            window: Duration::from_secs(60),
            hang_after: Duration::from_secs(10),
        }
    }
}
