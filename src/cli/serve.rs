//! `duramen serve`: settings, logger, a node, and the signals until it is told to stop.

mod greeting;
mod reload;

use super::exit::Class;
use super::{Failure, allocator, version};
use crate::actors::partition::PartitionState;
use crate::model::SystemClock;
use crate::node::{MirrorPlan, Node, Surroundings};
use crate::ops::logger::{self, LoggerHandle};
use crate::ops::notify::Notifier;
use crate::ops::settings::{Flag, Loaded, Settings, Sources, show_duration};
use crate::ops::signals::{Request, Signals, StopSignal};
use clap::Args;
use reload::Reloader;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slog::{Logger, crit, error, info, warn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Where nodes look for each other that are told to, and not told where.
const MULTICAST_GROUP: &str = "239.255.84.0:8402";
/// How often the service manager hears how far recovery has come.
const RECOVERY_NOTICE_INTERVAL: Duration = Duration::from_secs(3);

/// Arguments of `duramen serve`. Each is also a setting: see `duramen config sample`.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Where the node keeps everything it stores [default: ./duramen-data].
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Where gRPC is served; port 0 takes a free one [default: 127.0.0.1:8400].
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) rpc_addr: Option<String>,
    /// Where HTTP is served; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) http_addr: Option<String>,
    /// Where nodes gossip about who is there; port 0 takes a free one [default: 127.0.0.1:8401].
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) gossip_addr: Option<String>,
    /// Join the cluster of these nodes (where they gossip), if the data directory is empty.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(super) join: Vec<String>,
    /// Look for other nodes in the local network by multicast, while none is known. The first node of a
    /// cluster is started without it once.
    #[arg(long)]
    pub(super) discover: bool,
    /// A file with the key that encrypts gossip: 32 bytes as base64 or hexadecimal.
    #[arg(long, value_name = "FILE")]
    pub(super) gossip_key_file: Option<PathBuf>,
    /// What people call this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(super) node_name: Option<String>,
    /// Where clients and other nodes are to reach this node [default: where gRPC is served].
    #[arg(long, visible_alias = "advertise-rpc", value_name = "HOST:PORT")]
    pub(super) peer_addr: Option<String>,
    /// What else is to be known of this node, as in rack=a; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Take and check tokens with the keys in this file, a set of JSON Web Keys.
    #[arg(long, value_name = "FILE")]
    pub(super) token_keys_file: Option<String>,
    /// A model of casbin that decides who may do what on this node, with --acl-policy-file.
    #[arg(long, value_name = "FILE")]
    pub(super) acl_model_file: Option<String>,
    /// The policy of --acl-model-file.
    #[arg(long, value_name = "FILE")]
    pub(super) acl_policy_file: Option<String>,
    /// Configuration file, TOML or YAML [default: what DURAMEN_CONFIG names].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// How safe a record is when it is acknowledged: fsync, interval or os [default: fsync].
    #[arg(long, value_name = "LEVEL")]
    pub(super) durability: Option<String>,
    /// Which lines are logged, as in info,partitions/*/log:trace,*/Append:debug [default: info].
    #[arg(long, value_name = "SPEC")]
    pub(super) log: Option<String>,
    /// What a log line looks like: auto, text, json or logfmt [default: auto].
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// Pass requests to append on to the node that leads their partition: true or false
    /// [default: true].
    #[arg(long, value_name = "BOOL")]
    pub(super) forward: Option<String>,
    /// Encrypt everything, and ask everybody for a certificate: where ca.pem, node.pem and
    /// node-key.pem are (duramen tls init).
    #[arg(long, value_name = "DIR")]
    pub(super) tls_dir: Option<String>,
    /// The certificate to show [default: node.pem of --tls-dir].
    #[arg(long, value_name = "FILE")]
    pub(super) server_tls_cert_file: Option<String>,
    /// Its key [default: node-key.pem of --tls-dir].
    #[arg(long, value_name = "FILE")]
    pub(super) server_tls_key_file: Option<String>,
    /// The CA that certificates must be of [default: ca.pem of --tls-dir].
    #[arg(long, value_name = "FILE")]
    pub(super) server_tls_ca_file: Option<String>,
    /// The certificate to show nodes that this one connects to [default: that of the server].
    #[arg(long, value_name = "FILE")]
    pub(super) peer_tls_cert_file: Option<String>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    pub(super) peer_tls_key_file: Option<String>,
    /// The CA that certificates of such nodes must be of [default: that of the server].
    #[arg(long, value_name = "FILE")]
    pub(super) peer_tls_ca_file: Option<String>,
    /// Allow addresses that other machines can reach, without encryption or authentication.
    #[arg(long)]
    pub(super) insecure_listen: bool,
    /// Write metrics and traces of every request to files in the system's temporary directory:
    /// metrics-*.log and traces-*.log.
    #[arg(long)]
    pub(super) debug: bool,
    /// Check settings, data directory, certificates and files of access control as a start would,
    /// and end; changes nothing, opens no port.
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl ServeArgs {
    fn flags(&self) -> Result<Vec<Flag>, Failure> {
        let insecure = self.insecure_listen.then(|| "true".to_owned());
        let debug_dir = self.debug.then(|| std::env::temp_dir().display().to_string());
        let debug_ratio = self.debug.then(|| "1".to_owned());
        let list = |parts: &[String]| (!parts.is_empty()).then(|| parts.join(","));
        let discover = self.discover.then(|| MULTICAST_GROUP.to_owned());
        let gossip_key = self.gossip_key_file.as_deref().map(read_key).transpose()?;
        // In the book an empty name is none.
        let named = |file: &Option<String>| {
            file.clone().map(|file| if file.is_empty() { "none".to_owned() } else { file })
        };
        let flags = [
            ("--data-dir", "data_dir", &self.data_dir),
            ("--rpc-addr", "rpc.addr", &self.rpc_addr),
            ("--http-addr", "http.addr", &self.http_addr),
            ("--gossip-addr", "gossip.addr", &self.gossip_addr),
            ("--join", "gossip.join", &list(&self.join)),
            ("--discover", "gossip.multicast", &discover),
            ("--gossip-key-file", "gossip.key", &gossip_key),
            ("--node-name", "node.name", &self.node_name),
            ("--peer-addr", "cluster.advertise_rpc", &self.peer_addr),
            ("--label", "node.labels", &list(&self.label)),
            ("--forward", "rpc.forward", &self.forward),
            ("--token-keys-file", "access.token_keys_file", &self.token_keys_file),
            ("--acl-model-file", "access.model_file", &named(&self.acl_model_file)),
            ("--acl-policy-file", "access.policy_file", &named(&self.acl_policy_file)),
            ("--durability", "log.durability", &self.durability),
            ("--log", "logger.spec", &self.log),
            ("--log-format", "logger.format", &self.log_format),
            ("--debug", "telemetry.debug_dir", &debug_dir),
            ("--debug", "telemetry.traces_ratio", &debug_ratio),
            ("--tls-dir", "tls.dir", &self.tls_dir),
            ("--server-tls-cert-file", "tls.cert_file", &named(&self.server_tls_cert_file)),
            ("--server-tls-key-file", "tls.key_file", &named(&self.server_tls_key_file)),
            ("--server-tls-ca-file", "tls.ca_file", &named(&self.server_tls_ca_file)),
            ("--peer-tls-cert-file", "tls.peer_cert_file", &named(&self.peer_tls_cert_file)),
            ("--peer-tls-key-file", "tls.peer_key_file", &named(&self.peer_tls_key_file)),
            ("--peer-tls-ca-file", "tls.peer_ca_file", &named(&self.peer_tls_ca_file)),
            ("--insecure-listen", "insecure_listen", &insecure),
        ];
        let given = flags.into_iter();
        Ok(given
            .filter_map(|(name, key, value)| Some(Flag { name, key, value: value.clone()? }))
            .collect())
    }
}

