//! A spare store of zeros, written while the node is idle: a segment that begins in it costs no
//! block allocation, so bulk appends run at the speed of overwriting.

use super::disk::{Disk, DiskFile};
use super::zeros;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The spare's name in the log's directory, until a segment takes it over.
pub(super) const NAME: &str = "spare.store";

/// A file that is zero up to `zeroed_bytes`.
#[derive(Debug)]
pub(super) struct Spare {
    file: Arc<dyn DiskFile>,
    zeroed_bytes: u64,
    synced: bool,
}

impl Spare {
    pub fn create(disk: &dyn Disk, directory: &Path) -> io::Result<Self> {
        let file = disk.create_new(&directory.join(NAME))?;
        Ok(Self { file, zeroed_bytes: 0, synced: false })
    }

    /// Zeroes so many bytes more, up to `target_bytes`; true while more is left to do.
    pub fn extend(&mut self, step_bytes: u64, target_bytes: u64) -> io::Result<bool> {
        let step = step_bytes.min(target_bytes.saturating_sub(self.zeroed_bytes));
        if step > 0 {
            self.file.write_at(&zeros::parts(step), self.zeroed_bytes)?;
            self.zeroed_bytes += step;
            self.synced = false;
        } else if !self.synced {
            self.file.sync_data()?;
            self.synced = true;
        }
        Ok(!self.synced)
    }

    /// True when it can serve as a segment.
    pub fn is_ready(&self) -> bool {
        self.synced && self.zeroed_bytes > 0
    }

    /// Gives the file its name as a store. The caller makes the name durable.
    pub fn become_store(
        self,
        disk: &dyn Disk,
        directory: &Path,
        store: &Path,
    ) -> io::Result<(Arc<dyn DiskFile>, u64)> {
        disk.rename(&directory.join(NAME), store)?;
        Ok((self.file, self.zeroed_bytes))
    }
}
