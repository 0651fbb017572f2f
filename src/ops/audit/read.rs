//! Reading an audit log: all of it, each line checked to follow the one before; or on and on, while
//! lines are written.

use super::CURRENT;
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

#[allow(clippy::disallowed_methods, reason = "the edge where the audit log is read")]
pub(super) fn last_line(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()?.lines().last().map(str::to_owned)
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

/// What an audit log says, line by line, each checked to follow the one before.
///
/// # Errors
/// A file that cannot be read; a line that does not follow, with its place.
#[allow(clippy::disallowed_methods, reason = "the edge where the audit log is read")]
pub fn read(
    directory: &Path,
    mut each: impl FnMut(AuditEntry),
) -> Result<Option<Chain>, (PathBuf, usize, String)> {
    let odd = |path: &Path, line: usize, what: String| (path.to_owned(), line, what);
    let all = files(directory).map_err(|error| odd(directory, 0, error.to_string()))?;
    let mut chain = None;
    for (place, path) in all.iter().enumerate() {
        let file = File::open(path).map_err(|error| odd(path, 0, error.to_string()))?;
        let mut file = BufReader::new(file);
        let mut line = String::new();
        for at in 0.. {
            line.clear();
            let read = file.read_line(&mut line);
            let is_over = read.map_err(|error| odd(path, at + 1, error.to_string()))? == 0;
            // The very last line may have been on its way when the machine stopped.
            let is_cut_off = !line.ends_with('\n') && place + 1 == all.len();
            if is_over || is_cut_off {
                break;
            }
            let entry = verify_line(&mut chain, &line);
            each(entry.map_err(|fault| odd(path, at + 1, fault.to_string()))?);
        }
    }
    Ok(chain)
}