/// The key as text. A key on the command line itself would be seen by everyone on the machine.
#[allow(clippy::disallowed_methods, reason = "the edge where the file of the key is read")]
fn read_key(file: &Path) -> Result<String, Failure> {
    let what = format!("cannot read the key of gossip from {}", file.display());
    std::fs::read_to_string(file).map_err(|error| Failure::io(&what, &error))
}

/// Serves until a signal or a failure that the node cannot contain. Blocks.
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    run_as(args, None)
}

/// As [`run`], as a mirror where that is asked for. Blocks.
pub(super) fn run_as(args: ServeArgs, mirror: Option<MirrorPlan>) -> Result<(), Failure> {
    let flags = args.flags()?;
    let loaded = Sources::gather(flags.clone(), args.config.as_deref())?.layer()?;
    if args.dry_run {
        return dry_run(&loaded);
    }
    let (logger, handle) = logger::start(&loaded.settings.logger, Arc::new(SystemClock::new()));
    // The one logger of this process: nobody else can have been before.
    handle.control().install_for_libraries(logger.clone());
    first_lines(&logger, &loaded);
    raise_open_files(&logger);
    let reloader = Reloader::new(flags, args.config, loaded);
    let outcome = actix_rt::System::new().block_on(serve(reloader, mirror, &logger, &handle));
    if let Err(failure) = &outcome {
        error!(logger, "duramen ends"; "error" => &failure.error, "cause" => &failure.cause);
    }
    // Lines on their way come out before the failure's own.
    drop(handle);
    outcome
}

