//! `duramen audit`: what a node noted of denied requests and administrative acts, read from its data
//! directory, whether it runs or not.

use super::shape::json_line;
use super::{Class, Failure, stdout};
use crate::access::AuditEntry;
use crate::model::escape;
use crate::ops::audit;
use crate::ops::settings::{Flag, Sources};
use clap::{Args, Subcommand};
use std::collections::VecDeque;
use std::path::PathBuf;

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
        #[command(flatten)]
        place: Place,
    },
    /// Check that no line was changed, taken out or put in.
    Verify {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The node's data directory [default: as `duramen serve`].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn directory(&self) -> Result<PathBuf, Failure> {
        let data_dir = match &self.data_dir {
            Some(data_dir) => data_dir.clone(),
            None => Sources::gather(Vec::<Flag>::new(), None)?.layer()?.settings.data_dir,
        };
        let directory = data_dir.join(audit::DIRECTORY);
        if !directory.is_dir() {
            let error = format!("nothing was noted below {}", data_dir.display());
            return Err(Failure::new(Class::BadInput, error)
                .advice("name the directory of the node with --data-dir DIR"));
        }
        Ok(directory)
    }

    fn read(&self, each: impl FnMut(AuditEntry)) -> Result<u64, Failure> {
        let directory = self.directory()?;
        let read = audit::read(&directory, each);
        read.map(|chain| chain.map_or(0, |chain| chain.number)).map_err(|(file, line, what)| {
            Failure::new(Class::Io, format!("{} line {line}: {what}", file.display()))
                .cause("lines up to there are as they were written")
        })
    }
}

/// Carries out one of them.
pub fn run(args: &AuditArgs) -> Result<(), Failure> {
    match &args.act {
        Act::Tail { lines, json, place } => {
            let mut last = VecDeque::new();
            let read = place.read(|entry| {
                last.push_back(entry);
                if last.len() > *lines {
                    last.pop_front();
                }
            });
            let shown = last.iter().map(|entry| if *json { json_line(entry) } else { line(entry) });
            stdout::write(shown.collect::<String>().as_bytes())?;
            read.map(drop)
        }
        Act::Verify { place } => {
            let (mut first, mut count) = (None, 0u64);
            let last = place.read(|entry| {
                first.get_or_insert(entry.number);
                count += 1;
            })?;
            let first = first.unwrap_or(0);
            stdout::write(
                format!("{count} lines, numbers {first} to {last}: each follows the one before\n")
                    .as_bytes(),
            )
        }
    }
}

fn line(entry: &AuditEntry) -> String {
    let AuditEntry { number, at_ms, kind, subject, peer, call, what, outcome, times, .. } = entry;
    let at = jiff::Timestamp::from_millisecond(*at_ms)
        .map_or_else(|_| at_ms.to_string(), |at| at.to_string());
    let who = subject.as_deref().unwrap_or("nobody");
    let often = if *times > 1 { format!(" ({times} times)") } else { String::new() };
    let text = format!("{number} {at} {kind}{often} {who} from {peer} {call}: {what}: {outcome}");
    format!("{}\n", escape::one_line(&text))
}
