//! Why a data directory cannot be used.

use crate::model::{Disposition, NodeId};
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
    /// A thing in it is a link to somewhere else.
    #[error(
        "{} is a symbolic link, and a node opens nothing outside of its data directory",
        path.display()
    )]
    Link {
        /// The link.
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
    /// It belongs to another cluster, or to another node of it.
    #[error(
        "the data directory {} belongs to node {node} of cluster {cluster_id}, not to {asked}",
        path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        cluster_id: String,
        /// Which of its nodes.
        node: NodeId,
        /// What it was to belong to.
        asked: String,
    },
    /// It belongs to a cluster, and files that a member never loses are gone.
    #[error(
        "the data directory {} belongs to node {node} of cluster {cluster_id}, but {missing} is \
         gone: a node that lost what it voted must not vote again", path.display()
    )]
    Wiped {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        cluster_id: String,
        /// Which of its nodes.
        node: NodeId,
        /// What is gone.
        missing: String,
    },
    /// It holds a copy of another cluster's topic.
    #[error(
        "the data directory {} is that of a mirror of the topic {topic}", path.display()
    )]
    OfAMirror {
        /// The directory.
        path: PathBuf,
        /// What it copies.
        topic: String,
    },
    /// A node has used it: it cannot be a mirror's.
    #[error("the data directory {} belongs to a node of its own", path.display())]
    OfANode {
        /// The directory.
        path: PathBuf,
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
    pub(crate) fn at(path: PathBuf, source: io::Error) -> Self {
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
            Self::Link { .. } => {
                "move what it points to here, or mount it; nothing was changed".into()
            }
            Self::NotADirectory { .. } => "choose another path with --data-dir".into(),
            Self::Damaged { file, .. } => {
                format!("restore {} from a backup; nothing was changed", file.display())
            }
            Self::OtherCluster { cluster_id, .. } => format!(
                "join a member of cluster {cluster_id}, or start with another --data-dir to join \
                 this one"
            ),
            Self::Wiped { node, .. } => format!(
                "put the files back if you have them; else type `duramen node replace {node}` at \
                 another node, and start here with an empty --data-dir"
            ),
            Self::OfAMirror { topic, .. } => format!(
                "type `duramen mirror --topic {topic}` to go on with it, or choose another \
                 directory with --data-dir"
            ),
            Self::OfANode { .. } => "give the mirror a directory of its own with --data-dir".into(),
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
            | Self::Link { .. }
            | Self::Damaged { .. }
            | Self::Permission { .. }
            | Self::NotWritable { .. }
            | Self::OtherCluster { .. }
            | Self::Wiped { .. }
            | Self::OfAMirror { .. }
            | Self::OfANode { .. }
            | Self::Io { .. } => Disposition::TellCaller,
        }
    }
}
