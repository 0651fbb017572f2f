//! The audit log: what was denied, and administrative acts, as lines of JSON that are chained by
//! their hashes, below `audit/` in the data directory.
//!
//! A file of the node and no topic: what a node refuses must be noted also while no group has a
//! leader, a flood of refusals must not become load of the cluster, and who may delete topics must
//! not be able to delete what was noted of it.
//!
//! Repeats within a moment are one line with a count. A thread writes, which exists only while there
//! is something to write; what it has no room for is counted and told in a line of its own.

use crate::access::{AuditEntry, AuditNote, AuditSink, Chain, verify_line};
use crate::model::Clock;
use slog::{Logger, error};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Below the data directory.
pub const DIRECTORY: &str = "audit";
const CURRENT: &str = "current.jsonl";
/// Different notes that may wait.
const NOTES_MAX: usize = 1024;
/// A text in a line is cut at this.
const TEXT_BYTES_MAX: usize = 2048;
/// Repeats within this time are one line.
const FOLD: Duration = Duration::from_millis(100);
/// The thread ends when there was nothing for so long.
const IDLE: Duration = Duration::from_secs(2);
/// A file is closed at this size, and only so many are kept.
const FILE_BYTES_MAX: u64 = 16 << 20;
const FILES_MAX: usize = 64;

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct AuditLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    logger: Logger,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    notes: Vec<(AuditNote, i64, u64)>,
    places: HashMap<AuditNote, usize>,
    lost: u64,
    is_writing: bool,
}

impl AuditLog {
    /// Below this data directory; nothing is made before there is something to note.
    pub fn new(data_dir: &Path, clock: Arc<dyn Clock>, logger: Logger) -> Self {
        let directory = data_dir.join(DIRECTORY);
        let (waiting, changed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { directory, clock, logger, waiting, changed }))
    }

    /// Whether nothing waits to be stored.
    pub fn is_idle(&self) -> bool {
        let waiting = self.0.waiting();
        waiting.notes.is_empty() && waiting.lost == 0
    }

    /// Waits until everything noted so far is stored, at most so long. Blocks. False: it is not.
    pub fn flush(&self, time: Duration) -> bool {
        let waiting = self.0.waiting();
        let (waiting, _) = self
            .0
            .changed
            .wait_timeout_while(waiting, time, |waiting| {
                waiting.is_writing && !(waiting.notes.is_empty() && waiting.lost == 0)
            })
            .unwrap_or_else(PoisonError::into_inner);
        waiting.notes.is_empty()
    }
}