/// A start that ends before it changes anything.
fn dry_run(loaded: &Loaded) -> Result<(), Failure> {
    let settings = &loaded.settings;
    let (logger, handle) = logger::start(&settings.logger, Arc::new(SystemClock::new()));
    warnings(&logger, loaded);
    let denied = Node::rehearse(settings, &logger);
    // What a start warns of comes out before the outcome.
    drop(handle);
    let denied = denied?;
    if !denied.is_empty() {
        let error = "a node would start, but refuse everybody, or requests";
        let advice = "certificates: duramen tls verify DIR tells more; files of access control: mend \
                      them, or leave the settings of section [access] out that name them";
        return Err(Failure::new(Class::Config, error).cause(denied.join("\n")).advice(advice));
    }
    let directory = settings.data_dir.display();
    eprintln!("the configuration is valid, and a node can start on {directory}");
    Ok(())
}

fn first_lines(logger: &Logger, loaded: &Loaded) {
    let Settings { data_dir, rpc, http, gossip, log, .. } = &loaded.settings;
    let config = loaded.file.as_ref().map_or("none".into(), |file| file.display().to_string());
    info!(logger, "duramen starts"; "version" => env!("CARGO_PKG_VERSION"),
        "commit" => version::COMMIT, "config" => config, "data_dir" => %data_dir.display(),
        "rpc" => %rpc.addr, "http" => %http.addr, "gossip" => %gossip.addr,
        "durability" => %log.durability);
    warnings(logger, loaded);
}

fn warnings(logger: &Logger, loaded: &Loaded) {
    let Settings { rpc, http, gossip, tls, .. } = &loaded.settings;
    for warning in &loaded.warnings {
        warn!(logger, "{warning}");
    }
    for (key, address) in [("rpc.addr", rpc.addr), ("http.addr", http.addr)] {
        if !address.ip().is_loopback() && !tls.is_on() {
            warn!(logger, "other machines can reach an address that nothing protects";
                "key" => key, "address" => %address);
        }
    }
    if !gossip.addr.ip().is_loopback() && gossip.key.is_none() {
        warn!(logger, "other machines can gossip with this node, and nothing is encrypted";
            "key" => "gossip.addr", "address" => %gossip.addr, "advice" => "set gossip.key");
    }
}

/// Segments and connections are files; the soft limit of 1,024 is a relic of `select`.
fn raise_open_files(logger: &Logger) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(logger, "cannot raise the limit of open files"; "error" => %error);
    }
}

/// A node's life, from its start to its end. Runs on an actix system.
async fn serve(
    reloader: Reloader,
    mirror: Option<MirrorPlan>,
    logger: &Logger,
    handle: &LoggerHandle,
) -> Result<(), Failure> {
    // Before anything else: a signal that comes while the node starts must not kill it half-way.
    let mut signals =
        Signals::listen().map_err(|error| Failure::io("cannot listen for signals", &error))?;
    let settings = reloader.settings().clone();
    let grace = settings.shutdown.grace;
    let notifier = Notifier::new(logger.clone());
    let log_control = Some(handle.control());
    let surroundings = Surroundings { log_control, mirror, ..Surroundings::of(logger.clone()) };
    let node = Node::start_with(&settings, surroundings)?;
    let mut life = Life { node: &node, settings, reloader, notifier, logger, handle };
    let ended = life.until_its_end(&mut signals).await;
    life.notifier.stopping();
    node.data_dir().remove_ports();
    tokio::select! {
        () = node.shutdown(grace) => {
            info!(logger, "duramen has stopped");
            ended
        }
        signal = second_stop(&mut signals) => {
            Err(Failure::new(Class::Signal(signal), "left before everything was closed")
                .cause(format!("a second signal came ({signal})"))
                .advice("nothing: what was acknowledged is stored, and the next start recovers it"))
        }
    }
}

