//! `duramen version`: what this binary is and which formats it reads.

use super::{Failure, stdout};
use crate::ops::data_dir::FORMAT_VERSION;
use clap::Args;
use serde::Serialize;

/// The version and the commit.
pub const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILT_FROM_COMMIT"), ")");

/// The commit it was built from; `unknown` outside a repository.
pub const COMMIT: &str = env!("BUILT_FROM_COMMIT");

/// Arguments of `duramen version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// As a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
    target: &'static str,
    rustc: &'static str,
    disk_format: u32,
}

/// Prints the version.
pub fn run(args: &VersionArgs) -> Result<(), Failure> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT,
        target: env!("BUILT_FOR_TARGET"),
        rustc: env!("BUILT_BY_RUSTC"),
        disk_format: FORMAT_VERSION,
    };
    let text = if args.json {
        serde_json::to_string(&version).expect("plain values")
    } else {
        format!(
            "duramen {} (commit {}, {}, {}, disk format {})",
            version.version, version.commit, version.target, version.rustc, version.disk_format
        )
    };
    stdout::write(format!("{text}\n").as_bytes())
}
