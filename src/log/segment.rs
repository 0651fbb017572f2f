//! One segment as readers and the writer share it: files, and how much of them is published.
//!
//! Invariant: the writer fills store and index first and publishes its extent last; a reader loads
//! the extent first, so that whatever it then finds is there.

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
    published: Published,
}

/// An extent that one writer replaces and readers see as a whole, none waiting for another. The
/// writer fills the half that no reader was sent to; a reader that was overtaken looks again.
#[derive(Debug)]
struct Published {
    turn: AtomicU64,
    halves: [[AtomicU64; 3]; 2],
}

impl Published {
    fn new(extent: Extent) -> Self {
        let published = Self { turn: AtomicU64::new(0), halves: Default::default() };
        published.store(extent);
        published
    }

    fn load(&self) -> Extent {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            // Acquire keeps the second look at the turn behind these.
            let half = &self.halves[(turn % 2) as usize];
            let [entries, bytes, next] = half.each_ref().map(|word| word.load(Ordering::Acquire));
            if self.turn.load(Ordering::Acquire) == turn {
                return Extent { entries, bytes, next: Offset(next) };
            }
        }
    }

    fn store(&self, extent: Extent) {
        let turn = self.turn.load(Ordering::Relaxed) + 1;
        let words = [extent.entries, extent.bytes, extent.next.0];
        for (word, value) in self.halves[(turn % 2) as usize].iter().zip(words) {
            word.store(value, Ordering::Release);
        }
        self.turn.store(turn, Ordering::Release);
    }
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
            published: Published::new(extent),
        }
    }

    /// What is published.
    pub fn extent(&self) -> Extent {
        self.published.load()
    }

    /// Shows readers a longer segment. For its one writer.
    pub fn publish(&self, extent: Extent) {
        self.published.store(extent);
    }

    /// The index as published.
    pub fn entries(&self) -> Entries {
        self.index.entries(self.extent().entries)
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