/// Waits for a signal that asks to leave at once.
async fn second_stop(signals: &mut Signals) -> StopSignal {
    loop {
        if let Request::Drain(signal) | Request::LeaveNow(signal) = signals.next().await {
            return signal;
        }
    }
}

struct Life<'n> {
    node: &'n Node,
    settings: Settings,
    reloader: Reloader,
    notifier: Notifier,
    logger: &'n Logger,
    handle: &'n LoggerHandle,
}

impl Life<'_> {
    /// Obeys signals until one says stop (`Ok`), or the node gives up.
    async fn until_its_end(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let (node, notifier) = (self.node, self.notifier.clone());
        let mut announced =
            pin!(announce(node, self.settings.clone(), notifier.clone(), self.logger.clone()));
        let mut failed = pin!(node.failed());
        let mut watched = pin!(notifier.feed_watchdog(async || !node.tree().status().is_empty()));
        let mut given_back = pin!(allocator::give_back());
        let (mut is_announced, mut is_watched) = (false, true);
        loop {
            tokio::select! {
                request = signals.next() => match request {
                    Request::Drain(signal) | Request::LeaveNow(signal) => {
                        info!(self.logger, "draining"; "signal" => %signal,
                            "grace" => show_duration(self.settings.shutdown.grace));
                        return Ok(());
                    }
                    Request::Reload => self.reload(is_announced),
                    Request::DumpTree => self.dump_tree(),
                    Request::ReopenFiles => info!(self.logger, "no files of diagnostics to reopen"),
                },
                reason = &mut failed => {
                    crit!(self.logger, "the node gives up"; "reason" => &reason);
                    return Err(Failure::new(Class::Runtime, "the node gave up").cause(reason)
                        .advice("the lines above tell what failed; a restart recovers from disk"));
                }
                () = &mut announced, if !is_announced => is_announced = true,
                () = &mut watched, if is_watched => is_watched = false,
                never = &mut given_back => match never {},
            }
        }
    }

    fn reload(&mut self, is_announced: bool) {
        self.notifier.reloading();
        self.node.reload_certificates();
        self.reloader.reload(self.handle, self.logger);
        // The notice that ends a reload also says "ready": not before it is true.
        if is_announced {
            self.notifier.ready("serving");
        }
    }

    fn dump_tree(&self) {
        let root = self.node.tree().status();
        let mut places = vec![&root];
        while let Some(place) = places.pop() {
            info!(self.logger, "tree"; "actor" => %place.path, "state" => %place.state,
                "life" => place.generation, "restarts" => place.restarts,
                "in_flight" => place.in_flight, "refused" => place.refused);
            places.extend(place.children.iter().rev());
        }
    }
}

