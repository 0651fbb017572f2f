//! The subcommands of the one binary. Thin: arguments in, a call into the rooms below, words out.
//!
//! Standard output carries what was asked for, standard error everything else. A reader that goes
//! away (`| head`) ends a command without a word. Failures are [`exit::Failure`]s.

mod allocator;
mod audit;
pub mod bench;
mod cluster;
mod config;
mod consume;
mod crash;
mod describe;
mod exit;
mod mirror;
mod observe;
mod produce;
mod progress;
mod secure;
mod segment;
mod serve;
mod shape;
mod stdout;
mod tls;
mod token;
mod traced;
mod version;

pub use exit::{Class, Failure};

use crate::model::escape;
use crate::ops::settings::Sources;
use crate::wire::client::{ClusterClient, ClusterOptions, WayTold};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where a node's gRPC front end is unless told otherwise.
const RPC_ADDR_DEFAULT: &str = "127.0.0.1:8400";

/// A durable commit log in one binary.
///
/// Without a subcommand it serves: a node on ./duramen-data, gRPC on 127.0.0.1:8400, HTTP on
/// 127.0.0.1:8080, every acknowledged record on stable storage.
#[derive(Debug, Parser)]
#[command(name = "duramen", version = version::SHORT)]
#[command(args_conflicts_with_subcommands = true, args_override_self = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed while running, 2 wrong usage, 64 bad input, \
    69 node unreachable, 73 data directory in use or not to be made, 74 input or output failed, \
    75 try again, 77 not permitted, 78 configuration, 130 and 143 ended by a signal.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

/// What of [`Cli`] a node is started with. A process keeps the pages that its start has touched, and
/// the tree of all commands touches many, all over the program: nodes do not build it.
#[derive(Debug, Parser)]
#[command(name = "duramen", args_override_self = true)]
enum NodeAlone {
    /// Run a node (what `duramen` alone does).
    Serve(Box<serve::ServeArgs>),
}

impl Cli {
    fn of(args: &[OsString]) -> Result<Self, clap::Error> {
        match args.get(1) {
            Some(first) if first == "serve" => {
                let NodeAlone::Serve(serve) = NodeAlone::try_parse_from(args)?;
                Ok(Self { command: None, serve: *serve })
            }
            None => Ok(Self { command: None, serve: serve::ServeArgs::default() }),
            Some(_) => Self::try_parse_from(args),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (what `duramen` alone does).
    Serve(Box<serve::ServeArgs>),
    /// Copy a topic of another cluster, and serve it for reading.
    Mirror(Box<mirror::MirrorArgs>),
    /// Append lines of a file or of standard input; a line is a record.
    Produce(produce::ProduceArgs),
    /// Print records.
    Consume(consume::ConsumeArgs),
    /// Show the state of a log on a running node.
    Describe(describe::DescribeArgs),
    /// Make, list, describe, alter and delete topics.
    Topic(cluster::topic::TopicArgs),
    /// Show the state of a cluster.
    Cluster(cluster::status::ClusterArgs),
    /// Say who may do what, and see what that comes to.
    Acl(cluster::acl::AclArgs),
    /// Make tokens, and the keys that they are checked with.
    Token(token::TokenCommands),
    /// Read and check what a node noted of denied requests and administrative acts.
    Audit(audit::AuditArgs),
    /// List the nodes of a cluster, take one out, or replace one that died.
    Node(cluster::node::NodeArgs),
    /// Print the servers of a cluster.
    Getservers(cluster::getservers::GetserversArgs),
    /// Show every part of a running node: its state, restarts, mailbox and messages.
    Ps(observe::ps::PsArgs),
    /// Watch the parts of a running node at work; Ctrl-C ends it.
    Top(observe::top::TopArgs),
    /// Print messages of a running node as they are handled.
    Tap(observe::tap::TapArgs),
    /// Tell why a node, a partition or an actor waits, and what to do about it.
    Explain(observe::explain::ExplainArgs),
    /// Restart a part of a running node, take it out of service or bring it back.
    Actor(observe::actor::ActorArgs),
    /// Show or change which lines a running node logs.
    Log(observe::levels::LogArgs),
    /// Look at reports of crashes, with a node or without.
    Crash(crash::CrashArgs),
    /// Look at a log's files without a node.
    Segment(segment::SegmentArgs),
    /// Make, show, check and take back certificates.
    Tls(tls::TlsArgs),
    /// Show or check settings.
    Config(config::ConfigArgs),
    /// Measure a node.
    Bench(bench::Args),
    /// Print a script that completes commands in a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Print the version, and what it was built from.
    Version(version::VersionArgs),
}

/// The node that a client command speaks to.
#[derive(Debug, Args)]
struct NodeAddress {
    /// Address of the node's gRPC front end.
    #[arg(
        long,
        visible_alias = "addr",
        value_name = "HOST:PORT",
        env = "DURAMEN_RPC_ADDR",
        default_value = RPC_ADDR_DEFAULT
    )]
    rpc_addr: String,
    #[command(flatten)]
    secure: secure::ClientArgs,
}

/// Where a node keeps what it stores; the node need not run.
#[derive(Debug, Args)]
struct NodeDirectory {
    /// The node's data directory [default: as `duramen serve`].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl NodeDirectory {
    fn path(&self) -> Result<PathBuf, Failure> {
        Ok(match &self.data_dir {
            Some(named) => named.clone(),
            None => Sources::gather(Vec::new(), None)?.layer()?.settings.data_dir,
        })
    }
}

