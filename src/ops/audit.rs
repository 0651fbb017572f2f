//! The audit log: what was denied, and administrative acts, as lines of JSON that are chained by
//! their hashes, below `audit/` in the data directory.
//!
//! Files of the node first: what it refuses must be noted also while no group has a leader. From
//! there lines are copied to a topic ([`AuditTail`]), so that whoever takes over a node's disk cannot
//! make its past anew.
//!
//! Repeats within a moment are one line with a count, and so is what one source does beyond its share:
//! nobody pushes out what was noted of others. A thread writes, which exists only while there is
//! something to write; what it has no room for is counted and told in a line of its own.

mod copied;
mod read;
#[cfg(test)]
mod tests;

pub use copied::{copied, set_copied};
pub use read::{AuditTail, end, files, read};

use crate::access::{AuditCounts, AuditEntry, AuditNote, AuditSink, Chain, verify_line};
use crate::model::Clock;
use crate::observe::metrics::Counter;
use read::{closed_name, last_line};
use slog::{Logger, error};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Below the data directory.
pub const DIRECTORY: &str = "audit";
const CURRENT: &str = "current.jsonl";
/// Different notes that may wait.
const NOTES_MAX: usize = 1024;
/// A text in a line is cut at this.
const TEXT_BYTES_MAX: usize = 2048;
/// Different denials that are noted of one source in a window; the rest of them is one line.
const SHARE_MAX: u32 = 20;
const SHARE_WINDOW_MS: i64 = 1_000;
/// What stands in that line for what was asked.
const BEYOND_SHARE: &str = "more than its share of lines: what it asked for is only counted";
/// Repeats within this time are one line.
const FOLD: Duration = Duration::from_millis(100);
/// The thread ends when there was nothing for so long.
const IDLE: Duration = Duration::from_secs(2);
const DENIED: &str = "denied";
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
    /// The number of the last line that was stored in this life; 0: none was.
    stored: watch::Sender<u64>,
    written: Counter,
    lost: Counter,
    /// A file is closed at this size …
    file_bytes_max: u64,
    /// … and only so many of those are kept.
    files_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    notes: Vec<(AuditNote, i64, u64)>,
    places: HashMap<AuditNote, usize>,
    /// Since when (wall, ms), and how many lines each source was given since.
    shares: (i64, HashMap<(Option<String>, String), u32>),
    lost: u64,
    is_writing: bool,
}

impl Waiting {
    /// Whether this source may have one more line now.
    fn has_share(&mut self, note: &AuditNote, now: i64) -> bool {
        let (since, given) = &mut self.shares;
        if !(0..SHARE_WINDOW_MS).contains(&(now - *since)) {
            (*since, *given) = (now, HashMap::new());
        }
        // Sources beyond the room for lines get none anyway.
        let source = (note.subject.clone(), note.peer.clone());
        if given.len() >= NOTES_MAX && !given.contains_key(&source) {
            return false;
        }
        let given = given.entry(source).or_default();
        *given += 1;
        *given <= SHARE_MAX
    }
}

impl AuditLog {
    /// Below this data directory; nothing is made before there is something to note.
    pub fn new(data_dir: &Path, clock: Arc<dyn Clock>, logger: Logger) -> Self {
        Self::with_limits(data_dir, clock, logger, (FILE_BYTES_MAX, FILES_MAX))
    }

    fn with_limits(
        data_dir: &Path,
        clock: Arc<dyn Clock>,
        logger: Logger,
        (file_bytes_max, files_max): (u64, usize),
    ) -> Self {
        let directory = data_dir.join(DIRECTORY);
        let (waiting, changed) = (Mutex::default(), Condvar::new());
        let (stored, written, lost) =
            (watch::Sender::new(0), Counter::default(), Counter::default());
        let shared = Shared {
            directory,
            clock,
            logger,
            waiting,
            changed,
            stored,
            written,
            lost,
            file_bytes_max,
            files_max,
        };
        Self(Arc::new(shared))
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// The number of the last line, as lines are stored.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.0.stored.subscribe()
    }

    /// Its lines behind the one of this number.
    pub fn tail(&self, after: u64) -> AuditTail {
        AuditTail { directory: self.0.directory.clone(), after, at: None }
    }

    /// Whether nothing waits to be stored, or nobody tries to any more.
    pub fn is_idle(&self) -> bool {
        let waiting = self.0.waiting();
        !waiting.is_writing || waiting.is_empty()
    }

