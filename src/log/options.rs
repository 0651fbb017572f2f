//! The log's settings as one value that is checked once, before a file is touched.

use super::batch::BatchLimits;
use super::error::LogError;
use std::time::Duration;

/// Bytes of one index entry.
pub(super) const INDEX_ENTRY_BYTES: usize = 12;

/// How a log is laid out and bounded. Settings change between two opens without harm.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment's store is closed before it exceeds this. Default: 256 MiB. Minimum: 4 KiB.
    pub segment_bytes_max: u64,
    /// A segment that holds records is closed at this age. Default: none.
    pub segment_age_max: Option<Duration>,
    /// A segment is closed at this many Raft entries. Default: 4 Mi. Minimum: 1.
    pub segment_entries_max: u32,
    /// The index is first reserved for this many entries (12 bytes each), then doubled.
    /// Default: 4096 (48 KiB). Minimum: 1.
    pub index_entries_step: u32,
    /// Limits of a record batch.
    pub batch: BatchLimits,
    /// The largest frame (one Raft entry, all its batches). Default: 32 MiB. At most
    /// `segment_bytes_max`; [`LogOptions::validate`] says so.
    pub frame_bytes_max: u64,
    /// Oldest sealed segments go while the log is larger. Default: none.
    pub retention_bytes_max: Option<u64>,
    /// Sealed segments go when their newest record is older. Default: none.
    pub retention_age_max: Option<Duration>,
    /// Zeros are written ahead of small writes in steps of at most this. Steps begin at 64 KiB
    /// and grow fourfold. Default: 1 MiB; 0 turns it off.
    pub zero_ahead_bytes: u64,
    /// Appends below this many bytes go to blocks zeroed ahead (one sync without a metadata
    /// change); larger ones extend the file. Default: 48 KiB.
    pub zero_ahead_below_bytes: u64,
    /// Appends are refused while less than this would stay free, so that checkpoints, votes and
    /// deletions still work. Default: 16 MiB.
    pub reserve_free_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes_max: 256 << 20,
            segment_age_max: None,
            segment_entries_max: 4 << 20,
            index_entries_step: 4096,
            batch: BatchLimits::default(),
            frame_bytes_max: 32 << 20,
            retention_bytes_max: None,
            retention_age_max: None,
            zero_ahead_bytes: 1 << 20,
            zero_ahead_below_bytes: 48 << 10,
            reserve_free_bytes: 16 << 20,
        }
    }
}

impl LogOptions {
    /// Checks every field against its limits and against each other.
    ///
    /// # Errors
    /// [`LogError::InvalidOption`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), LogError> {
        let refuse = |field, reason: String| Err(LogError::InvalidOption { field, reason });
        if self.segment_bytes_max < 4 << 10 {
            return refuse("segment_bytes_max", "at least 4096 bytes".into());
        }
        if self.segment_entries_max == 0 {
            return refuse("segment_entries_max", "at least 1 entry".into());
        }
        if self.index_entries_step == 0 || self.index_entries_step > 1 << 20 {
            return refuse("index_entries_step", "between 1 and 1048576 entries".into());
        }
        if self.frame_bytes_max > self.segment_bytes_max {
            let most = self.segment_bytes_max;
            return refuse("frame_bytes_max", format!("at most segment_bytes_max ({most})"));
        }
        if self.frame_bytes_max > 1 << 30 {
            return refuse("frame_bytes_max", "at most 1 GiB".into());
        }
        if self.zero_ahead_bytes > 1 << 20 {
            return refuse("zero_ahead_bytes", "at most 1 MiB, so that no append stalls".into());
        }
        Ok(())
    }
}