/// The cluster that a client command speaks to.
#[derive(Debug, Args)]
struct ClusterAddress {
    /// Addresses of any of the cluster's nodes (gRPC); the others are found from there.
    #[arg(
        long,
        visible_alias = "rpc-addr",
        value_name = "HOST:PORT[,HOST:PORT...]",
        env = "DURAMEN_RPC_ADDR",
        default_value = RPC_ADDR_DEFAULT,
        value_delimiter = ','
    )]
    addr: Vec<String>,
    /// Tell on standard error when a node is left alone for a while since it cannot be reached, and
    /// when it is tried again.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    secure: secure::ClientArgs,
}

impl ClusterAddress {
    async fn connect(&self, traceparent: Option<String>) -> Result<ClusterClient, Failure> {
        // As the book's programs write an address of this machine.
        let local = |addr: &String| match addr.strip_prefix(':') {
            Some(port) => format!("127.0.0.1:{port}"),
            None => addr.clone(),
        };
        let addresses: Vec<String> = self.addr.iter().map(local).collect();
        let told = self.verbose.then(|| {
            WayTold::by(|address, from, to| {
                eprintln!("the circuit breaker of the way to {address} was {from} and is {to}");
            })
        });
        let client = self.secure.options()?;
        let options = ClusterOptions { told, client, ..ClusterOptions::default() };
        Ok(ClusterClient::connect(&addresses, options, traceparent).await?)
    }
}

/// Reads the arguments of the process, does what they ask for, and returns how it ended.
pub fn run() -> ExitCode {
    allocator::keep_little();
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = Cli::of(&args).unwrap_or_else(|error| {
        // It quotes the arguments, which may be somebody else's text.
        let told = error.render().to_string();
        match escape::lines(&told) {
            Cow::Owned(plain) if error.use_stderr() => {
                eprintln!("{plain}");
                std::process::exit(error.exit_code())
            }
            _ => error.exit(),
        }
    });
    let outcome = match cli.command {
        None => serve::run(cli.serve),
        Some(Command::Serve(args)) => serve::run(*args),
        Some(Command::Mirror(args)) => mirror::run(*args),
        Some(Command::Produce(args)) => produce::run(args),
        Some(Command::Consume(args)) => consume::run(args),
        Some(Command::Describe(args)) => describe::run(&args),
        Some(Command::Topic(args)) => cluster::topic::run(args),
        Some(Command::Cluster(args)) => cluster::status::run(args),
        Some(Command::Acl(args)) => cluster::acl::run(args),
        Some(Command::Token(args)) => token::run(args),
        Some(Command::Audit(args)) => audit::run(args),
        Some(Command::Node(args)) => cluster::node::run(args),
        Some(Command::Getservers(args)) => cluster::getservers::run(&args),
        Some(Command::Ps(args)) => observe::ps::run(&args),
        Some(Command::Top(args)) => observe::top::run(&args),
        Some(Command::Tap(args)) => observe::tap::run(&args),
        Some(Command::Explain(args)) => observe::explain::run(args),
        Some(Command::Actor(args)) => observe::actor::run(args),
        Some(Command::Log(args)) => observe::levels::run(args),
        Some(Command::Crash(args)) => crash::run(&args),
        Some(Command::Segment(args)) => segment::run(args),
        Some(Command::Tls(args)) => tls::run(args),
        Some(Command::Config(args)) => config::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Completions { shell }) => completions(shell),
        Some(Command::Version(args)) => version::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.class.code())
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "duramen", &mut script);
    stdout::write(&script)
}

/// Runs a client command: one thread is enough for one connection.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start the runtime", &error))?;
    let outcome = runtime.block_on(work);
    // A blocking read of standard input may still be under way; nobody waits for its end.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_node_alone_is_started_as_by_all_commands_together() {
        let line =
            |rest: &str| -> Vec<OsString> { rest.split_whitespace().map(OsString::from).collect() };
        for rest in ["--help", "-h", "--nonsense", "more", "--log", "--data-dir a --data-dirr b"] {
            let args = line(&format!("duramen serve {rest}"));
            let (alone, together) = (Cli::of(&args), Cli::try_parse_from(&args));
            let (alone, together) = (alone.unwrap_err(), together.unwrap_err());
            assert_eq!(alone.to_string(), together.to_string(), "{rest}");
        }
        let args = line("duramen serve --data-dir a --join b,c --data-dir d");
        let Some(Command::Serve(together)) = Cli::try_parse_from(&args).unwrap().command else {
            panic!("the node's command is another");
        };
        assert_eq!(format!("{:?}", Cli::of(&args).unwrap().serve), format!("{together:?}"));
        assert_eq!(together.data_dir.as_deref(), Some("d"));
        let bare = Cli::try_parse_from(["duramen"]).unwrap();
        assert_eq!(format!("{:?}", Cli::of(&line("duramen")).unwrap()), format!("{bare:?}"));
    }

    #[test]
    fn without_a_subcommand_the_flags_are_those_of_serve() {
        let cli = Cli::try_parse_from(["duramen", "--durability", "os"]).unwrap();
        assert!(cli.command.is_none());
        assert!(Cli::try_parse_from(["duramen", "--durability", "os", "version"]).is_err());
        assert!(Cli::try_parse_from(["duramen", "--nonsense"]).is_err());
    }
}
