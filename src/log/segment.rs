//! One segment as readers and the writer share it: files, and how much of them is published.
//!
//! Invariant: the writer fills store and index first and raises `entries` last (release); a
//! reader loads `entries` first (acquire), so that whatever it then finds is there.

use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::frame::{FrameHeader, HEADER_BYTES};
use super::index::{Entries, Index, IndexEntry};
use super::time_index::TimeIndex;
use crate::model::{Offset, RaftIndex};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Which of a segment's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Store,
    Index,
    Time,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Index, Self::Time, Self::Store];

    fn extension(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Index => "index",
            Self::Time => "time",
        }
    }

    /// The name of this file for a segment that begins at `base`.
    pub fn name(self, base: Offset) -> String {
        format!("{:020}.{}", base.0, self.extension())
    }

    pub fn path(self, directory: &Path, base: Offset) -> PathBuf {
        directory.join(self.name(base))
    }

    /// Reads a name back; `None` for files that are no segment's.
    pub fn parse(name: &str) -> Option<(Self, Offset)> {
        let (digits, extension) = name.split_once('.')?;
        if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let part = Self::ALL.into_iter().find(|part| part.extension() == extension)?;
        Some((part, Offset(digits.parse().ok()?)))
    }
}

/// Magic and version of a `.time` file.
pub(super) const TIME_MAGIC: [u8; 4] = *b"DRtx";
pub(super) const TIME_VERSION: u32 = 1;

/// A store file with its path.
pub(super) type StoreFile = (PathBuf, Arc<dyn DiskFile>);

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    pub base: Offset,
    pub first_index: RaftIndex,
    pub path: PathBuf,
    pub store: Arc<dyn DiskFile>,
    pub index: Index,
    /// Loaded when first needed; there from the start while the segment is written.
    times: OnceLock<TimeIndex>,
    /// Set by a reader that found the index pointing at the wrong place.
    pub suspect: AtomicBool,
    entries: AtomicU64,
    bytes: AtomicU64,
    next: AtomicU64,
}

/// How much of a segment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub entries: u64,
    pub bytes: u64,
    pub next: Offset,
}

impl Segment {
    pub fn new(
        base: Offset,
        first_index: RaftIndex,
        store: StoreFile,
        index: Index,
        times: Option<TimeIndex>,
        extent: Extent,
    ) -> Self {
        let cell = OnceLock::new();
        if let Some(times) = times {
            cell.get_or_init(|| times);
        }
        Self {
            base,
            first_index,
            path: store.0,
            store: store.1,
            index,
            times: cell,
            suspect: AtomicBool::new(false),
            entries: AtomicU64::new(extent.entries),
            bytes: AtomicU64::new(extent.bytes),
            next: AtomicU64::new(extent.next.0),
        }
    }

    /// What is published. Fields other than `entries` may be newer than it.
    pub fn extent(&self) -> Extent {
        let entries = self.entries.load(Ordering::Acquire);
        let bytes = self.bytes.load(Ordering::Acquire);
        Extent { entries, bytes, next: Offset(self.next.load(Ordering::Acquire)) }
    }

    /// Shows readers a longer segment.
    pub fn publish(&self, extent: Extent) {
        self.bytes.store(extent.bytes, Ordering::Release);
        self.next.store(extent.next.0, Ordering::Release);
        self.entries.store(extent.entries, Ordering::Release);
    }

    /// The index as published.
    pub fn entries(&self) -> Entries {
        let count = self.entries.load(Ordering::Acquire);
        self.index.entries(count)
    }

    /// The last published Raft entry; one below the first when there is none.
    pub fn last_index(&self) -> RaftIndex {
        RaftIndex(self.first_index.0 + self.extent().entries - 1)
    }

    /// The time index, when it is in memory.
    pub fn times(&self) -> Option<&TimeIndex> {
        self.times.get()
    }

    /// Keeps a time index that was loaded or rebuilt; the first one stays.
    pub fn keep_times(&self, times: TimeIndex) -> &TimeIndex {
        self.times.get_or_init(|| times)
    }

    /// Where a frame is, if the index is right.
    pub fn place(&self, number: u64) -> IndexEntry {
        self.entries().get(number)
    }

    /// Reads the header of the frame at `position_bytes`.
    pub fn header_at(&self, position_bytes: u64) -> Result<FrameHeader, LogError> {
        let mut bytes = [0; HEADER_BYTES];
        if position_bytes + HEADER_BYTES as u64 > self.extent().bytes {
            return Err(self.corrupt(position_bytes, "no frame fits here"));
        }
        self.store
            .read_at(&mut bytes, position_bytes)
            .map_err(|source| self.read_failed(position_bytes, source))?;
        FrameHeader::parse(&bytes).map_err(|fault| self.corrupt(position_bytes, fault))
    }

    /// Finds a frame by walking headers from the segment's start: slow, but the index may lie.
    /// `wanted` says yes to the frame looked for, given its number and position.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] at the first frame that is not what must follow.
    pub fn walk(
        &self,
        mut wanted: impl FnMut(u64, u64, &FrameHeader) -> bool,
    ) -> Result<Option<(u64, u64, FrameHeader)>, LogError> {
        let extent = self.extent();
        let (mut position, mut next) = (0, self.base);
        for number in 0..extent.entries {
            let header = self.header_at(position)?;
            let follows = header.index.0 == self.first_index.0 + number && header.base == next;
            if !follows || header.frame_bytes > extent.bytes - position {
                return Err(self.corrupt(position, "a frame of another place"));
            }
            if wanted(number, position, &header) {
                return Ok(Some((number, position, header)));
            }
            position += header.frame_bytes;
            next = header.next_offset();
        }
        Ok(None)
    }

    pub fn corrupt(&self, position_bytes: u64, reason: impl ToString) -> LogError {
        let file = self.path.display().to_string();
        LogError::Corrupt { file, position_bytes, reason: reason.to_string() }
    }

    pub fn read_failed(&self, position_bytes: u64, source: io::Error) -> LogError {
        // The published part of a store never ends early unless the file was cut behind our back.
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return self.corrupt(position_bytes, "the file ends early");
        }
        LogError::ReadFailed { file: self.path.display().to_string(), position_bytes, source }
    }

    /// Removes the segment's names. Open handles go on reading.
    pub fn remove_files(disk: &dyn Disk, directory: &Path, base: Offset) -> io::Result<()> {
        for part in Part::ALL {
            let path = part.path(directory, base);
            if disk.exists(&path)? {
                disk.remove(&path)?;
            }
        }
        Ok(())
    }
}
