//! What can go wrong in the commit log, told with the facts that a person on call needs.

use super::batch::BatchError;
use crate::model::{Disposition, Offset, RaftIndex, Term};
use std::io;

/// Every way in which the commit log can refuse or fail.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant names its fields")]
pub enum LogError {
    /// A read below the start or above the end.
    #[error("offset {offset} is outside the log [{start}, {next})")]
    OffsetOutOfRange { offset: Offset, start: Offset, next: Offset },
    /// A truncation or an entry read outside of what the log holds.
    #[error("raft index {index} is outside the log [{first}, {last}]")]
    IndexOutOfRange { index: RaftIndex, first: RaftIndex, last: RaftIndex },
    /// An append that would leave a gap or overwrite.
    #[error("entry has raft index {found}, but the log goes on at {expected}")]
    NotContiguous { expected: RaftIndex, found: RaftIndex },
    /// An append whose term is older than the log's last.
    #[error("entry {index} has term {found}, older than the log's last term {last}")]
    TermWentBack { index: RaftIndex, last: Term, found: Term },
    /// A data entry without a record batch.
    #[error("entry {index} holds no record batch")]
    EmptyEntry { index: RaftIndex },
    /// An entry larger than a frame may be.
    #[error(
        "entry of {frame_bytes} bytes exceeds the limit of {frame_bytes_max}; split the batch or raise the limit"
    )]
    EntryTooLarge { frame_bytes: u64, frame_bytes_max: u64 },
    /// Options that contradict each other or a fixed limit.
    #[error("option {field} is out of range: {reason}")]
    InvalidOption { field: &'static str, reason: String },
    /// Not enough free space. Nothing was written; reads go on; appends resume with the space.
    #[error(
        "disk full: {needed_bytes} bytes needed, {free_bytes} free, {reserve_bytes} kept in reserve; free some space, no restart is needed"
    )]
    DiskFull { needed_bytes: u64, free_bytes: u64, reserve_bytes: u64 },
    /// A sync failed. What the disk holds since the last good sync is unknown: no retry.
    #[error("sync of {file} failed; what the disk holds is unknown until the log is recovered")]
    SyncFailed { file: String, source: io::Error },
    /// A write, a create, a rename or a removal failed for another reason than a full disk.
    #[error("{action} of {file} failed")]
    WriteFailed { action: &'static str, file: String, source: io::Error },
    /// The disk answered a read with an error.
    #[error("read of {file} at byte {position_bytes} failed")]
    ReadFailed { file: String, position_bytes: u64, source: io::Error },
    /// Bytes that were synced once are not what was written. Nothing on disk was changed.
    #[error(
        "{file} is corrupt at byte {position_bytes}: {reason}; nothing was changed, `duramen segment verify` shows more"
    )]
    Corrupt { file: String, position_bytes: u64, reason: String },
    /// The file was written by a version of the format that this program does not know.
    #[error(
        "{file} has format version {found}, this program reads up to {supported}; use a newer duramen"
    )]
    UnknownVersion { file: String, found: u32, supported: u32 },
    /// A small file that must exist does not.
    #[error("{file} does not exist")]
    FileMissing { file: String },
    /// A small file's content does not match its checksum or length.
    #[error("{file} is damaged: {reason}; restore it from a copy")]
    FileDamaged { file: String, reason: String },
    /// The file of producers does not match its checksum, or its content makes no sense.
    #[error(
        "{file} is damaged: {reason}; restore it from a copy, or remove it: then producers that were sending are refused as unknown until they begin again"
    )]
    ProducersDamaged { file: String, reason: String },
    /// An earlier write or sync failed: this log takes no more calls that change it.
    #[error("the log is closed to writes since an earlier failure: {cause}")]
    Poisoned { cause: String },
    /// A stored record batch that passed its checksum cannot be decoded.
    #[error("record batch at offset {offset} cannot be decoded")]
    Undecodable { offset: Offset, source: BatchError },
}

impl LogError {
    /// Who must act. No `_` arm: a new variant must take a side before it compiles.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::OffsetOutOfRange { .. }
            | Self::IndexOutOfRange { .. }
            | Self::EmptyEntry { .. }
            | Self::EntryTooLarge { .. }
            | Self::InvalidOption { .. }
            | Self::DiskFull { .. }
            | Self::Undecodable { .. }
            // One bad sector must not take the healthy rest of the partition from its readers.
            | Self::ReadFailed { .. } => Disposition::TellCaller,
            // The owner and the log disagree on where the log ends: only recovery can tell.
            Self::NotContiguous { .. } | Self::TermWentBack { .. } => Disposition::RebuildActor,
            // A restart would retry a sync that may then lie, or hide damage.
            Self::SyncFailed { .. }
            | Self::WriteFailed { .. }
            | Self::Corrupt { .. }
            | Self::UnknownVersion { .. }
            | Self::FileMissing { .. }
            | Self::FileDamaged { .. }
            | Self::ProducersDamaged { .. }
            | Self::Poisoned { .. } => Disposition::Quarantine,
        }
    }

    /// True for the one failure that passes when space returns.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}

/// True when an operation failed because the disk, or this user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
