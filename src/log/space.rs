//! Free space, asked for seldom: the figure is spent from memory and refreshed each few MiB.

use super::disk::Disk;
use super::error::LogError;
use std::path::Path;

/// How much is written on one answer of the file system.
const REFRESH_BYTES: u64 = 8 << 20;

/// A budget of bytes that surely fit.
#[derive(Debug, Default)]
pub(super) struct Space {
    budget_bytes: u64,
}

impl Space {
    /// Takes `needed_bytes` from the budget, or says that the disk is full.
    ///
    /// # Errors
    /// [`LogError::DiskFull`], [`LogError::ReadFailed`] when the file system does not answer.
    pub fn admit(
        &mut self,
        disk: &dyn Disk,
        directory: &Path,
        needed_bytes: u64,
        reserve_bytes: u64,
    ) -> Result<(), LogError> {
        if self.budget_bytes >= needed_bytes {
            self.budget_bytes -= needed_bytes;
            return Ok(());
        }
        let free_bytes = disk.free_bytes(directory).map_err(|source| LogError::ReadFailed {
            file: directory.display().to_string(),
            position_bytes: 0,
            source,
        })?;
        let usable = free_bytes.saturating_sub(reserve_bytes);
        if usable < needed_bytes {
            self.budget_bytes = 0;
            return Err(LogError::DiskFull { needed_bytes, free_bytes, reserve_bytes });
        }
        self.budget_bytes = (usable - needed_bytes).min(REFRESH_BYTES);
        Ok(())
    }

    /// Asks the file system again before the next write.
    pub fn forget(&mut self) {
        self.budget_bytes = 0;
    }
}
