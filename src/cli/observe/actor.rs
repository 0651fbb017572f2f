//! `duramen actor`: acts on a part of a running node, and tells what happens next.

use super::table::align;
use super::{Common, Failure, asked, block_on, connect};
use crate::model::escape::one_line;
use crate::wire::pb::duramen::v1::{Action, CommandResponse};
use clap::{Args, Subcommand};

/// Arguments of `duramen actor`.
#[derive(Debug, Args)]
pub struct ActorArgs {
    #[command(subcommand)]
    action: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Stop it and start it again, with those that depend on it.
    Restart(On),
    /// Take its fault domain out of service until it is released.
    Quarantine(On),
    /// Bring its fault domain back into service.
    Release(On),
}

#[derive(Debug, Args)]
struct On {
    /// A place in the tree, by its path or an unambiguous tail of it; `duramen ps` lists them.
    path: String,
    /// Why: for the node's log, and for those who find it quarantined.
    #[arg(long, value_name = "TEXT", default_value = "an operator asked for it")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// Tells the node and prints what follows.
pub fn run(args: ActorArgs) -> Result<(), Failure> {
    let (action, on) = match args.action {
        Act::Restart(on) => (Action::Restart, on),
        Act::Quarantine(on) => (Action::Quarantine, on),
        Act::Release(on) => (Action::Release, on),
    };
    let On { path, reason, common: Common { shape, node } } = on;
    let acted = block_on(async {
        let mut observer = connect(&node).await?;
        asked(&node, observer.act(action, &path, &reason)).await
    })?;
    shape.print(&acted, as_text)
}

fn as_text(acted: &CommandResponse) -> String {
    let CommandResponse { path, affected, next } = acted;
    let rows: Vec<_> =
        affected.iter().map(|place| vec![place.path.clone(), place.state.clone()]).collect();
    format!("{path}: {}\n\n{}", one_line(next), align(&rows))
}