/// Tells everyone who waits for it that the node is ready, once recovery is over.
async fn announce(node: &Node, settings: Settings, notifier: Notifier, logger: Logger) {
    let mut ready = pin!(node.ready());
    let mut recovering = tokio::time::interval(RECOVERY_NOTICE_INTERVAL);
    let state = loop {
        tokio::select! {
            biased;
            state = &mut ready => break state,
            _ = recovering.tick() => {
                notifier.extend_start(RECOVERY_NOTICE_INTERVAL * 10);
                let all = node.partitions().list();
                let handles =
                    all.iter().filter_map(|(topic, n, _)| node.partitions().get(topic.as_str(), *n));
                let mut states = handles.map(|partition| partition.state());
                if let Some((state, reason)) =
                    states.find(|(state, _)| *state != PartitionState::Serving)
                {
                    notifier.status(&format!("{} {reason}", state.name()));
                }
            }
        }
    };
    if let Err(error) = node.data_dir().write_ports(node.rpc_addr(), node.http_addr()) {
        // A full disk, perhaps: the node serves all the same, and the addresses are logged below.
        warn!(logger, "cannot tell the ports in the data directory"; "error" => %error);
    }
    notifier.ready(state.name());
    info!(logger, "ready"; "state" => state.name(), "node_id" => node.node_id(),
        "rpc" => %node.rpc_addr(), "http" => %node.http_addr());
    greeting::print(node.rpc_addr(), node.http_addr(), &settings);
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test writes the file of a key")]
mod tests {
    use super::*;
    use crate::ops::settings::{GossipKey, HostPort};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn flags(line: &[&str]) -> Result<Vec<Flag>, Failure> {
        let line = ["duramen"].iter().chain(line);
        Line::try_parse_from(line).unwrap().serve.flags()
    }

    #[test]
    fn the_flags_of_a_cluster_are_settings() {
        let key = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(key.path(), format!("{}\n", "07".repeat(32))).unwrap();
        let key_file = key.path().display().to_string();
        let flags = flags(&[
            "--gossip-addr=127.0.0.1:1",
            "--join=10.0.0.7:8401,n2.example.net:8401",
            "--join=n3.example.net:8401",
            "--node-name=n9",
            "--peer-addr=n9.example.net:8400",
            "--label=rack=a",
            "--label=zone=b",
            "--discover",
            "--gossip-key-file",
            &key_file,
        ]);
        let loaded = Sources { flags: flags.unwrap(), ..Sources::default() }.layer().unwrap();
        let Settings { gossip, node, cluster, .. } = &loaded.settings;
        assert_eq!(gossip.addr, "127.0.0.1:1".parse().unwrap());
        assert_eq!(gossip.join.len(), 3);
        assert_eq!(gossip.key.as_ref().map(GossipKey::bytes), Some([7; 32]));
        assert_eq!(gossip.multicast, Some(MULTICAST_GROUP.parse().unwrap()));
        assert_eq!(node.shown_name(), "n9");
        assert_eq!((node.labels.0["rack"].as_str(), node.labels.0["zone"].as_str()), ("a", "b"));
        let peer_addr = cluster.advertise_rpc.as_ref().map(HostPort::as_str);
        assert_eq!(peer_addr, Some("n9.example.net:8400"));
    }

    const BOOKS: [&str; 8] = [
        "server-tls-cert-file",
        "server-tls-key-file",
        "server-tls-ca-file",
        "peer-tls-cert-file",
        "peer-tls-key-file",
        "peer-tls-ca-file",
        "acl-model-file",
        "acl-policy-file",
    ];

    /// The book's names as lines of its file, each with a path of its own below `dir`.
    fn books_file(dir: &str) -> Option<(PathBuf, String)> {
        let lines = BOOKS.map(|name| format!("{name}: {dir}/{name}\n"));
        Some(("config.yaml".into(), lines.concat()))
    }

    #[test]
    fn flags_with_the_books_names_set_what_its_file_sets() {
        let line = BOOKS.map(|name| format!("--{name}=/etc/{name}"));
        let flags = flags(&line.each_ref().map(String::as_str)).unwrap();
        let of_flags = Sources { flags, ..Sources::default() }.layer().unwrap();
        let of_file = Sources { file: books_file("/etc"), ..Sources::default() }.layer().unwrap();
        assert_eq!(of_flags.settings, of_file.settings);
        assert!(of_flags.settings.tls.is_on());
    }

    #[test]
    fn a_flag_with_the_books_name_goes_before_the_environment_and_the_file() {
        let given = flags(&["--server-tls-cert-file=/flag", "--peer-tls-ca-file="]).unwrap();
        let environment = ["CERT_FILE", "KEY_FILE", "PEER_CA_FILE"]
            .map(|key| (format!("DURAMEN_TLS_{key}"), "/environment".to_owned()));
        let (flags, environment, file) = (given, environment.into(), books_file("/file"));
        let loaded = Sources { flags, environment, file }.layer().unwrap();
        let tls = &loaded.settings.tls;
        assert_eq!(tls.cert_file.as_deref(), Some(Path::new("/flag")));
        assert_eq!(tls.key_file.as_deref(), Some(Path::new("/environment")));
        assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/file/server-tls-ca-file")));
        assert_eq!(tls.peer_ca_file, None, "an empty name is none, as in the book");
        assert_eq!(loaded.origin("tls.cert_file").to_string(), "--server-tls-cert-file");
    }

    #[test]
    fn a_file_of_a_key_that_is_not_there_is_named() {
        let failure = flags(&["--gossip-key-file=/nowhere/key"]).unwrap_err();
        assert!(failure.to_string().contains("/nowhere/key"), "{failure}");
    }
}
