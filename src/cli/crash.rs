//! `duramen crash`: the reports of crashes in a data directory, whether its node runs or not.

mod show;

use super::shape::Shape;
use super::stdout;
use super::{Class, Failure, NodeDirectory};
use crate::model::escape;
use crate::ops::crash::{self, CrashFileError, LATEST, Summary};
use crate::ops::settings::ByteSize;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Of a reason in a list.
const REASON_CHARS_MAX: usize = 72;

/// Arguments of `duramen crash`.
#[derive(Debug, Args)]
pub struct CrashArgs {
    #[command(subcommand)]
    command: CrashCommand,
}

#[derive(Debug, Subcommand)]
enum CrashCommand {
    /// List the reports of crashes, the oldest first.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Show a report: why, the last messages, and the way to a panic.
    Show {
        /// A name as `list` shows it, or latest.
        #[arg(default_value = LATEST)]
        name: String,
        /// Messages shown of each actor.
        #[arg(long, value_name = "N", default_value_t = 20)]
        messages: usize,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    of: NodeDirectory,
    #[command(flatten)]
    shape: Shape,
}

impl Place {
    /// Where the reports are.
    fn directory(&self) -> Result<PathBuf, Failure> {
        let data_dir = self.of.path()?;
        if !data_dir.is_dir() {
            let error = format!("there is no data directory {}", data_dir.display());
            return Err(Failure::new(Class::BadInput, error)
                .advice("name the directory of the node with --data-dir DIR"));
        }
        Ok(crash::directory(&data_dir))
    }
}

impl From<CrashFileError> for Failure {
    fn from(error: CrashFileError) -> Self {
        match &error {
            CrashFileError::Io { source, .. } => Self::io(error.to_string(), source),
            CrashFileError::NotAName { .. }
            | CrashFileError::Missing { .. }
            | CrashFileError::NoReports { .. }
            | CrashFileError::TooLarge { .. } => Self::new(Class::BadInput, error.to_string()),
        }
    }
}

/// Does what the arguments ask for. Blocks.
pub fn run(args: &CrashArgs) -> Result<(), Failure> {
    let text = match &args.command {
        CrashCommand::List { place } => {
            let directory = place.directory()?;
            let listed = crash::list(&directory)?;
            if place.shape.is_json() { list_json(&listed) } else { list_table(&listed, &directory) }
        }
        CrashCommand::Show { name, messages, place } => {
            let text = crash::read(&place.directory()?, name)?;
            if place.shape.is_json() {
                text
            } else {
                show::text(&text, *messages).map_err(|error| {
                    Failure::new(Class::Io, "the file is not a whole report")
                        .cause(error.to_string())
                        .advice("the same with --json shows it as it is")
                })?
            }
        }
    };
    stdout::write_text(&text)
}

fn list_json(listed: &[Summary]) -> String {
    let report = |summary: &Summary| {
        json!({
            "name": summary.name,
            "bytes": summary.bytes,
            "at": summary.at,
            "path": summary.path,
            "event": summary.event,
            "generation": summary.generation,
            "kind": summary.kind,
            "reason": summary.reason,
            "suppressed": summary.suppressed,
        })
    };
    let reports: Vec<_> = listed.iter().map(report).collect();
    format!("{}\n", json!({ "reports": reports }))
}

fn list_table(listed: &[Summary], directory: &Path) -> String {
    if listed.is_empty() {
        return format!("no crash reports in {}\n", directory.display());
    }
    let mut rows = vec![["NAME", "SIZE", "LIFE", "KIND", "REASON"].map(String::from)];
    for summary in listed {
        let mut reason = on_one_line(&summary.reason);
        if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
            reason.truncate(end);
            reason.push('…');
        }
        rows.push([
            summary.name.trim_end_matches(".json").to_owned(),
            ByteSize(summary.bytes).approximate(),
            summary.generation.to_string(),
            summary.kind.clone(),
            reason,
        ]);
    }
    table(&rows, "") + "\n`duramen crash show NAME` tells more; without a name, of the last.\n"
}

/// Rows in columns, each line set in by `indent`.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], indent: &str) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text from a report, which moves no cursor.
fn on_one_line(text: &str) -> String {
    escape::one_line(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<Summary> {
        vec![
            Summary {
                name: "20261121T100000.001Z-node-http.json".into(),
                bytes: 3 << 20,
                kind: "panic".into(),
                reason: format!("two\nlines{}", "x".repeat(100)),
                ..Summary::default()
            },
            Summary { name: "20261121T100000.002Z-x.json".into(), ..Summary::default() },
        ]
    }

    #[test]
    fn the_list_is_aligned_and_each_report_is_a_line() {
        let text = list_table(&listed(), Path::new("d/crash"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[0].find("KIND"), lines[1].find("panic"), "{text}");
        assert!(lines[1].contains("3.0 MiB") && lines[1].contains("two\\nlinesxxx"), "{text}");
        assert!(lines[1].ends_with('…'), "{text}");
        assert_eq!(list_table(&[], Path::new("d/crash")), "no crash reports in d/crash\n");
    }

    #[test]
    fn the_list_as_json_has_whole_reasons() {
        let object: serde_json::Value = serde_json::from_str(&list_json(&listed())).unwrap();
        assert_eq!(object["reports"][0]["reason"].as_str().unwrap().len(), 109);
        assert_eq!(object["reports"][1]["name"], "20261121T100000.002Z-x.json");
    }
}
