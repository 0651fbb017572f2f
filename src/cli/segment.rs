//! `duramen segment`: what a log's files hold and whether they are whole, without a node. Read-only.

use super::consume::format::Format;
use super::stdout::{self, settle};
use super::{Class, Failure};
use crate::log::LogError;
use crate::log::batch::{BatchLimits, records};
use crate::log::disk::RealDisk;
use crate::log::frame::FrameKind;
use crate::log::inspect::{self, DumpedFrame, StoreReport, Tail};
use crate::model::{Offset, Record};
use clap::{Args, Subcommand};
use serde_json::json;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a data directory keeps its one log.
const LOG_BELOW_DATA_DIR: &str = "partitions/log/0";

/// Arguments of `duramen segment`.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    #[command(subcommand)]
    command: SegmentCommand,
}

#[derive(Debug, Subcommand)]
enum SegmentCommand {
    /// Print what the frames of a log hold, up to the first bad place.
    Dump {
        /// A store file, a log's directory, or a data directory.
        path: PathBuf,
        /// One JSON object a frame.
        #[arg(long)]
        json: bool,
        /// The records too; prints what users stored.
        #[arg(long)]
        records: bool,
    },
    /// Check every checksum of a log, and that its files fit together. While a node writes, the end
    /// may look torn.
    Verify {
        /// A store file, a log's directory, or a data directory.
        path: PathBuf,
        /// One JSON object a store file.
        #[arg(long)]
        json: bool,
    },
}

/// Does what the arguments ask for. Blocks.
pub fn run(args: SegmentArgs) -> Result<(), Failure> {
    match args.command {
        SegmentCommand::Dump { path, json, records } => dump(&resolve(path), json, records),
        SegmentCommand::Verify { path, json } => verify(&resolve(path), json),
    }
}

/// The log's directory where a data directory was named.
fn resolve(path: PathBuf) -> PathBuf {
    let below = path.join(LOG_BELOW_DATA_DIR);
    if below.is_dir() { below } else { path }
}

fn unreadable(error: &LogError) -> Failure {
    let class = match error {
        LogError::FileMissing { .. } => Class::BadInput,
        _ => Class::Io,
    };
    let failure = Failure::new(class, error.to_string());
    let failure = Failure { cause: error.source().map(ToString::to_string), ..failure };
    failure.advice("name a .store file, a directory with such files, or a node's data directory")
}

fn dump(path: &Path, as_json: bool, with_records: bool) -> Result<(), Failure> {
    let frames = inspect::dump(Arc::new(RealDisk), path).map_err(|e| unreadable(&e))?;
    let mut output = stdout::buffered()?;
    let for_terminal = std::io::stdout().is_terminal();
    let mut text = Vec::new();
    for frame in frames {
        let frame = frame.map_err(|error| unreadable(&error))?;
        text.clear();
        if as_json {
            push_json(&mut text, &frame, with_records)?;
        } else {
            push_text(&mut text, &frame, with_records, for_terminal)?;
        }
        if !settle(output.write_all(&text))? {
            return Ok(());
        }
    }
    settle(output.flush()).map(|_| ())
}

fn push_text(
    text: &mut Vec<u8>,
    frame: &DumpedFrame,
    with_records: bool,
    for_terminal: bool,
) -> Result<(), Failure> {
    let header = &frame.header;
    let kind = kind_name(header.kind);
    writeln!(
        text,
        "{} @{} {kind} index={} term={} base={} records={} bytes={} durable={}",
        file_name(&frame.path),
        frame.position_bytes,
        header.index,
        header.term,
        header.base,
        header.records,
        header.frame_bytes,
        header.durable,
    )
    .expect("a vector takes any text");
    each_record(frame, with_records, |offset, record| {
        let key_bytes = record.key.as_ref().map_or(0, |key| key.len());
        let value_bytes = record.value.as_ref().map_or(0, |value| value.len());
        write!(
            text,
            "  offset={offset} timestamp={} key_bytes={key_bytes} value_bytes={value_bytes} ",
            record.timestamp
        )
        .expect("a vector takes any text");
        Format::Text.write(text, offset, record, for_terminal);
    })
}

fn push_json(text: &mut Vec<u8>, frame: &DumpedFrame, with_records: bool) -> Result<(), Failure> {
    let header = &frame.header;
    let mut object = json!({
        "file": frame.path.display().to_string(),
        "position_bytes": frame.position_bytes,
        "kind": kind_name(header.kind),
        "index": header.index.0,
        "term": header.term.0,
        "base_offset": header.base.0,
        "record_count": header.records,
        "frame_bytes": header.frame_bytes,
        "durable": header.durable.0,
    });
    if with_records {
        let mut list = Vec::new();
        each_record(frame, true, |offset, record| {
            let mut line = Vec::new();
            Format::Json.write(&mut line, offset, record, false);
            list.push(
                serde_json::from_slice::<serde_json::Value>(&line)
                    .expect("what was just written is JSON"),
            );
        })?;
        object["records"] = list.into();
    }
    writeln!(text, "{object}").expect("a vector takes any text");
    Ok(())
}

fn kind_name(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Data => "data",
        FrameKind::Internal => "internal",
    }
}

