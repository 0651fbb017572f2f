//! The disk as the log sees it: a trait, so that recovery can be tested against disks that lose,
//! tear, flip, fill and stall. The real one is [`RealDisk`], the simulated one [`SimDisk`].
//!
//! Contract:
//! 1. What was written is durable only after `sync_data` of that file returned `Ok`.
//! 2. A created, renamed or removed name is durable only after `sync_dir` of its directory.
//! 3. After a failed `sync_data` the content of the file on disk is unknown. Callers never retry.
//! 4. A file is never shortened below what a live mapping of it may touch.
//!
//! One conformance suite, in `tests`, holds both implementations to this.

mod real;
pub mod sim;

pub use real::RealDisk;
#[cfg(test)]
pub(in crate::log) use real::write_all;
pub use sim::SimDisk;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file system. All methods block; none is called from an actor's handler.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Creates a directory and its parents, durably; `Ok` when it is there already.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The file names in a directory, sorted. Directories in it are left out.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file that must not exist yet.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// True when the name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames within a file system, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Open handles and mappings stay usable.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
    /// Bytes free for this process on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. Shared between one writer and many readers.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// The length of the file in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `position_bytes`. `UnexpectedEof` when the file ends before that.
    fn read_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<()>;
    /// As [`DiskFile::read_at`], but only when it needs no wait for the device: `Ok(false)` says
    /// that it would, and that the caller should ask again from a thread that may block.
    fn read_cached_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<bool>;
    /// Writes all parts, one after another, from `position_bytes`, growing the file as needed.
    /// Short writes and interruptions are handled inside.
    fn write_at(&self, parts: &[&[u8]], position_bytes: u64) -> io::Result<()>;
    /// Makes all that was written durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Shortens or lengthens the file.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// Reserves real blocks for `[0, len_bytes)` and lengthens the file to at least that
    /// (`posix_fallocate`): afterwards neither a write nor a store through a map meets a full disk.
    fn allocate(&self, len_bytes: u64) -> io::Result<()>;
    /// Maps `[0, len_bytes)` for reading and writing. The range must have been allocated.
    fn map(&self, len_bytes: usize) -> io::Result<Box<dyn Map>>;
}

/// A shared mapping of a file's first bytes: one writer, many readers. Ranges outside the
/// mapping panic: callers know the length they mapped.
pub trait Map: Send + Sync + fmt::Debug + 'static {
    /// The mapped length in bytes.
    fn len(&self) -> usize;
    /// True when nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies `target.len()` bytes from `at`.
    fn load(&self, at: usize, target: &mut [u8]);
    /// Copies `source` to `at`. Readers must not look at a range before it is published to them.
    fn store(&self, at: usize, source: &[u8]);
    /// Makes the stores durable (msync).
    fn sync(&self) -> io::Result<()>;
    /// Takes its pages out of the process's memory; the next use brings them back, with what was stored.
    fn rest(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
