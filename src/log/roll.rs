//! Beginning a segment and closing one.
//!
//! Order at a roll: sync the old store, create the new files, sync the directory, and only then
//! trim the old ones and write on. So a segment that others follow is known to have been synced,
//! and a crash between any two steps leaves a log that recovery can read.

use super::commit_log::{Active, Log, sync_failed, write_failed};
use super::disk::Disk;
use super::error::{LogError, is_full};
use super::index::Index;
use super::options::{INDEX_ENTRY_BYTES, LogOptions};
use super::segment::{Extent, Part, Segment, StoreFile, TIME_MAGIC, TIME_VERSION};
use super::spare::Spare;
use super::stable;
use super::time_index::TimeIndex;
use crate::model::{Offset, RaftIndex, Timestamp};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What file systems commonly give out at least.
const BLOCK_BYTES: u64 = 4096;

/// Where a segment begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub base: Offset,
    pub first_index: RaftIndex,
    pub since: Timestamp,
}

impl Log {
    /// Closes the active segment and begins the next.
    ///
    /// # Errors
    /// [`LogError::DiskFull`]: the active segment stays, and its frames are synced. After others
    /// the caller poisons the log.
    pub(super) fn roll(&mut self) -> Result<(), LogError> {
        let index_bytes = u64::from(self.options.index_entries_step) * INDEX_ENTRY_BYTES as u64;
        let needed = index_bytes.next_multiple_of(BLOCK_BYTES) + 2 * BLOCK_BYTES;
        let reserve = self.options.reserve_free_bytes;
        self.space.admit(self.disk.as_ref(), &self.directory, needed, reserve)?;
        self.sync_active()?;
        let old = self.active.segment.clone();
        let since = self.clock.wall();
        let start =
            Start { base: self.next_offset(), first_index: self.last_index().next(), since };
        let spare = self.spare.take_if(|spare| spare.is_ready());
        let disk = self.disk.clone();
        let active = match create(disk.as_ref(), &self.directory, &self.options, start, spare) {
            Ok(active) => active,
            Err(error) => {
                let path = Part::Store.path(&self.directory, start.base);
                if is_full(&error) {
                    // The new names must be gone for good before the old segment grows on: a
                    // segment that is followed by another must not.
                    Segment::remove_files(disk.as_ref(), &self.directory, start.base)
                        .map_err(|source| write_failed("removal", &path, source))?;
                    disk.sync_dir(&self.directory)
                        .map_err(|source| sync_failed(&self.directory, source))?;
                }
                return Err(self.failed("creation", &path, error));
            }
        };
        self.seal(&old)?;
        let mut segments = self.view.segments.load_full().to_vec();
        segments.push(active.segment.clone());
        self.view.segments.store(Arc::new(segments));
        self.active = active;
        self.durable = self.active.mark();
        Ok(())
    }

    /// Trims a closed segment's files to their content. A full disk does not matter here: what
    /// is not trimmed or written is read more slowly at the next start.
    fn seal(&self, old: &Segment) -> Result<(), LogError> {
        let extent = old.extent();
        let tolerate = |outcome: io::Result<()>| match outcome {
            Err(error) if is_full(&error) => Ok(()),
            other => other,
        };
        tolerate(old.index.seal(extent.entries))
            .map_err(|source| write_failed("trim", &old.index.path, source))?;
        tolerate(old.store.set_len(extent.bytes))
            .map_err(|source| write_failed("trim", &old.path, source))?;
        let path = Part::Time.path(&self.directory, old.base);
        let times = old.times().expect("the active segment's times are in memory");
        let content = times.encode(extent.next.0 - old.base.0);
        tolerate(self.write_time_file(&path, &content))
            .map_err(|source| write_failed("write", &path, source))?;
        old.store.sync_data().map_err(|source| sync_failed(&old.path, source))
    }

    /// Not replaced by a rename: a torn one fails its checksum and is rebuilt.
    fn write_time_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if self.disk.exists(path)? {
            self.disk.remove(path)?;
        }
        let file = self.disk.create_new(path)?;
        file.write_at(&[&stable::encode(TIME_MAGIC, TIME_VERSION, content)], 0)
    }
}

/// Creates a segment's files, durably.
pub(super) fn create(
    disk: &dyn Disk,
    directory: &Path,
    options: &LogOptions,
    start: Start,
    spare: Option<Spare>,
) -> io::Result<Active> {
    let path = Part::Store.path(directory, start.base);
    let (file, zeroed_bytes) = match spare {
        Some(spare) => spare.become_store(disk, directory, &path)?,
        None => (disk.create_new(&path)?, 0),
    };
    let index_path = Part::Index.path(directory, start.base);
    let index_file = disk.create_new(&index_path)?;
    let entries = u64::from(options.index_entries_step);
    let index = Index::reserve_and_map(index_path, index_file, entries)?;
    disk.sync_dir(directory)?;
    let extent = Extent { entries: 0, bytes: 0, next: start.base };
    let times = TimeIndex::new(options.segment_bytes_max);
    let store: StoreFile = (path, file);
    let segment = Segment::new(start.base, start.first_index, store, index, Some(times), extent);
    Ok(Active::new(Arc::new(segment), zeroed_bytes, start.since))
}