/// Calls `take` with the records of a frame, where they are wanted and it has any.
fn each_record(
    frame: &DumpedFrame,
    wanted: bool,
    mut take: impl FnMut(Offset, &Record),
) -> Result<(), Failure> {
    if !wanted || frame.header.records == 0 {
        return Ok(());
    }
    // Sizes were checked when it was stored, by limits that this command does not know.
    let limits = BatchLimits {
        batch_bytes_max: 1 << 30,
        record_bytes_max: 1 << 30,
        decompressed_bytes_max: 4 << 30,
    };
    for record in records(frame.payload.clone(), limits) {
        let (offset, record) = record.map_err(|error| {
            let place = format!("the frame at {} cannot be decoded", frame.position_bytes);
            Failure::new(Class::Io, place).cause(error.to_string())
        })?;
        take(offset, &record);
    }
    Ok(())
}

fn verify(path: &Path, as_json: bool) -> Result<(), Failure> {
    let reports = inspect::verify(&RealDisk, path).map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    for report in &reports {
        let line = if as_json { report_json(report) } else { report_text(report) };
        text.push_str(&line);
        text.push('\n');
    }
    stdout::write_text(&text)?;
    verdict(&reports)
}

/// The name of a tail and what is known of it.
fn tail(report: &StoreReport) -> (&'static str, String) {
    match &report.tail {
        Tail::End => ("whole", String::new()),
        Tail::Torn { reason } => ("torn", reason.clone()),
        Tail::Corrupt { reason } => ("corrupt", reason.clone()),
        Tail::UnknownVersion { found } => ("unknown", format!("frame version {found}")),
    }
}

fn report_text(report: &StoreReport) -> String {
    let (verdict, reason) = tail(report);
    let index = if report.index_is_right { "" } else { ", index to be rebuilt" };
    let place = match verdict {
        "whole" => String::new(),
        _ => format!(" behind byte {}: {reason}", report.end_bytes),
    };
    format!(
        "{} {verdict}{place}: offsets {}..{}, {} records in {} batches in {} frames, {} of {} \
         bytes{index}",
        file_name(&report.path),
        report.base,
        report.next,
        report.records,
        report.batches,
        report.frames,
        report.end_bytes,
        report.file_bytes,
    )
}

fn report_json(report: &StoreReport) -> String {
    let (verdict, reason) = tail(report);
    json!({
        "file": report.path.display().to_string(),
        "verdict": verdict,
        "reason": reason,
        "base_offset": report.base.0,
        "next_offset": report.next.0,
        "records": report.records,
        "batches": report.batches,
        "frames": report.frames,
        "first_index": report.entries.map(|(first, _)| first.0),
        "last_index": report.entries.map(|(_, last)| last.0),
        "end_bytes": report.end_bytes,
        "file_bytes": report.file_bytes,
        "index_is_right": report.index_is_right,
    })
    .to_string()
}

/// Torn is what a crash leaves and recovery cuts; damage to what was durable is a failure.
fn verdict(reports: &[StoreReport]) -> Result<(), Failure> {
    let damaged = |report: &&StoreReport| {
        matches!(report.tail, Tail::Corrupt { .. } | Tail::UnknownVersion { .. })
    };
    let Some(report) = reports.iter().find(damaged) else { return Ok(()) };
    let (_, reason) = tail(report);
    let error = format!("{} is damaged", report.path.display());
    if matches!(report.tail, Tail::UnknownVersion { .. }) {
        return Err(Failure::new(Class::Config, error)
            .cause(reason)
            .advice("a later duramen wrote it: use that one"));
    }
    Err(Failure::new(Class::Io, error)
        .cause(format!("behind byte {}: {reason}", report.end_bytes))
        .advice("copy the directory before anything else; `segment dump` prints what is whole"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RaftIndex;

    fn report(tail: Tail) -> StoreReport {
        StoreReport {
            path: "d/00000000000000000000.store".into(),
            base: Offset(0),
            file_bytes: 4096,
            end_bytes: 900,
            frames: 2,
            batches: 2,
            records: 10,
            entries: Some((RaftIndex(1), RaftIndex(2))),
            next: Offset(10),
            tail,
            index_is_right: false,
        }
    }

    #[test]
    fn a_torn_end_is_told_and_is_no_failure() {
        let report = report(Tail::Torn { reason: "a short frame".into() });
        assert_eq!(
            report_text(&report),
            "00000000000000000000.store torn behind byte 900: a short frame: offsets 0..10, 10 \
             records in 2 batches in 2 frames, 900 of 4096 bytes, index to be rebuilt"
        );
        assert_eq!(verdict(&[report]), Ok(()));
    }

    #[test]
    fn damage_is_a_failure_that_names_the_place() {
        let reports =
            [report(Tail::End), report(Tail::Corrupt { reason: "a wrong checksum".into() })];
        let failure = verdict(&reports).unwrap_err();
        assert_eq!(failure.class, Class::Io);
        assert_eq!(failure.cause.as_deref(), Some("behind byte 900: a wrong checksum"));
        let object: serde_json::Value = serde_json::from_str(&report_json(&reports[1])).unwrap();
        assert_eq!((&object["verdict"], &object["last_index"]), (&"corrupt".into(), &2.into()));
        let later = verdict(&[report(Tail::UnknownVersion { found: 9 })]).unwrap_err();
        assert_eq!(later.class, Class::Config);
    }

    #[test]
    fn a_data_directory_stands_for_its_log() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(resolve(directory.path().to_owned()), directory.path());
        let log = directory.path().join(LOG_BELOW_DATA_DIR);
        std::fs::create_dir_all(&log).unwrap();
        assert_eq!(resolve(directory.path().to_owned()), log);
    }
}