    /// Waits until everything noted so far is stored, at most so long. Blocks. False: it is not.
    pub fn flush(&self, time: Duration) -> bool {
        let waiting = self.0.waiting();
        let (waiting, _) = self
            .0
            .changed
            .wait_timeout_while(waiting, time, |waiting| waiting.is_writing && !waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        waiting.is_empty()
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
        let is_known = waiting.places.contains_key(&note);
        if note.kind == DENIED && !is_known && !waiting.has_share(&note, now) {
            note = AuditNote {
                call: String::new(),
                what: BEYOND_SHARE.into(),
                outcome: DENIED.into(),
                ..note
            };
        }
        match waiting.places.get(&note).copied() {
            Some(place) => waiting.notes[place].2 += 1,
            None if waiting.notes.len() >= NOTES_MAX => {
                waiting.lost += 1;
                self.0.lost.one();
            }
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

    fn counts(&self) -> AuditCounts {
        AuditCounts { written: self.0.written.get(), lost: self.0.lost.get() }
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.lost == 0
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
                .wait_timeout_while(waiting, IDLE, |waiting| waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() && waiting.is_empty() {
                waiting.is_writing = false;
                drop(waiting);
                self.changed.notify_all();
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
            let times: u64 = notes.iter().map(|(.., times)| times).sum();
            let appended = self.append(&mut file, notes, lost);
            let mut waiting = self.waiting();
            waiting.notes.drain(..count);
            waiting.places = {
                let places = waiting.notes.iter().enumerate();
                places.map(|(place, (note, ..))| (note.clone(), place)).collect()
            };
            match &appended {
                Ok(()) => waiting.lost -= lost,
                // The next note begins anew; a line tells of these once there is a disk again.
                Err(_) => {
                    waiting.lost += times;
                    waiting.is_writing = false;
                    self.lost.add(times);
                }
            }
            drop(waiting);
            self.changed.notify_all();
            if let Err(error) = appended {
                error!(self.logger, "the audit log cannot be written"; "error" => %error,
                    "directory" => %self.directory.display(), "lines" => count);
                return;
            }
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
        let lines = notes.len() as u64 + u64::from(lost > 0);
        let mut text = String::new();
        for (note, at_ms, times) in notes {
            text.push_str(&chain.append(AuditEntry { at_ms, times, ..entry_of(note) }));
            text.push('\n');
        }
        if lost > 0 {
            let at_ms = self.clock.wall().0;
            let note = AuditNote {
                kind: "lost",
                what: "there was no room for these".into(),
                ..AuditNote::default()
            };
            text.push_str(&chain.append(AuditEntry { at_ms, times: lost, ..entry_of(note) }));
            text.push('\n');
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.written.add(lines);
        *bytes += text.len() as u64;
        let number = chain.number;
        if *bytes >= self.file_bytes_max {
            *open = None;
            self.close(number)?;
        }
        self.stored.send_replace(number);
        Ok(())
    }

    /// Opens the current file where it ends: behind the last whole line. What is behind it was on its
    /// way when the machine stopped.
    #[allow(clippy::disallowed_methods, reason = "the edge where the audit log is written")]
    fn open(&self) -> io::Result<(File, Chain, u64)> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join(CURRENT);
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // In bytes: it may end within a letter.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64)?;
        }
        file.seek(SeekFrom::End(0))?;
        let last = match String::from_utf8_lossy(&bytes[..whole]).lines().last() {
            Some(line) => Some(line.to_owned()),
            None => files(&self.directory)?.into_iter().rev().find_map(|file| last_line(&file)),
        };
        let mut chain = None;
        let begins = last.is_none_or(|line| verify_line(&mut chain, &line).is_ok());
        if !begins {
            return Err(io::Error::other(
                "its last line was changed: `duramen audit verify` tells; stop the node, move the file \
                 aside and start it again",
            ));
        }
        File::open(&self.directory)?.sync_all()?;
        Ok((file, chain.unwrap_or_default(), whole as u64))
    }

    #[allow(clippy::disallowed_methods, reason = "the edge where the audit log is written")]
    fn close(&self, last: u64) -> io::Result<()> {
        let closed = self.directory.join(closed_name(last));
        fs::rename(self.directory.join(CURRENT), closed)?;
        let all = files(&self.directory)?;
        for old in all.iter().take(all.len().saturating_sub(self.files_max)) {
            fs::remove_file(old)?;
        }
        File::open(&self.directory)?.sync_all()
    }
}

/// Its number and the hash before it are the chain's to fill in.
fn entry_of(note: AuditNote) -> AuditEntry {
    let AuditNote { kind, subject, peer, call, what, outcome } = note;
    let (kind, previous) = (kind.into(), String::new());
    AuditEntry { number: 0, at_ms: 0, kind, subject, peer, call, what, outcome, times: 1, previous }
}
