//! The table on disk, beside the log: up to which entry it holds, and what. A start then goes through
//! the entries behind that only.
//!
//! Beginning anew behind a snapshot is: the snapshot's table by [`save_ahead`], under a name of its
//! own, then [`super::super::Log::reset`], which renames it when the log's turn is durable, or has
//! recovery do so. A table of an entry that the log does not reach back to, or not up to, counts for
//! nothing.

use super::codec::ProducersError;
use super::table::ProducerTable;
use crate::log::disk::Disk;
use crate::log::error::LogError;
use crate::log::stable;
use crate::model::RaftIndex;
use bytes::{Buf, BufMut};
use std::path::Path;

const MAGIC: [u8; 4] = *b"DPRD";
const VERSION: u32 = 1;
const NAME: &str = "producers";
/// The table of a snapshot that the log is not behind yet.
pub(in crate::log) const AHEAD: &str = "producers.ahead";

/// Replaces the table that a start begins from: all entries up to `upto` are applied to it, and
/// none that is not committed. Blocks; durable when it returns.
///
/// # Errors
/// As [`stable::write`]. The table that was there stands, or the new one.
pub fn save(
    disk: &dyn Disk,
    directory: &Path,
    upto: RaftIndex,
    table: &ProducerTable,
) -> Result<(), LogError> {
    write(disk, &directory.join(NAME), upto, table)
}

/// Saves the table of a snapshot, each time before the log is made to begin behind `upto`. Until it
/// is, this changes nothing. Blocks; durable when it returns.
///
/// # Errors
/// As [`stable::write`]; the log must not be reset then.
pub fn save_ahead(
    disk: &dyn Disk,
    directory: &Path,
    upto: RaftIndex,
    table: &ProducerTable,
) -> Result<(), LogError> {
    write(disk, &directory.join(AHEAD), upto, table)
}

/// The table that was saved for the log as it is: the entry up to which it holds, and the
/// table. The caller applies the entries behind that. An empty one, from the log's start, where
/// there is none. Blocks; changes nothing.
///
/// # Arguments
/// - `first`, `last`: the log's first and last entry, as [`super::super::Recovered`] tells them.
///
/// # Errors
/// [`LogError::ProducersDamaged`], [`LogError::UnknownVersion`], [`LogError::ReadFailed`].
pub fn load(
    disk: &dyn Disk,
    directory: &Path,
    first: RaftIndex,
    last: RaftIndex,
) -> Result<(RaftIndex, ProducerTable), LogError> {
    let before_first = RaftIndex(first.0.saturating_sub(1));
    let saved = read(disk, &directory.join(NAME))?;
    let fits = saved.filter(|(upto, _)| (before_first..=last).contains(upto));
    Ok(fits.unwrap_or_else(|| (before_first, ProducerTable::default())))
}

/// Makes the table saved ahead the log's, for a log that begins anew; may have been done before. The
/// caller makes the name durable.
pub(in crate::log) fn take_turn(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
    let ahead = directory.join(AHEAD);
    let rename = || match disk.exists(&ahead)? {
        true => disk.rename(&ahead, &directory.join(NAME)),
        false => Ok(()),
    };
    rename().map_err(|source| LogError::WriteFailed {
        action: "rename",
        file: ahead.display().to_string(),
        source,
    })
}

fn write(
    disk: &dyn Disk,
    path: &Path,
    upto: RaftIndex,
    table: &ProducerTable,
) -> Result<(), LogError> {
    let mut content = Vec::new();
    content.put_u64(upto.0);
    content.put_slice(&table.encode());
    stable::write(disk, path, MAGIC, VERSION, &content)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<(RaftIndex, ProducerTable)>, LogError> {
    let is_damaged = |reason: String| {
        let file = path.display().to_string();
        LogError::ProducersDamaged { file, reason }
    };
    let content = match stable::read(disk, path, MAGIC, VERSION) {
        Ok((_, content)) => content,
        Err(LogError::FileMissing { .. }) => return Ok(None),
        Err(LogError::FileDamaged { reason, .. }) => return Err(is_damaged(reason)),
        Err(error) => return Err(error),
    };
    let decode = |mut content: &[u8]| {
        let upto = RaftIndex(content.try_get_u64()?);
        Ok((upto, ProducerTable::decode(content)?))
    };
    decode(&content).map(Some).map_err(|error: ProducersError| is_damaged(error.to_string()))
}