impl AuditSink for AuditLog {
    fn note(&self, mut note: AuditNote) {
        let subject = note.subject.iter_mut();
        for text in [&mut note.call, &mut note.what, &mut note.outcome].into_iter().chain(subject) {
            if text.len() > TEXT_BYTES_MAX {
                let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
                text.truncate(end.unwrap_or(0));
            }
        }
        let now = self.0.clock.wall().0;
        let mut waiting = self.0.waiting();
        match waiting.places.get(&note).copied() {
            Some(place) => waiting.notes[place].2 += 1,
            None if waiting.notes.len() >= NOTES_MAX => waiting.lost += 1,
            None => {
                let place = waiting.notes.len();
                waiting.places.insert(note.clone(), place);
                waiting.notes.push((note, now, 1));
            }
        }
        if !waiting.is_writing {
            waiting.is_writing = true;
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("duramen-audit".into());
            if let Err(error) = thread.spawn(move || shared.write()) {
                waiting.is_writing = false;
                error!(self.0.logger, "the audit log has no thread"; "error" => %error);
            }
        }
        drop(waiting);
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, until nothing has for a while.
    fn write(&self) {
        let mut file = None;
        loop {
            let waiting = self.waiting();
            let (mut waiting, waited) = self
                .changed
                .wait_timeout_while(waiting, IDLE, |waiting| waiting.notes.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() && waiting.notes.is_empty() {
                waiting.is_writing = false;
                return;
            }
            drop(waiting);
            // For repeats to meet.
            std::thread::sleep(FOLD);
            let (notes, lost) = {
                let mut waiting = self.waiting();
                waiting.places.clear();
                (waiting.notes.clone(), waiting.lost)
            };
            let count = notes.len();
            if let Err(error) = self.append(&mut file, notes, lost) {
                error!(self.logger, "the audit log cannot be written"; "error" => %error,
                    "directory" => %self.directory.display(), "lines" => count);
                file = None;
            }
            let mut waiting = self.waiting();
            waiting.notes.drain(..count);
            waiting.places = {
                let places = waiting.notes.iter().enumerate();
                places.map(|(place, (note, ..))| (note.clone(), place)).collect()
            };
            waiting.lost -= lost;
            drop(waiting);
            self.changed.notify_all();
        }
    }

    fn append(
        &self,
        open: &mut Option<(File, Chain, u64)>,
        notes: Vec<(AuditNote, i64, u64)>,
        lost: u64,
    ) -> io::Result<()> {
        let (file, chain, bytes) = match open {
            Some(open) => open,
            None => open.insert(self.open()?),
        };
        let mut text = String::new();
        for (note, at_ms, times) in notes {
            let AuditNote { kind, subject, peer, call, what, outcome } = note;
            text.push_str(&chain.append(AuditEntry {
                number: 0,
                at_ms,
                kind: kind.into(),
                subject,
                peer,
                call,
                what,
                outcome,
                times,
                previous: String::new(),
            }));
            text.push('\n');
        }
        if lost > 0 {
            text.push_str(&chain.append(AuditEntry {
                number: 0,
                at_ms: self.clock.wall().0,
                kind: "lost".into(),
                subject: None,
                peer: String::new(),
                call: String::new(),
                what: "there was no room for these".into(),
                outcome: String::new(),
                times: lost,
                previous: String::new(),
            }));
            text.push('\n');
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        *bytes += text.len() as u64;
        if *bytes >= FILE_BYTES_MAX {
            let number = chain.number;
            *open = None;
            self.close(number)?;
        }
        Ok(())
    }

    /// Opens the current file where it ends: behind the last whole line. What is behind it was on its
    /// way when the machine stopped.
    #[allow(clippy::disallowed_methods, reason = "the edge where the audit log is written")]
    fn open(&self) -> io::Result<(File, Chain, u64)> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join(CURRENT);
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        let mut text = String::new();
        BufReader::new(&file).read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
        }
        file.seek(SeekFrom::End(0))?;
        let last = match text[..whole].lines().last() {
            Some(line) => Some(line.to_owned()),
            None => files(&self.directory)?.into_iter().rev().find_map(|file| last_line(&file)),
        };
        let mut chain = None;
        let begins = last.is_none_or(|line| verify_line(&mut chain, &line).is_ok());
        if !begins {
            return Err(io::Error::other(
                "its last line was changed: `duramen audit verify` tells; move the file aside",
            ));
        }
        File::open(&self.directory)?.sync_all()?;
        Ok((file, chain.unwrap_or_default(), whole as u64))
    }

    #[allow(clippy::disallowed_methods, reason = "the edge where the audit log is written")]
    fn close(&self, last: u64) -> io::Result<()> {
        let closed = self.directory.join(format!("{last:020}.jsonl"));
        fs::rename(self.directory.join(CURRENT), closed)?;
        let all = files(&self.directory)?;
        for old in all.iter().take(all.len().saturating_sub(FILES_MAX)) {
            fs::remove_file(old)?;
        }
        File::open(&self.directory)?.sync_all()
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge where the audit log is read")]
fn last_line(file: &Path) -> Option<String> {
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
    for path in all {
        let file = File::open(&path).map_err(|error| odd(&path, 0, error.to_string()))?;
        for (at, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|error| odd(&path, at + 1, error.to_string()))?;
            let entry = verify_line(&mut chain, &line);
            each(entry.map_err(|fault| odd(&path, at + 1, fault.to_string()))?);
        }
    }
    Ok(chain)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests change files")]
mod tests {
    use super::*;
    use crate::model::SystemClock;
    use slog::o;

    fn log(directory: &Path) -> AuditLog {
        let logger = Logger::root(slog::Discard, o!());
        AuditLog::new(directory, Arc::new(SystemClock::new()), logger)
    }

    fn note(what: &str) -> AuditNote {
        AuditNote {
            kind: "denied",
            subject: Some("mallory".into()),
            peer: "127.0.0.1".into(),
            call: "/x/Y".into(),
            what: what.into(),
            outcome: "denied".into(),
        }
    }

    #[test]
    fn notes_outlive_the_node_and_a_flood_is_folded() {
        let directory = tempfile::tempdir().unwrap();
        let first = log(directory.path());
        for _ in 0..5_000 {
            first.note(note("produce log"));
        }
        first.note(note("consume log"));
        assert!(first.flush(Duration::from_secs(30)));
        let second = log(directory.path());
        second.note(note("admin *"));
        assert!(second.flush(Duration::from_secs(30)));
        let mut seen = Vec::new();
        let chain = read(&directory.path().join(DIRECTORY), |entry| seen.push(entry)).unwrap();
        let total: u64 = seen.iter().map(|entry| entry.times).sum();
        assert_eq!(total, 5_002);
        assert!(seen.len() < 100, "{} lines", seen.len());
        assert_eq!(chain.unwrap().number, seen.len() as u64);
        assert_eq!(seen.last().unwrap().what, "admin *");
    }

    #[test]
    fn more_than_there_is_room_for_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        for i in 0..10 * NOTES_MAX {
            log.note(note(&format!("{i}")));
        }
        assert!(log.flush(Duration::from_secs(30)));
        let mut total = 0;
        read(&directory.path().join(DIRECTORY), |entry| total += entry.times).unwrap();
        assert_eq!(total, 10 * NOTES_MAX as u64);
    }

    #[test]
    fn a_change_shows_and_a_line_cut_off_by_a_crash_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let first = log(directory.path());
        first.note(note("a"));
        first.note(note("b"));
        assert!(first.flush(Duration::from_secs(30)));
        let place = directory.path().join(DIRECTORY);
        let file = place.join(CURRENT);
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{whole}{{\"entry\":")).unwrap();
        let second = log(directory.path());
        second.note(note("c"));
        assert!(second.flush(Duration::from_secs(30)));
        let mut count = 0;
        read(&place, |_| count += 1).unwrap();
        assert_eq!(count, 3);
        let changed = fs::read_to_string(&file).unwrap().replacen("mallory", "alice", 1);
        fs::write(&file, changed).unwrap();
        let (_, line, _) = read(&place, |_| {}).unwrap_err();
        assert_eq!(line, 1);
    }
}
