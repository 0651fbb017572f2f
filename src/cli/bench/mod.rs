//! `duramen bench`: what a node reaches here and now, beside the floors of this very machine.
//!
//! A client on one thread loads a node in another process; with `--baseline` the same load goes to
//! a bare tonic server without a log, and the same bytes go to the disk without a server, row by
//! row in the same run; with `--cluster 3` it goes to three more nodes that replicate, with `--guarded`
//! to nodes behind certificates, tokens and a policy. On a machine that is shared only those ratios mean anything.

mod case;
mod cluster;
mod compare;
mod connects;
mod disk_floor;
mod echo;
mod guarded;
mod load;
mod process;
mod recovery;
mod report;
mod startup;

use super::Failure;
use super::secure::ClientArgs;
use crate::wire::client::ClientOptions;
use case::{Case, Mode};
use cluster::Cluster;
use guarded::Guarded;
use process::{Reach, Target};
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `duramen bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    special: Option<Special>,
    #[command(flatten)]
    loads: Loads,
}

#[derive(Debug, clap::Subcommand)]
enum Special {
    /// Time from an empty directory to the first durable acknowledgement; idle memory and disk
    Startup(startup::StartupArgs),
    /// Time to the first read after a kill -9 of a node with much data
    Recovery(recovery::RecoveryArgs),
    /// A bare gRPC server with the same messages and no log: the floor of --baseline
    #[command(hide = true)]
    EchoServer,
}

#[derive(Debug, clap::Args)]
struct Loads {
    /// What to run; everything when nothing is named
    #[arg(value_enum)]
    modes: Vec<Mode>,
    /// Load the node at this address instead of starting one
    #[arg(long, value_name = "HOST:PORT")]
    rpc_addr: Option<String>,
    /// The process to measure when --rpc-addr is given
    #[arg(long, requires = "rpc_addr")]
    pid: Option<u32>,
    /// How the node of --rpc-addr is reached
    #[command(flatten)]
    client: ClientArgs,
    /// Where to put the temporary data directory: its file system is what is measured
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Durability of the node that is started
    #[arg(long, default_value = "fsync")]
    durability: String,
    /// Measured seconds of a row
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of a row before measuring begins
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    warmup: f64,
    /// Connections of the p64 rows
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// Only this record size in bytes; 100 and 1024 when not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    size: Option<u32>,
    /// Add rows with one call per record beside those over streams
    #[arg(long)]
    unary: bool,
    /// MiB to read in a catch-up row
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    catch_up_mib: u32,
    /// Run the floors beside every row and print our ratio to each
    #[arg(long)]
    baseline: bool,
    /// Give every row to a cluster of so many nodes, too, and print its ratio to the single node
    #[arg(long, value_name = "NODES", conflicts_with = "rpc_addr")]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=7))]
    cluster: Option<u32>,
    /// Give every row to guarded nodes, too, and print their ratios to the plain one: with a policy of
    /// 1,000 lines in force and a token, with certificates, and with both. Everything is made afresh
    #[arg(long, conflicts_with_all = ["rpc_addr", "cluster"])]
    guarded: bool,
    /// Runs of every row, interleaved; the median counts
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be between 0.01 and 3600".into())
    }
}

/// What can go wrong in a benchmark.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file or process could not be used.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process that was to be measured did not come up.
    #[error("the {what} did not become ready: {why}")]
    NotReady {
        /// Which process.
        what: &'static str,
        /// What it said.
        why: String,
    },
    /// The node cannot be reached.
    #[error("cannot reach {addr}")]
    Connect {
        /// Its address.
        addr: String,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The node refused a call.
    #[error("the node refused: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// The node broke a promise: worth more than any figure.
    #[error("the node broke a promise: {what}")]
    Broken {
        /// Which.
        what: String,
    },
}

impl BenchError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}

impl From<tonic::Status> for BenchError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused { message: format!("{:?}: {}", status.code(), status.message()) }
    }
}

/// Runs the benchmark and prints its figures. Blocks; must not be called inside a runtime.
///
/// # Errors
/// [`BenchError`]; what was measured before it is lost.
pub fn run(args: Args) -> Result<(), Failure> {
    let reached = args.loads.client.options()?;
    if args.loads.rpc_addr.is_none() && reached != ClientOptions::default() {
        eprintln!("certificates and tokens are for --rpc-addr; what is started here is plain");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("cannot start the client's runtime"))?;
    runtime.block_on(async {
        match args.special {
            Some(Special::EchoServer) => echo::serve().await,
            Some(Special::Startup(args)) => startup::run(args).await,
            Some(Special::Recovery(args)) => recovery::run(args).await,
            None => run_loads(args.loads, reached).await,
        }
    })?;
    Ok(())
}

async fn run_loads(loads: Loads, reached: ClientOptions) -> Result<(), BenchError> {
    let cases = Case::of(&loads.modes, loads.size, loads.unary, loads.connections);
    let target = match &loads.rpc_addr {
        Some(addr) => {
            let ClientOptions { tls, token, .. } = reached;
            Target::attached(Reach { addr: addr.clone(), tls, token }, loads.pid)
        }
        None => Target::start(&loads.dir, &loads.durability).await?,
    };
    let echo = match loads.baseline {
        true => Some(Target::start_echo().await?),
        false => None,
    };
    let cluster = match loads.cluster {
        Some(count) => Some(Cluster::start(&loads.dir, count, &loads.durability).await?),
        None => None,
    };
    let guarded = match loads.guarded {
        true => Some(Guarded::start(&loads.dir, &loads.durability).await?),
        false => None,
    };
    let plan = compare::Plan {
        window: load::Window {
            warmup: Duration::from_secs_f64(loads.warmup),
            measured: Duration::from_secs_f64(loads.seconds),
        },
        catch_up_bytes: u64::from(loads.catch_up_mib) << 20,
        floor_dir: loads.dir.clone(),
    };
    let mut rows: Vec<report::Row> = cases.iter().cloned().map(report::Row::new).collect();
    for run in 1..=loads.runs {
        for row in &mut rows {
            if !loads.json {
                eprintln!("run {run}/{}: {}", loads.runs, row.case.name);
            }
            row.runs.push(match &guarded {
                None => compare::run(&row.case, &plan, &target, echo.as_ref()).await?,
                Some(guarded) => {
                    let turn = run as usize;
                    let plain = (&target, echo.as_ref());
                    compare::run_guarded(&row.case, &plan, plain, guarded, turn).await?
                }
            });
            if let (Some(cluster), Some(run)) = (&cluster, row.runs.last_mut()) {
                let nodes = cluster.leader_first().await?;
                run.cluster = Some(compare::measure(&row.case, &plan, &nodes).await?);
            }
        }
    }
    if loads.json {
        report::print_json(&rows)
    } else {
        report::print_table(&rows)
    }
    Ok(())
}
