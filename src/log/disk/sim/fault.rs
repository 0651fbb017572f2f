//! What can be made to go wrong on a simulated disk.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A kind of call that can be counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiskCall {
    /// `create_dir_all`.
    CreateDir,
    /// `open`.
    Open,
    /// `create_new`.
    Create,
    /// `rename`; its file is the old name.
    Rename,
    /// `remove`.
    Remove,
    /// `sync_dir`; its file is the directory.
    SyncDir,
    /// `read_at` and `read_cached_at`.
    Read,
    /// `write_at`.
    Write,
    /// `sync_data`.
    Sync,
    /// `set_len`.
    SetLen,
    /// `allocate`.
    Allocate,
    /// `map`.
    Map,
    /// A store through a map. Cannot fail.
    MapStore,
    /// `Map::sync`.
    MapSync,
}

impl DiskCall {
    /// True when it changes what a crash may leave.
    pub(super) const fn is_mutation(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::Map)
    }
}

/// What a failing call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// `EIO`: the device failed.
    Io,
    /// `ENOSPC`: the file system is full.
    NoSpace,
    /// `EROFS`: the file system went read-only, as ext4 does after an error.
    ReadOnly,
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::Io => rustix::io::Errno::IO.into(),
            Errno::NoSpace => rustix::io::Errno::NOSPC.into(),
            Errno::ReadOnly => rustix::io::Errno::ROFS.into(),
        }
    }
}

/// Calls that are to fail. Counted from the moment the fault is planned.
#[derive(Debug, Clone)]
pub struct Fault {
    call: DiskCall,
    errno: Errno,
    /// Which matching calls fail, from 1.
    calls: Range<u64>,
    file: Option<PathBuf>,
    seen: u64,
}

impl Fault {
    /// Every call of a kind, with `EIO`, until narrowed.
    pub fn every(call: DiskCall) -> Self {
        Self { call, errno: Errno::Io, calls: 1..u64::MAX, file: None, seen: 0 }
    }

    /// The `n`-th call from now, counted from 1.
    pub fn nth(call: DiskCall, n: u64) -> Self {
        Self::every(call).during(n..n + 1)
    }

    /// The calls in this range, counted from 1.
    #[must_use]
    pub fn during(self, calls: Range<u64>) -> Self {
        Self { calls, ..self }
    }

    /// With another error than `EIO`.
    #[must_use]
    pub fn with(self, errno: Errno) -> Self {
        Self { errno, ..self }
    }

    /// Only calls on a file or directory whose path ends so (whole components).
    #[must_use]
    pub fn on(self, file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    /// Counts a call, and says whether it fails.
    pub(super) fn strikes(&mut self, call: DiskCall, path: &Path) -> Option<Errno> {
        let matches = self.file.as_ref().is_none_or(|file| path.ends_with(file));
        if call != self.call || !matches {
            return None;
        }
        self.seen += 1;
        self.calls.contains(&self.seen).then_some(self.errno)
    }
}

/// What a read of a bad place gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadDamage {
    /// The read fails.
    Fail(Errno),
    /// The read succeeds; each byte of the place has this bit inverted.
    FlipBit(u8),
}

/// A bad place on the medium.
#[derive(Debug, Clone)]
pub(super) struct BadPlace {
    pub(super) file: PathBuf,
    pub(super) range: Range<u64>,
    pub(super) damage: ReadDamage,
}

impl BadPlace {
    /// Applies the damage to what was read from `at`.
    pub(super) fn spoil(&self, path: &Path, at: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let end = at + buffer.len() as u64;
        let (from, to) = (self.range.start.max(at), self.range.end.min(end));
        if !path.ends_with(&self.file) || from >= to {
            return Ok(());
        }
        match self.damage {
            ReadDamage::Fail(errno) => Err(errno),
            ReadDamage::FlipBit(bit) => {
                for byte in &mut buffer[(from - at) as usize..(to - at) as usize] {
                    *byte ^= 1 << bit;
                }
                Ok(())
            }
        }
    }
}
