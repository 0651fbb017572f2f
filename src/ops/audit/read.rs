//! Reading an audit log: all of it, each line checked to follow the one before; or on and on, while
//! lines are written.

use super::{CURRENT, FILE_BYTES_MAX, FILES_MAX};
use crate::access::{AuditEntry, Chain, verify_line};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The longest line: five texts, each byte of which may be written as six.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Reads on where it stopped, while lines are written: from one file to the next.
#[derive(Debug)]
pub struct AuditTail {
    pub(super) directory: PathBuf,
    pub(super) after: u64,
    /// The file that it reads and how far; whether lines are still added to it.
    pub(super) at: Option<(File, u64, bool)>,
}

impl AuditTail {
    /// The next lines, with their numbers, of about so many bytes together; none: there are no more yet.
    /// What is no line is passed over: verifying finds it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&mut self, bytes_max: usize) -> io::Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        while found.is_empty() {
            let Some((file, place, is_current)) = &mut self.at else {
                match self.open()? {
                    Some(at) => self.at = Some(at),
                    None => break,
                }
                continue;
            };
            file.seek(SeekFrom::Start(*place))?;
            let mut bytes = Vec::new();
            // At least one line.
            let room = bytes_max.max(LINE_BYTES_MAX) as u64;
            io::Read::by_ref(file).take(room).read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole == 0 {
                // It may have been closed since: the next one begins behind it.
                let is_over = !*is_current || self.closed_at(self.after);
                self.at = self.at.take().filter(|_| !is_over);
                if is_over {
                    continue;
                }
                break;
            }
            // What is copied and then lost by a power cut would look as if it were taken out.
            file.sync_data()?;
            *place += whole as u64;
            for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
                let Ok(entry) = verify_line(&mut None, line) else { continue };
                if entry.number > self.after {
                    self.after = entry.number;
                    found.push((entry.number, line.to_owned()));
                }
            }
        }
        Ok(found)
    }

    fn closed_at(&self, number: u64) -> bool {
        self.directory.join(closed_name(number)).exists()
    }

    /// The first file that has later lines.
    #[allow(clippy::disallowed_methods, reason = "the edge where the audit log is read")]
    fn open(&self) -> io::Result<Option<(File, u64, bool)>> {
        let all = match files(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            all => all?,
        };
        let is_later = |path: &&PathBuf| path.ends_with(CURRENT) || last_of(path) > self.after;
        let Some(path) = all.iter().find(is_later) else { return Ok(None) };
        Ok(Some((File::open(path)?, 0, path.ends_with(CURRENT))))
    }
}

pub(super) fn closed_name(last: u64) -> String {
    format!("{last:020}.jsonl")
}

/// The number of the last line of a closed file.
fn last_of(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.and_then(|stem| stem.parse().ok()).unwrap_or(0)
}

/// A file's last line; of the current file its last whole one.
#[allow(clippy::disallowed_methods, reason = "the edge where the audit log is read")]
pub(super) fn last_line(file: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(file).ok()?).into_owned();
    let whole = if file.ends_with(CURRENT) { text.rfind('\n')? } else { text.len() };
    text[..whole].lines().last().map(str::to_owned)
}

/// The number of an audit log's last line, behind which the next is written; 0: there is none.
///
/// # Errors
/// The directory cannot be read; the last line was changed.
pub fn end(directory: &Path) -> io::Result<u64> {
    let all = match files(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        all => all?,
    };
    let last = all.into_iter().rev().find_map(|file| last_line(&file));
    let Some(line) = last else { return Ok(0) };
    verify_line(&mut None, &line).map(|entry| entry.number).map_err(io::Error::other)
}

/// Whether so many files are full that older ones went: else the first line is the first of all.
#[allow(clippy::disallowed_methods, reason = "the edge where the audit log is read")]
fn old_ones_went(all: &[PathBuf], (file_bytes_max, files_max): (u64, usize)) -> bool {
    let closed = all.iter().filter(|path| !path.ends_with(CURRENT)).count();
    let first = all.first().and_then(|path| fs::metadata(path).ok());
    closed >= files_max && first.is_some_and(|first| first.len() >= file_bytes_max)
}

/// The files of an audit log, in order.
///
/// # Errors
/// The directory cannot be read.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            found.push(path);
        }
    }
    // Numbers, then `current`.
    found.sort();
    Ok(found)
}

/// What an audit log says, line by line, each checked to follow the one before, and the first to be
/// the first of all unless old files went. Gives back where it ends: a chain does not tell whether
/// there was more.
///
/// # Errors
/// A file that cannot be read; a line that does not follow, with its place.
pub fn read(
    directory: &Path,
    each: impl FnMut(AuditEntry),
) -> Result<Chain, (PathBuf, usize, String)> {
    read_kept(directory, (FILE_BYTES_MAX, FILES_MAX), each)
}

/// The same of one whose files are closed and kept by these limits.
#[allow(clippy::disallowed_methods, reason = "the edge where the audit log is read")]
pub(super) fn read_kept(
    directory: &Path,
    limits: (u64, usize),
    mut each: impl FnMut(AuditEntry),
) -> Result<Chain, (PathBuf, usize, String)> {
    let odd = |path: &Path, line: usize, what: String| (path.to_owned(), line, what);
    let all = files(directory).map_err(|error| odd(directory, 0, error.to_string()))?;
    let mut chain = (!old_ones_went(&all, limits)).then(Chain::default);
    for (place, path) in all.iter().enumerate() {
        let file = File::open(path).map_err(|error| odd(path, 0, error.to_string()))?;
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        for at in 0.. {
            line.clear();
            let read = file.read_until(b'\n', &mut line);
            let is_over = read.map_err(|error| odd(path, at + 1, error.to_string()))? == 0;
            // The very last line may have been on its way when the machine stopped.
            let is_cut_off = !line.ends_with(b"\n") && place + 1 == all.len();
            if is_over || is_cut_off {
                break;
            }
            let entry = verify_line(&mut chain, &String::from_utf8_lossy(&line));
            each(entry.map_err(|fault| odd(path, at + 1, fault.to_string()))?);
        }
    }
    Ok(chain.unwrap_or_default())
}
