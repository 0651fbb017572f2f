//! The writer: one owner, plain calls, every wait on the disk inside them. Hands out nothing that
//! is not so: `append` says what was written, only `sync` says what is durable.
//!
//! Invariants: raft indexes are contiguous over all segments, and offsets dense; frames lie end
//! to end; readers are shown a frame only once it is written whole; after a failed write or sync
//! no call changes anything any more.

use super::checkpoint::{Checkpoint, Mark};
use super::control::{Sin, commits};
use super::disk::Disk;
use super::entry::{Appended, Entry, EntryPayload, Placed, Recovered, Synced, Written};
use super::error::{LogError, is_full};
use super::frame::{self, Encoder};
use super::index::IndexEntry;
use super::options::LogOptions;
use super::recovery;
use super::segment::{Extent, Segment};
use super::space::Space;
use super::spare::Spare;
use super::view::LogView;
use super::zeros;
use crate::model::{Clock, Offset, RaftIndex, Term, Timestamp};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first step of zeroing ahead; each next is four times that, up to the option's limit.
const ZERO_STEP_BYTES: u64 = 64 << 10;

/// The segment that is written, with what only the writer knows of it.
#[derive(Debug)]
pub(super) struct Active {
    pub segment: Arc<Segment>,
    /// Where the zeros written ahead end.
    pub zeroed_bytes: u64,
    pub zero_step_bytes: u64,
    /// When it was begun.
    pub since: Timestamp,
}

impl Active {
    pub fn new(segment: Arc<Segment>, zeroed_bytes: u64, since: Timestamp) -> Self {
        Self { segment, zeroed_bytes, zero_step_bytes: ZERO_STEP_BYTES, since }
    }

    /// The place behind its last frame.
    pub fn mark(&self) -> Mark {
        let Extent { entries, bytes, next } = self.segment.extent();
        let base = self.segment.base;
        Mark { base, position_bytes: bytes, entries, index: self.segment.last_index(), next }
    }
}

/// A commit log, open for writing. One owner; readers use [`Log::view`].
#[derive(Debug)]
pub struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) directory: PathBuf,
    pub(super) options: LogOptions,
    pub(super) view: Arc<LogView>,
    pub(super) active: Active,
    pub(super) last_term: Term,
    pub(super) previous_term: Term,
    /// What the last sync covered.
    pub(super) durable: Mark,
    /// What the checkpoint file says.
    pub(super) persisted: Checkpoint,
    pub(super) space: Space,
    pub(super) spare: Option<Spare>,
    pub(super) encoder: Encoder,
    poison: Option<String>,
}

/// What recovery hands to the writer.
pub(super) struct Ready {
    pub segments: Vec<Arc<Segment>>,
    pub active: Active,
    pub persisted: Checkpoint,
    pub previous_term: Term,
    pub identity: u32,
}

