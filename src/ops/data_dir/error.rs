//! Why a data directory cannot be used.

use crate::model::Disposition;
use std::io;
use std::path::PathBuf;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another node runs on it.
    #[error("the data directory {} is used by process {pid} on host {host}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other node's process id; `?` where it could not be read.
        pid: String,
        /// The other node's host; `?` where it could not be read.
        host: String,
    },
    /// A later duramen wrote it.
    #[error(
        "the data directory {} has format version {version}; this duramen reads versions up to \
         {readable}", path.display()
    )]
    TooNew {
        /// The directory.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The newest format that this build reads.
        readable: u32,
    },
    /// It holds files that no node wrote.
    #[error(
        "the directory {} is not empty and no duramen data directory: it holds \"{example}\" and \
         no VERSION", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One thing in it.
        example: String,
    },
    /// There is something else of that name.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A file of ours does not hold what it should.
    #[error("{} does not hold {holds}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        holds: &'static str,
    },
    /// The user that the node runs as may not use it.
    #[error("no permission for {}", path.display())]
    Permission {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system takes no changes, or has no room.
    #[error("{} cannot be written", path.display())]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDirError {
    /// An error of the system's, sorted by who can mend it.
    pub(super) fn at(path: PathBuf, source: io::Error) -> Self {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match source.kind() {
            PermissionDenied => Self::Permission { path, source },
            ReadOnlyFilesystem | StorageFull | QuotaExceeded => Self::NotWritable { path, source },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io { path, source },
        }
    }

    /// What the person who runs the node can do.
    pub fn advice(&self) -> String {
        match self {
            Self::Locked { .. } => {
                "stop the other node, or choose another directory with --data-dir".into()
            }
            Self::TooNew { version, .. } => format!(
                "use a duramen that reads format version {version} (`duramen version` tells it), \
                 or choose another directory with --data-dir"
            ),
            Self::Foreign { .. } => {
                "choose an empty or a new directory with --data-dir; nothing was changed".into()
            }
            Self::NotADirectory { .. } => "choose another path with --data-dir".into(),
            Self::Damaged { file, .. } => {
                format!("restore {} from a backup; nothing was changed", file.display())
            }
            Self::Permission { .. } => {
                "run as the directory's owner, or choose another one with --data-dir".into()
            }
            Self::NotWritable { .. } => {
                "mount the file system writable, make room on it, or choose another directory \
                 with --data-dir"
                    .into()
            }
            Self::Io { .. } => "look at the disk and the system's log (dmesg)".into(),
        }
    }

    /// Who must act: the person who starts the node.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Locked { .. }
            | Self::TooNew { .. }
            | Self::Foreign { .. }
            | Self::NotADirectory { .. }
            | Self::Damaged { .. }
            | Self::Permission { .. }
            | Self::NotWritable { .. }
            | Self::Io { .. } => Disposition::TellCaller,
        }
    }
}
