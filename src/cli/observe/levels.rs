//! `duramen log`: which lines a running node writes.

use super::{Common, Failure, asked, block_on, connect};
use crate::ops::logger::LevelSpec;
use crate::wire::pb::duramen::v1::LogLevels;
use clap::{Args, Subcommand};

/// Arguments of `duramen log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show which lines are written.
    Show {
        #[command(flatten)]
        common: Common,
    },
    /// Change it, until the node ends or reloads its settings (SIGHUP).
    Set {
        /// A level, then levels of actors and messages, as in
        /// info,partitions/**/log:trace,*/Append:debug.
        spec: LevelSpec,
        #[command(flatten)]
        common: Common,
    },
}

/// Asks or tells the node, and prints what holds now.
pub fn run(args: LogArgs) -> Result<(), Failure> {
    let (spec, Common { shape, node }) = match args.verb {
        Verb::Show { common } => (None, common),
        Verb::Set { spec, common } => (Some(spec.to_string()), common),
    };
    let levels = block_on(async {
        let mut observer = connect(&node).await?;
        match spec {
            None => asked(&node, observer.log_levels()).await,
            Some(spec) => asked(&node, observer.set_log_levels(&spec)).await,
        }
    })?;
    shape.print(&levels, as_text)
}

fn as_text(levels: &LogLevels) -> String {
    let LogLevels { spec, before, dropped } = levels;
    let was = if before == spec { String::new() } else { format!(" (was {before})") };
    let lost = match dropped {
        0 => String::new(),
        dropped => format!("\n{dropped} lines were dropped: standard error is read too slowly"),
    };
    format!("{spec}{was}{lost}\n")
}