impl Log {
    /// Opens the log in `directory`, or creates it; recovers it after a crash. Blocks: reads what
    /// lies behind the last checkpoint, at about the speed of the disk.
    ///
    /// # Arguments
    /// - `progress`: called with bytes read and bytes to read, about once per MiB.
    ///
    /// # Errors
    /// - [`LogError::Corrupt`], [`LogError::FileDamaged`], [`LogError::UnknownVersion`]: nothing
    ///   in the directory was changed.
    /// - [`LogError::InvalidOption`], [`LogError::DiskFull`], and what the disk says.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        directory: &Path,
        options: LogOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, Recovered), LogError> {
        options.validate()?;
        let (ready, recovered) =
            recovery::recover(disk.as_ref(), clock.as_ref(), directory, &options, progress)?;
        let view = LogView::new(
            ready.segments,
            recovered.log_start,
            disk.clone(),
            directory.to_owned(),
            options.batch,
        );
        let durable = ready.active.mark();
        let last_term = recovered.terms.last().map_or(ready.previous_term, |(_, term)| *term);
        let log = Self {
            disk,
            clock,
            directory: directory.to_owned(),
            options,
            view: Arc::new(view),
            active: ready.active,
            last_term,
            previous_term: ready.previous_term,
            durable,
            persisted: ready.persisted,
            space: Space::default(),
            spare: None,
            encoder: Encoder::new(ready.identity),
            poison: None,
        };
        Ok((log, recovered))
    }

    /// The readers' side.
    pub fn view(&self) -> Arc<LogView> {
        self.view.clone()
    }

    /// The offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        self.active.segment.extent().next
    }

    /// The first offset that may be read.
    pub fn log_start(&self) -> Offset {
        self.view.start()
    }

    /// The first Raft entry present; one past the last when there is none.
    pub fn first_index(&self) -> RaftIndex {
        self.view.segments.load()[0].first_index
    }

    /// The last Raft entry written.
    pub fn last_index(&self) -> RaftIndex {
        self.active.segment.last_index()
    }

    /// The last Raft entry that a sync has covered.
    pub fn durable_index(&self) -> RaftIndex {
        self.durable.index
    }

    /// The term of the last entry written.
    pub fn last_term(&self) -> Term {
        self.last_term
    }

    /// True after a failed write or sync: only reads go on.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// Writes entries behind the last one, rolling to new segments as needed. Nothing is durable
    /// yet. Blocks on the write, and on a sync where a segment is rolled.
    ///
    /// # Errors
    /// - [`LogError::NotContiguous`], [`LogError::TermWentBack`], [`LogError::EmptyEntry`],
    ///   [`LogError::EntryTooLarge`]: nothing was written.
    /// - [`LogError::DiskFull`]: nothing stays written; call again when there is space.
    /// - [`LogError::WriteFailed`], [`LogError::SyncFailed`]: the log is poisoned.
    pub fn append(&mut self, entries: &[Entry]) -> Result<Appended, LogError> {
        self.check_alive()?;
        let needed = self.check_entries(entries)?;
        let reserve = self.options.reserve_free_bytes;
        self.space.admit(self.disk.as_ref(), &self.directory, needed, reserve)?;
        let (last, last_term) = (self.last_index(), self.last_term);
        let mut appended = Appended { placed: Vec::with_capacity(entries.len()), bytes: 0 };
        let outcome = self.append_runs(entries, &mut appended);
        self.encoder.clear();
        match outcome {
            Ok(()) => Ok(appended),
            Err(error) if error.is_disk_full() => {
                self.space.forget();
                // A part was written before the disk was full: the caller gets all or nothing.
                if self.last_index() > last {
                    self.cut_after(last).map_err(|error| {
                        let cause = self.poison(error).to_string();
                        LogError::Poisoned { cause }
                    })?;
                    self.last_term = last_term;
                }
                Err(error)
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Makes durable what was written: one `fdatasync`. Blocks. The only way to a [`Synced`].
    ///
    /// # Errors
    /// [`LogError::SyncFailed`]: the log is poisoned; the sync is not tried again.
    pub fn sync(&mut self) -> Result<Synced, LogError> {
        self.check_alive()?;
        if self.durable != self.active.mark() {
            self.sync_active().map_err(|error| self.poison(error))?;
        }
        Ok(Synced::new(self.durable.index, self.durable.next))
    }

    /// What the operating system has: for durability levels below `fsync`.
    pub fn written(&self) -> Written {
        Written::new(self.last_index(), self.next_offset())
    }

    /// Writes down what is durable, so that the next recovery reads less and takes damage below
    /// for what it is. Rebuilds indexes that readers found wrong. For idle moments; blocks.
    ///
    /// # Errors
    /// [`LogError::DiskFull`]: the old checkpoint stands. Others poison the log.
    pub fn checkpoint(&mut self) -> Result<(), LogError> {
        self.check_alive()?;
        let outcome = self.mend_indexes().and_then(|()| self.write_checkpoint(false));
        self.poison_unless_full(outcome)
    }

    /// Syncs, and leaves a mark that spares the next start its scan. Blocks.
    ///
    /// # Errors
    /// As [`Log::sync`] and [`Log::checkpoint`]; the files are left for recovery then.
    pub fn close(mut self) -> Result<(), LogError> {
        let _ = self.sync()?; // nobody waits for an acknowledgement any more
        self.drop_spare()?;
        self.write_checkpoint(true)
    }

    pub(super) fn identity(&self) -> u32 {
        self.encoder.identity()
    }

    pub(super) fn check_alive(&self) -> Result<(), LogError> {
        match &self.poison {
            None => Ok(()),
            Some(cause) => Err(LogError::Poisoned { cause: cause.clone() }),
        }
    }

    /// Closes the log to writes for good.
    pub(super) fn poison(&mut self, error: LogError) -> LogError {
        let cause = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        self.poison.get_or_insert(cause);
        error
    }

    pub(super) fn poison_unless_full<T>(
        &mut self,
        outcome: Result<T, LogError>,
    ) -> Result<T, LogError> {
        outcome.map_err(|error| if error.is_disk_full() { error } else { self.poison(error) })
    }

    /// Checks order, terms and sizes; returns the bytes needed.
    fn check_entries(&self, entries: &[Entry]) -> Result<u64, LogError> {
        let mut expected = self.last_index().next();
        let mut last = self.last_term;
        let mut needed = 0;
        for entry in entries {
            let (index, found) = (entry.index, entry.term);
            if index != expected {
                return Err(LogError::NotContiguous { expected, found: index });
            }
            if found < last {
                return Err(LogError::TermWentBack { index, last, found });
            }
            let (frame_bytes, records) = frame::measure(entry);
            let is_data = matches!(entry.payload, EntryPayload::Data(_));
            if is_data && records == 0 {
                return Err(LogError::EmptyEntry { index });
            }
            let frame_bytes_max = self.options.frame_bytes_max;
            if frame_bytes > frame_bytes_max || records > u64::from(u32::MAX) {
                return Err(LogError::EntryTooLarge { frame_bytes, frame_bytes_max });
            }
            (expected, last) = (index.next(), found);
            needed += frame_bytes;
        }
        Ok(needed)
    }

    fn append_runs(&mut self, entries: &[Entry], out: &mut Appended) -> Result<(), LogError> {
        let mut rest = entries;
        while let Some(first) = rest.first() {
            if self.is_full_for(first, self.active.segment.extent()) || self.is_aged() {
                self.roll()?;
            }
            let count = self.encode_run(rest);
            self.write_run(out)?;
            self.last_term = rest[count - 1].term;
            rest = &rest[count..];
        }
        Ok(())
    }

    /// True when an entry has to go to another segment. One without records takes what comes:
    /// a new one would begin at the same offset, and have the same name.
    fn is_full_for(&self, entry: &Entry, extent: Extent) -> bool {
        let (frame_bytes, records) = frame::measure(entry);
        let relative_end = extent.next.0 + records - self.active.segment.base.0;
        extent.next > self.active.segment.base
            && (extent.bytes + frame_bytes > self.options.segment_bytes_max
                || extent.entries >= u64::from(self.options.segment_entries_max)
                || relative_end > u64::from(u32::MAX))
    }

    /// True when the active segment holds records and is older than it may get.
    pub(super) fn is_aged(&self) -> bool {
        let age_ms = self.clock.wall().0.saturating_sub(self.active.since.0);
        let holds_records = self.next_offset() > self.active.segment.base;
        let too_old = |max: std::time::Duration| i128::from(age_ms) >= max.as_millis() as i128;
        holds_records && self.options.segment_age_max.is_some_and(too_old)
    }

    /// Encodes as many entries as fit the active segment, at least one.
    fn encode_run(&mut self, entries: &[Entry]) -> usize {
        self.encoder.clear();
        let durable = self.durable.index;
        let mut extent = self.active.segment.extent();
        let mut count = 0;
        for entry in entries {
            if count > 0 && self.is_full_for(entry, extent) {
                break;
            }
            self.encoder.push(entry, extent.next, durable);
            let (frame_bytes, records) = frame::measure(entry);
            extent.bytes += frame_bytes;
            extent.entries += 1;
            extent.next = extent.next.plus(records);
            count += 1;
        }
        count
    }

    /// Writes the encoded run behind the active segment's frames, and shows it to readers.
    fn write_run(&mut self, out: &mut Appended) -> Result<(), LogError> {
        let segment = self.active.segment.clone();
        let mut extent = segment.extent();
        let frames = self.encoder.frames();
        // Before the write: with the index's blocks reserved, nothing behind it can fail.
        let wanted = extent.entries + frames.len() as u64;
        segment
            .index
            .reserve(wanted)
            .map_err(|source| self.failed("growth", &segment.index.path, source))?;
        self.write_parts(&segment, extent.bytes)?;
        let times = segment.times().expect("the active segment's times are in memory");
        for frame in self.encoder.frames() {
            let relative = (frame.base.0 - segment.base.0) as u32;
            segment
                .index
                .set(extent.entries, IndexEntry { relative, position_bytes: extent.bytes });
            extent.entries += 1;
            extent.bytes += frame.frame_bytes;
            extent.next = frame.base.plus(u64::from(frame.records));
            if let Some(newest) = frame.max_timestamp {
                let relative_next = (extent.next.0 - segment.base.0) as u32;
                times.note(newest, relative_next, extent.bytes);
            }
            let (index, base, records) = (frame.index, frame.base, frame.records);
            out.placed.push(Placed { index, base, records });
        }
        out.bytes += self.encoder.bytes();
        segment.publish(extent);
        Ok(())
    }

    /// One vectored write of the run, and of zeros ahead of the next where that pays. When the
    /// disk is full the file is cut to where it was.
    fn write_parts(&mut self, segment: &Segment, position: u64) -> Result<(), LogError> {
        let bytes = self.encoder.bytes();
        let end = position + bytes;
        let ahead = self.zeros_for(end, bytes);
        let mut parts = self.encoder.parts();
        let frames = parts.len();
        parts.extend(zeros::parts(ahead));
        let mut outcome = segment.store.write_at(&parts, position);
        let mut zeroed = end + ahead;
        if ahead > 0 && outcome.as_ref().is_err_and(is_full) {
            // The zeros are a comfort: try without.
            outcome = segment.store.write_at(&parts[..frames], position);
            zeroed = end;
        }
        if let Err(source) = outcome {
            if is_full(&source) && !commits(Sin::LeaveHalfAWrite) {
                // What was half written must not be found behind later, shorter frames.
                segment
                    .store
                    .set_len(position)
                    .map_err(|source| write_failed("cut", &segment.path, source))?;
                self.active.zeroed_bytes = position;
            }
            return Err(self.failed("write", &segment.path, source));
        }
        self.active.zeroed_bytes = self.active.zeroed_bytes.max(zeroed);
        if ahead > 0 {
            self.active.zero_step_bytes =
                (self.active.zero_step_bytes * 4).min(self.options.zero_ahead_bytes);
        }
        Ok(())
    }

    /// How many zeros to write behind a write that ends at `end`.
    fn zeros_for(&self, end: u64, bytes: u64) -> u64 {
        let small = bytes < self.options.zero_ahead_below_bytes;
        if !small || end <= self.active.zeroed_bytes {
            return 0;
        }
        let step = self.active.zero_step_bytes.min(self.options.zero_ahead_bytes);
        step.min(self.options.segment_bytes_max.saturating_sub(end))
    }

    /// Syncs the active store and moves the durable mark.
    pub(super) fn sync_active(&mut self) -> Result<(), LogError> {
        let mark = self.active.mark();
        let segment = &self.active.segment;
        segment.store.sync_data().map_err(|source| sync_failed(&segment.path, source))?;
        self.durable = mark;
        Ok(())
    }

    /// Writes the checkpoint file for the durable mark.
    pub(super) fn write_checkpoint(&mut self, clean: bool) -> Result<(), LogError> {
        let segment = &self.active.segment;
        let same = self.durable.base == segment.base;
        if same {
            // Recovery begins behind the mark only when the index before it is on disk.
            segment.index.sync().map_err(|source| sync_failed(&segment.index.path, source))?;
        }
        let relative_end = self.durable.next.0.saturating_sub(segment.base.0);
        let times = segment.times().filter(|_| same).map(|times| times.encode(relative_end));
        let checkpoint = Checkpoint {
            mark: self.durable,
            log_start: self.log_start(),
            first_index: self.first_index(),
            previous_term: self.previous_term,
            segment_since: self.active.since,
            identity: self.identity(),
            clean,
            begins_anew: false,
            times: times.unwrap_or_default(),
        };
        if checkpoint != self.persisted {
            checkpoint.write(self.disk.as_ref(), &self.directory)?;
            self.persisted = checkpoint;
        }
        Ok(())
    }

    /// The error for a failed call that may have met a full disk.
    pub(super) fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> LogError {
        if !is_full(&source) {
            return write_failed(action, path, source);
        }
        LogError::DiskFull {
            needed_bytes: self.encoder.bytes(),
            free_bytes: self.disk.free_bytes(&self.directory).unwrap_or(0),
            reserve_bytes: self.options.reserve_free_bytes,
        }
    }
}

pub(super) fn write_failed(action: &'static str, path: &Path, source: io::Error) -> LogError {
    LogError::WriteFailed { action, file: path.display().to_string(), source }
}

pub(super) fn sync_failed(path: &Path, source: io::Error) -> LogError {
    LogError::SyncFailed { file: path.display().to_string(), source }
}
