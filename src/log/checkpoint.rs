//! The checkpoint: what was durable, written down lazily. It narrows the scan at start-up, tells
//! damage below it from a torn tail, and keeps the log's start from going back.

use super::disk::Disk;
use super::error::LogError;
use super::stable;
use crate::model::{Offset, RaftIndex, Term, Timestamp};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"DRcp";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 96;

/// A place between two frames that a sync has covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The segment.
    pub base: Offset,
    /// Where its next frame begins.
    pub position_bytes: u64,
    /// Raft entries before that in the segment.
    pub entries: u64,
    /// The last entry covered.
    pub index: RaftIndex,
    /// The offset behind the last record covered.
    pub next: Offset,
}

/// The checkpoint file's content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Checkpoint {
    pub mark: Mark,
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The first Raft entry present.
    pub first_index: RaftIndex,
    /// The term of the entry before it.
    pub previous_term: Term,
    /// When the mark's segment was begun.
    pub segment_since: Timestamp,
    /// The log's identity; see the frame header.
    pub identity: u32,
    /// True when the log was closed in order behind the mark.
    pub clean: bool,
    /// True while the log begins anew: whatever segments are there belong to what it was before.
    pub begins_anew: bool,
    /// The time index of the mark's segment up to the mark.
    pub times: Vec<u8>,
}

impl Checkpoint {
    pub fn path(directory: &Path) -> PathBuf {
        directory.join("checkpoint")
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.times.len());
        let fields = [
            self.mark.base.0,
            self.mark.position_bytes,
            self.mark.entries,
            self.mark.index.0,
            self.mark.next.0,
            self.log_start.0,
            self.first_index.0,
            self.previous_term.0,
            self.segment_since.0 as u64,
            u64::from(self.identity),
            u64::from(self.clean) | u64::from(self.begins_anew) << 1,
            self.times.len() as u64,
        ];
        for field in fields {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes.extend_from_slice(&self.times);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, times) = bytes.split_at_checked(FIXED_BYTES)?;
        let field = |number: usize| {
            u64::from_be_bytes(fixed[number * 8..][..8].try_into().expect("8 of 96 bytes"))
        };
        let checkpoint = Self {
            mark: Mark {
                base: Offset(field(0)),
                position_bytes: field(1),
                entries: field(2),
                index: RaftIndex(field(3)),
                next: Offset(field(4)),
            },
            log_start: Offset(field(5)),
            first_index: RaftIndex(field(6)),
            previous_term: Term(field(7)),
            segment_since: Timestamp(field(8) as i64),
            identity: field(9) as u32,
            clean: field(10) == 1,
            begins_anew: field(10) == 2,
            times: times.to_vec(),
        };
        // The checksum holds for damage, not for whoever wrote it: sums of two must not wrap.
        let are_possible =
            [0, 1, 2, 3, 4, 5, 6, 7].map(field).iter().all(|n| *n <= i64::MAX as u64)
                && checkpoint.first_index > RaftIndex(0);
        let fits = field(10) <= 2 && field(11) == times.len() as u64;
        (fits && are_possible).then_some(checkpoint)
    }

    /// Replaces the checkpoint file. Blocks.
    pub fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
        stable::write(disk, &Self::path(directory), MAGIC, VERSION, &self.encode())
    }

    /// Reads the checkpoint file; `None` when there is none.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>, LogError> {
        let path = Self::path(directory);
        let content = match stable::read(disk, &path, MAGIC, VERSION) {
            Ok((_, content)) => content,
            Err(LogError::FileMissing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Self::decode(&content).map(Some).ok_or_else(|| LogError::FileDamaged {
            file: path.display().to_string(),
            reason: "its fields do not fit together".into(),
        })
    }
}
