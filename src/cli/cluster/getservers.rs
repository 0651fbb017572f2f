//! `duramen getservers`: the servers of a cluster, as the book's program of that name prints them.

use super::{ClusterAddress, Failure, block_on, stdout};
use crate::model::escape::one_line;
use crate::wire::pb::log::v1::Server;
use clap::Args;

/// Arguments of `duramen getservers`.
#[derive(Debug, Args)]
pub struct GetserversArgs {
    #[command(flatten)]
    cluster: ClusterAddress,
}

/// Asks and prints.
pub fn run(args: &GetserversArgs) -> Result<(), Failure> {
    let servers =
        block_on(async { Ok(args.cluster.connect(None).await?.any().await?.servers().await?) })?;
    stdout::write_text(&as_text(&servers))
}

/// A line each, as Go prints the message.
pub(super) fn as_text(servers: &[Server]) -> String {
    let line = |server: &Server| {
        let leads = if server.is_leader { " is_leader:true" } else { "" };
        let (id, addr) = (one_line(&server.id), one_line(&server.rpc_addr));
        format!("\t- id:\"{id}\" rpc_addr:\"{addr}\"{leads}\n")
    };
    format!("servers:\n{}", servers.iter().map(line).collect::<String>())
}
