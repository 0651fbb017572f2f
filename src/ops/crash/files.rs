//! The files of crash reports: their names, what is listed of them, and how few are kept.
//!
//! A name holds nothing but letters, digits, `.`, `_` and `-`, so that a name from outside cannot
//! lead anywhere else.

use crate::model::Disposition;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Stands for the newest report.
pub const LATEST: &str = "latest";

const ENDING: &str = ".json";
const UNFINISHED: &str = ".json.new";
/// Of an actor's path in a name; file systems end at 255 bytes.
const PATH_BYTES_MAX: usize = 180;
/// Reports within the same millisecond.
const NAMESAKES_MAX: usize = 1000;

/// A larger file is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why a report cannot be had, or made.
#[derive(Debug, thiserror::Error)]
pub enum CrashFileError {
    /// No name of a report.
    #[error("\"{name}\" is not the name of a crash report; `duramen crash list` shows the names")]
    NotAName {
        /// What was given.
        name: String,
    },
    /// There is no such report.
    #[error("there is no crash report {name} in {}; `duramen crash list` shows what there is",
        directory.display())]
    Missing {
        /// What was given.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// There is none at all.
    #[error("there is no crash report in {}: nothing has crashed, or it is not a node's directory",
        directory.display())]
    NoReports {
        /// Where they were looked for.
        directory: PathBuf,
    },
    /// A report alone is larger than all may be.
    #[error("the report takes {bytes} bytes, more than crash.bytes_max; allow more there")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Reading or writing failed.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CrashFileError {
    /// Who must act.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }

    fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// What is listed of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// The file's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it happened (RFC 3339).
    pub at: String,
    /// To whom.
    pub path: String,
    /// `exit` or `quarantine`; empty where the file cannot be read as a report.
    pub event: String,
    /// In which life.
    pub generation: u64,
    /// `panic`, `failed`, `killed`, `hung` or `quarantined`.
    pub kind: String,
    /// Why, in words.
    pub reason: String,
    /// Crashes of the same path before it that have no report of their own.
    pub suppressed: u64,
}

/// The part of a report that is listed.
#[derive(Default)]
struct Head {
    at: Option<String>,
    path: Option<String>,
    event: Option<String>,
    generation: Option<u64>,
    reason: Option<HeadReason>,
    suppressed: Option<u64>,
}

#[derive(Deserialize)]
struct HeadReason {
    kind: String,
    text: String,
}

/// Where the reports of the node with this data directory are.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("crash")
}

/// The reports in a directory, the oldest first. None where there is no directory. Blocks.
///
/// # Errors
/// The directory cannot be read.
pub fn list(directory: &Path) -> Result<Vec<Summary>, CrashFileError> {
    let found = found(directory)?;
    Ok(found.into_iter().map(|(name, bytes)| summary(directory, name, bytes)).collect())
}

/// The text of a report: JSON. [`LATEST`] is the newest; the ending may be left out. Blocks.
///
/// # Errors
/// [`CrashFileError`]: the name is none, or there is no such file, or it cannot be read.
pub fn read(directory: &Path, name: &str) -> Result<String, CrashFileError> {
    let name = if name == LATEST {
        let none = || CrashFileError::NoReports { directory: directory.to_owned() };
        found(directory)?.pop().ok_or_else(none)?.0
    } else {
        let name = format!("{}{ENDING}", name.strip_suffix(ENDING).unwrap_or(name));
        if !is_name(&name) {
            return Err(CrashFileError::NotAName { name });
        }
        name
    };
    read_text(&directory.join(&name)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            CrashFileError::Missing { name, directory: directory.to_owned() }
        }
        _ => CrashFileError::Io { path: directory.join(name), source },
    })
}

fn is_name(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    name.len() <= 255
        && name.ends_with(ENDING)
        && name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(is_plain)
}

/// Names and sizes of the reports, the oldest first.
fn found(directory: &Path) -> Result<Vec<(String, u64)>, CrashFileError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CrashFileError::at(directory)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CrashFileError::at(directory))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        // Links are not followed. A report may be removed while others are counted.
        if let Ok(facts) = entry.metadata()
            && facts.is_file()
            && is_name(&name)
        {
            found.push((name, facts.len()));
        }
    }
    found.sort();
    Ok(found)
}

