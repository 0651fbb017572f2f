//! `duramen mirror`: a node that copies a topic of another cluster and serves it for reading.

use super::Failure;
use super::secure::TokenArgs;
use super::serve::{self, ServeArgs};
use crate::model::TopicName;
use crate::node::MirrorPlan;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `duramen mirror`.
#[derive(Debug, Args)]
#[command(
    after_help = "All partitions are copied, with the offsets that they have at the source, and \
    may be read here as there; nothing can be appended. A mirror goes on where it stood. It stops \
    copying, and tells why, where the source has dropped what was not copied yet, or where the \
    topic was made anew."
)]
pub struct MirrorArgs {
    /// Addresses of any of the source's nodes (gRPC); the others are found from there.
    #[arg(long, value_name = "HOST:PORT[,HOST:PORT...]", value_delimiter = ',', required = true)]
    from: Vec<String>,
    /// The topic.
    #[arg(long, value_name = "TOPIC", default_value = "log", value_parser = topic)]
    topic: TopicName,
    /// Where the copy is kept, apart from any node's own [default: ./duramen-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where gRPC is served; port 0 takes a free one [default: 127.0.0.1:8400].
    #[arg(long, value_name = "HOST:PORT")]
    rpc_addr: Option<String>,
    /// Where HTTP is served; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "HOST:PORT")]
    http_addr: Option<String>,
    /// Configuration file, TOML or YAML [default: what DURAMEN_CONFIG names].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which lines are logged, as in info,node/mirror/*:debug [default: info].
    #[arg(long, value_name = "SPEC")]
    log: Option<String>,
    /// What a log line looks like: auto, text, json or logfmt [default: auto].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Encrypt everything, also towards the source, and ask everybody for a certificate: where
    /// ca.pem, node.pem and node-key.pem are. The source wants a client's certificate: give one by
    /// the setting tls.peer_cert_file, or make the node's with `duramen tls node NAME --client`.
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<String>,
    #[command(flatten)]
    token: TokenArgs,
    /// Allow addresses that other machines can reach, without encryption or authentication.
    #[arg(long)]
    insecure_listen: bool,
}

fn topic(text: &str) -> Result<TopicName, String> {
    TopicName::new(text).map_err(|error| error.to_string())
}

/// Mirrors until a signal. Blocks.
pub fn run(args: MirrorArgs) -> Result<(), Failure> {
    let MirrorArgs { from, topic, data_dir, rpc_addr, http_addr, config, log, log_format, .. } =
        args;
    let served = ServeArgs {
        data_dir,
        rpc_addr,
        http_addr,
        config,
        log,
        log_format,
        tls_dir: args.tls_dir,
        insecure_listen: args.insecure_listen,
        ..ServeArgs::default()
    };
    let token = args.token.bearer()?;
    serve::run_as(served, Some(MirrorPlan { from, topic, token }))
}
