//! `duramen serve`: settings, logger, a node, and the signals until it is told to stop.

mod greeting;
mod reload;

use super::exit::Class;
use super::{Failure, version};
use crate::actors::partition::PartitionApi;
use crate::model::SystemClock;
use crate::node::{Node, Surroundings};
use crate::ops::data_dir::inspect;
use crate::ops::logger::{self, LoggerHandle};
use crate::ops::notify::Notifier;
use crate::ops::settings::{Flag, Loaded, Settings, Sources, show_duration};
use crate::ops::signals::{Request, Signals, StopSignal};
use clap::Args;
use reload::Reloader;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slog::{Logger, crit, error, info, warn};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How often the service manager hears how far recovery has come.
const RECOVERY_NOTICE_INTERVAL: Duration = Duration::from_secs(3);

/// Arguments of `duramen serve`. Each is also a setting: see `duramen config sample`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where the node keeps everything it stores [default: ./duramen-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where gRPC is served; port 0 takes a free one [default: 127.0.0.1:8400].
    #[arg(long, value_name = "HOST:PORT")]
    rpc_addr: Option<String>,
    /// Where HTTP is served; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "HOST:PORT")]
    http_addr: Option<String>,
    /// Configuration file [default: what DURAMEN_CONFIG names].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How safe a record is when it is acknowledged: fsync, interval or os [default: fsync].
    #[arg(long, value_name = "LEVEL")]
    durability: Option<String>,
    /// Which lines are logged, as in info,partitions/*/log:trace,*/Append:debug [default: info].
    #[arg(long, value_name = "SPEC")]
    log: Option<String>,
    /// What a log line looks like: auto, text, json or logfmt [default: auto].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Allow addresses that other machines can reach, without encryption or authentication.
    #[arg(long)]
    insecure_listen: bool,
    /// Write metrics and traces of every request to files in the system's temporary directory:
    /// metrics-*.log and traces-*.log.
    #[arg(long)]
    debug: bool,
    /// Check settings and data directory, and end; changes nothing, opens no port.
    #[arg(long)]
    dry_run: bool,
}

impl ServeArgs {
    fn flags(&self) -> Vec<Flag> {
        let insecure = self.insecure_listen.then(|| "true".to_owned());
        let debug_dir = self.debug.then(|| std::env::temp_dir().display().to_string());
        let debug_ratio = self.debug.then(|| "1".to_owned());
        [
            ("--data-dir", "data_dir", &self.data_dir),
            ("--rpc-addr", "rpc.addr", &self.rpc_addr),
            ("--http-addr", "http.addr", &self.http_addr),
            ("--durability", "log.durability", &self.durability),
            ("--log", "logger.spec", &self.log),
            ("--log-format", "logger.format", &self.log_format),
            ("--debug", "telemetry.debug_dir", &debug_dir),
            ("--debug", "telemetry.traces_ratio", &debug_ratio),
            ("--insecure-listen", "insecure_listen", &insecure),
        ]
        .into_iter()
        .filter_map(|(name, key, value)| Some(Flag { name, key, value: value.clone()? }))
        .collect()
    }
}

/// Serves until a signal or a failure that the node cannot contain. Blocks.
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let flags = args.flags();
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
    let outcome = actix_rt::System::new().block_on(serve(reloader, &logger, &handle));
    if let Err(failure) = &outcome {
        error!(logger, "duramen ends"; "error" => &failure.error, "cause" => &failure.cause);
    }
    // Lines on their way come out before the failure's own.
    drop(handle);
    outcome
}

fn dry_run(loaded: &Loaded) -> Result<(), Failure> {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let directory = &loaded.settings.data_dir;
    inspect(directory)?;
    eprintln!("the configuration is valid, and a node can start on {}", directory.display());
    Ok(())
}

fn first_lines(logger: &Logger, loaded: &Loaded) {
    let Settings { data_dir, rpc, http, log, .. } = &loaded.settings;
    let config = loaded.file.as_ref().map_or("none".into(), |file| file.display().to_string());
    info!(logger, "duramen starts"; "version" => env!("CARGO_PKG_VERSION"),
        "commit" => version::COMMIT, "config" => config, "data_dir" => %data_dir.display(),
        "rpc" => %rpc.addr, "http" => %http.addr, "durability" => %log.durability);
    for warning in &loaded.warnings {
        warn!(logger, "{warning}");
    }
    for (key, address) in [("rpc.addr", rpc.addr), ("http.addr", http.addr)] {
        if !address.ip().is_loopback() {
            warn!(logger, "other machines can reach an address that nothing protects";
                "key" => key, "address" => %address);
        }
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
async fn serve(reloader: Reloader, logger: &Logger, handle: &LoggerHandle) -> Result<(), Failure> {
    // Before anything else: a signal that comes while the node starts must not kill it half-way.
    let mut signals =
        Signals::listen().map_err(|error| Failure::io("cannot listen for signals", &error))?;
    let settings = reloader.settings().clone();
    let grace = settings.shutdown.grace;
    let notifier = Notifier::new(logger.clone());
    let log_control = Some(handle.control());
    let surroundings = Surroundings { log_control, ..Surroundings::of(logger.clone()) };
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
            }
        }
    }

    fn reload(&mut self, is_announced: bool) {
        self.notifier.reloading();
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
                let status = node.log().describe();
                notifier.extend_start(RECOVERY_NOTICE_INTERVAL * 10);
                notifier.status(&format!("{} {}", status.state.name(), status.reason));
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