fn summary(directory: &Path, name: String, bytes: u64) -> Summary {
    let head = open(&directory.join(&name))
        .map_err(serde_json::Error::io)
        .and_then(|file| Head::read(BufReader::new(file)));
    match head {
        Ok(Head {
            at: Some(at),
            path: Some(path),
            event: Some(event),
            generation: Some(generation),
            reason: Some(HeadReason { kind, text: reason }),
            suppressed: Some(suppressed),
        }) => Summary { name, bytes, at, path, event, generation, kind, reason, suppressed },
        Ok(_) => {
            let reason = "cannot be read as a report: a part of it is missing".into();
            Summary { name, bytes, reason, ..Summary::default() }
        }
        Err(error) => {
            let reason = format!("cannot be read as a report: {error}");
            Summary { name, bytes, reason, ..Summary::default() }
        }
    }
}

impl Head {
    /// Reads a report as far as its head goes, which comes first: what follows is long.
    fn read(report: impl Read) -> Result<Self, serde_json::Error> {
        let mut head = Self::default();
        let mut report = serde_json::Deserializer::from_reader(report);
        match report.deserialize_map(&mut head) {
            Err(error) if !head.is_whole() => Err(error),
            _ => Ok(head),
        }
    }

    fn is_whole(&self) -> bool {
        // The last of it.
        self.suppressed.is_some()
    }
}

impl<'de> Visitor<'de> for &mut Head {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a crash report")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "at" => self.at = Some(map.next_value()?),
                "path" => self.path = Some(map.next_value()?),
                "event" => self.event = Some(map.next_value()?),
                "generation" => self.generation = Some(map.next_value()?),
                "reason" => self.reason = Some(map.next_value()?),
                "suppressed" => self.suppressed = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if self.is_whole() {
                break;
            }
        }
        Ok(())
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge that owns the files of crash reports")]
fn open(path: &Path) -> io::Result<io::Take<File>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    Ok(File::open(path)?.take(FILE_BYTES_MAX))
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Removes the oldest until one more of `bytes` bytes fits. Blocks.
///
/// # Errors
/// The directory cannot be read, or a file not be removed.
#[allow(clippy::disallowed_methods, reason = "the edge that owns the files of crash reports")]
pub(super) fn make_room(
    directory: &Path,
    reports_max: usize,
    bytes_max: u64,
    bytes: u64,
) -> Result<(), CrashFileError> {
    let found = found(directory)?;
    let mut count = found.len();
    let mut total: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    for (name, its_bytes) in found {
        if count < reports_max && total.saturating_add(bytes) <= bytes_max {
            break;
        }
        remove(&directory.join(name))?;
        count -= 1;
        total -= its_bytes;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the edge that owns the files of crash reports")]
fn remove(path: &Path) -> Result<(), CrashFileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CrashFileError::at(path)(error))
        }
        _ => Ok(()),
    }
}

/// Writes a report under a name of its own: there is never half of one. Returns the name. Blocks.
///
/// # Errors
/// The disk does not take it.
#[allow(clippy::disallowed_methods, reason = "the edge that owns the files of crash reports")]
pub(super) fn write(
    directory: &Path,
    at: &str,
    path: &str,
    bytes: &[u8],
) -> Result<String, CrashFileError> {
    // Not with its parents: a data directory that is gone is not made again.
    if let Err(error) = fs::create_dir(directory)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(CrashFileError::at(directory)(error));
    }
    let time = time(at);
    let number = next_number(directory, &time)?;
    let name = format!("{time}-{number:03}-{}{ENDING}", plain(path));
    // The same unfinished name every time: at most one is ever left behind.
    let unfinished = directory.join(format!("report{UNFINISHED}"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        fs::rename(&unfinished, directory.join(&name))
    };
    write().map_err(CrashFileError::at(directory.join(&name)))?;
    Ok(name)
}

/// The next number of a report of this time. Numbered over all paths, names sort in the order of
/// the reports also within a millisecond.
fn next_number(directory: &Path, time: &str) -> Result<usize, CrashFileError> {
    let found = found(directory)?;
    let numbers = found.iter().filter_map(|(name, _)| {
        name.strip_prefix(time)?.strip_prefix('-')?.split('-').next()?.parse::<usize>().ok()
    });
    let number = numbers.max().map_or(0, |last| last + 1);
    let refused = || CrashFileError::NotAName { name: format!("{time}-{number}") };
    (number < NAMESAKES_MAX).then_some(number).ok_or_else(refused)
}

/// `20261121T100000.123Z`: the first part of `20261121T100000.123Z-000-node-partitions-log-0-raft`.
fn time(at: &str) -> String {
    at.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
}

fn plain(path: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    path.chars().map(plain).take(PATH_BYTES_MAX).collect()
}
