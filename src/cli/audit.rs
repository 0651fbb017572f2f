//! `duramen audit`: what nodes noted of denied requests and administrative acts: one node's, read from
//! its data directory, whether it runs or not; or all nodes', read from the topic that they copy it to.

mod copies;

use super::shape::json_line;
use super::{Class, ClusterAddress, Failure, NodeDirectory, block_on, stdout};
use crate::access::{AuditEntry, Chain};
use crate::model::{Timestamp, escape};
use crate::ops::audit;
use clap::{Args, Subcommand};
use copies::{Copies, mark};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::PathBuf;

/// Why a log ends before what was copied of it.
const CUT_OFF: &str = "lines were taken out at the end, or the log was put back as it once was";

/// Arguments of `duramen audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Print the last lines.
    Tail {
        /// How many.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        lines: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Of all nodes, from the topic _audit.
        #[arg(long)]
        cluster: bool,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        address: ClusterAddress,
    },
    /// Check that no line was changed, put in, or taken out at the beginning or in between.
    ///
    /// Of lines taken out at the end those show that were copied to the topic _audit, as the node keeps
    /// how far it copied, until it starts again; from then on they show with --cluster. Behind what was
    /// copied nobody can tell. Who writes the directory can make it all anew: that shows with --cluster
    /// and --data-dir, as far as it was copied.
    Verify {
        /// Check what all nodes copied to the topic _audit; with --data-dir also that the node's own lines
        /// are those that it copied, and reach as far.
        #[arg(long)]
        cluster: bool,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        address: ClusterAddress,
    },
}

#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    of: NodeDirectory,
}

impl Place {
    fn directory(&self) -> Result<PathBuf, Failure> {
        let data_dir = self.of.path()?;
        let directory = data_dir.join(audit::DIRECTORY);
        if !directory.is_dir() {
            let error = format!("nothing was noted below {}", data_dir.display());
            return Err(Failure::new(Class::BadInput, error)
                .advice("name the directory of the node with --data-dir DIR"));
        }
        Ok(directory)
    }

    fn read(&self, each: impl FnMut(AuditEntry)) -> Result<Chain, Failure> {
        let directory = self.directory()?;
        audit::read(&directory, each).map_err(|(file, line, what)| {
            Failure::new(Class::Io, format!("{} line {line}: {what}", file.display()))
                .cause("lines up to there are as they were written")
        })
    }
}

/// Carries out one of them.
pub fn run(args: AuditArgs) -> Result<(), Failure> {
    match args.act {
        Act::Tail { lines, json, cluster, place, address } => {
            let mut last = VecDeque::new();
            let mut keep = |node: Option<String>, entry: AuditEntry| {
                last.push_back((node, entry));
                if last.len() > lines {
                    last.pop_front();
                }
            };
            let read = if cluster {
                let mut copies = Copies::default();
                block_on(copies.read(&address, |node, entry| keep(Some(node.into()), entry)))
            } else {
                place.read(|entry| keep(None, entry)).map(drop)
            };
            let shown = last.iter().map(|(node, entry)| match (json, node) {
                (true, None) => json_line(entry),
                (true, Some(node)) => json_line(&Copied { node, entry }),
                (false, None) => line(entry),
                (false, Some(node)) => format!("{node} {}", line(entry)),
            });
            stdout::write(shown.collect::<String>().as_bytes())?;
            read
        }
        Act::Verify { cluster: true, place, address } => {
            let mut copies = Copies::default();
            block_on(copies.read(&address, |_, _| {}))?;
            let mut same = String::new();
            // First: what became of a file once is told by its copies for as long as they are kept.
            if place.of.data_dir.is_some() {
                let mut own = Vec::new();
                let end =
                    place.read(|entry| own.push((entry.number - 1, mark(&entry.previous))))?;
                own.push((end.number, mark(&end.hash)));
                let (node, lines) = copies.compare(&own)?;
                same = format!("{lines} lines of this directory are those that {node} copied\n");
            }
            stdout::write((copies.report()? + same.as_str()).as_bytes())
        }
        Act::Verify { cluster: false, place, .. } => {
            // In this order: a node that runs writes first, and copies then.
            let copied = audit::copied(&place.directory()?);
            let (mut first, mut count) = (None, 0u64);
            let Chain { number: last, .. } = place.read(|entry| {
                first.get_or_insert(entry.number);
                count += 1;
            })?;
            if last < copied {
                let error = format!("the log ends with line {last}, and line {copied} was copied");
                return Err(Failure::new(Class::Io, error).cause(CUT_OFF).advice(
                    "compare with the copies: duramen audit verify --cluster --data-dir DIR",
                ));
            }
            let first = first.unwrap_or(0);
            stdout::write(
                format!("{count} lines, numbers {first} to {last}: each follows the one before\n")
                    .as_bytes(),
            )
        }
    }
}

/// An entry, and who noted it.
#[derive(Serialize)]
struct Copied<'a> {
    node: &'a str,
    #[serde(flatten)]
    entry: &'a AuditEntry,
}

fn line(entry: &AuditEntry) -> String {
    let AuditEntry { number, at_ms, kind, subject, peer, call, what, outcome, times, .. } = entry;
    let at = Timestamp(*at_ms).rfc3339();
    let who = subject.as_deref().unwrap_or("nobody");
    let often = if *times > 1 { format!(" ({times} times)") } else { String::new() };
    let text = format!("{number} {at} {kind}{often} {who} from {peer} {call}: {what}: {outcome}");
    format!("{}\n", escape::one_line(&text))
}
