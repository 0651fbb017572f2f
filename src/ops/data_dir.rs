//! The data directory: whose it is, which format it holds, and that one node at a time uses it.
//!
//! ```text
//! LOCK        locked while a node runs (flock); holds `pid host` of the last one; never removed
//! VERSION     the format's version, in decimal; written once, after everything else is in place
//! NODE        the node's id, written once
//! CLUSTER     the cluster it belongs to and its number there, written once
//! MIRROR      what a mirror copies, written once; there is no CLUSTER beside it
//! replicas.json  the replicas that it was given, written before the first of their bytes
//! ports.json  where a running node listens; there from readiness to the stop
//! crash/      reports of crashes, bounded by count and size (ops/crash.rs)
//! ```
//!
//! A directory that is refused is left as it was found: everything is checked before anything is
//! written. An edge: plain files of the machine, blocking.

mod cluster;
mod error;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, MirrorOf, ReplicaRecord, Replicas, remove_empty};
pub use error::DataDirError;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// The newest format this build reads, and the one it writes.
///
/// Version 1 is a node without a cluster: it becomes 2 before the directory joins one, as a program
/// that knows only version 1 would go on alone with what belongs to several.
pub const FORMAT_VERSION: u32 = 2;

const LOCK: &str = "LOCK";
const VERSION: &str = "VERSION";
const NODE: &str = "NODE";
const PORTS: &str = "ports.json";
/// What a node that died before its directory was complete may have left behind, besides what a
/// file system puts there itself.
const HARMLESS: [&str; 7] =
    [LOCK, NODE, "NODE.new", "VERSION.new", PORTS, "ports.json.new", "lost+found"];

/// A data directory, locked: no other node uses it for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    node_id: String,
    cluster: OnceLock<Cluster>,
    /// Held while the record of replicas is written: who becomes a member writes it as it is, while
    /// replicas may be given.
    recording: Mutex<()>,
    /// Holds the lock; the system lets go of it however the process ends.
    _lock: File,
}

/// Where a running node listens, as told in `ports.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Ports<'a> {
    pid: u32,
    node_id: &'a str,
    rpc: SocketAddr,
    http: SocketAddr,
}

impl DataDir {
    /// Opens the directory, or creates it, and locks it. Blocks.
    ///
    /// # Errors
    /// [`DataDirError`]; a directory that existed is unchanged then.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create_with_parents(path, OWN_MODE)?;
        let known = check(path)?;
        let lock = take_lock(path)?;
        // Another node may have made the directory its own between the check and the lock.
        let known = if known { true } else { check(path)? };
        let node_id = node_id(path)?;
        if !known {
            write_version(path)?;
        }
        let cluster = cluster::stored(path)?.map_or_else(OnceLock::new, OnceLock::from);
        let data_dir = Self {
            path: path.to_owned(),
            node_id,
            cluster,
            recording: Mutex::default(),
            _lock: lock,
        };
        // A node that was killed leaves it; it would point at ports that are not ours.
        data_dir.remove_ports();
        Ok(data_dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's identity, the same for as long as the directory lives.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// Tells where the node listens, in `ports.json`: there is never half a file. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_ports(&self, rpc: SocketAddr, http: SocketAddr) -> Result<(), DataDirError> {
        let ports = Ports { pid: std::process::id(), node_id: &self.node_id, rpc, http };
        let mut text = serde_json::to_vec_pretty(&ports).expect("addresses are plain values");
        text.push(b'\n');
        write_whole(&self.path, PORTS, &text)
            .map_err(|source| DataDirError::at(self.path.join(PORTS), source))
    }

    /// Removes `ports.json`: the node no longer listens. Blocks.
    #[allow(clippy::disallowed_methods, reason = "the edge that owns the data directory")]
    pub fn remove_ports(&self) {
        // Absent, or on a disk that has stopped taking changes: either way nothing is lost.
        let _ = fs::remove_file(self.path.join(PORTS));
    }
}

/// Says whether a node, that is no mirror, could start on the directory, without changing anything,
/// and of which cluster it is already. Blocks.
///
/// # Errors
/// What [`DataDir::open`] and reading from it would fail with, as far as reading shows it.
pub fn inspect(path: &Path) -> Result<Option<Cluster>, DataDirError> {
    if !path.exists() {
        return Ok(None);
    }
    let mut known = None;
    if check(path)? {
        let file = path.join(LOCK);
        let lock = open_existing(&file).map_err(|source| DataDirError::at(file, source))?;
        if let Some(lock) = lock {
            try_lock(&lock, path)?;
        }
        stored_node_id(path)?;
        known = cluster::stored(path)?;
        if let Some(MirrorOf { topic, .. }) = cluster::mirrored(path)? {
            let (path, topic) = (path.to_owned(), topic.to_string());
            return Err(DataDirError::OfAMirror { path, topic });
        }
        cluster::given(path, known.as_ref())?;
    }
    Ok(known)
}

fn write_version(path: &Path) -> Result<(), DataDirError> {
    let text = format!("{FORMAT_VERSION}\n");
    write_whole(path, VERSION, text.as_bytes())
        .map_err(|source| DataDirError::at(path.join(VERSION), source))
}

/// Whether the directory is ours (true) or free to take (false).
fn check(path: &Path) -> Result<bool, DataDirError> {
    if !path.is_dir() {
        return Err(DataDirError::NotADirectory { path: path.to_owned() });
    }
    let at_directory = |source| DataDirError::at(path.to_owned(), source);
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(at_directory)? {
        let entry = entry.map_err(at_directory)?;
        if entry.file_type().map_err(at_directory)?.is_symlink() {
            return Err(DataDirError::Link { path: entry.path() });
        }
        entries.push(entry.file_name());
    }
    let file = path.join(VERSION);
    match read_small(&file).map_err(|source| DataDirError::at(file.clone(), source))? {
        Some(text) => {
            let version = text.trim().parse::<u32>().ok().filter(|version| *version > 0);
            let version = version.ok_or(DataDirError::Damaged { file, holds: "a version" })?;
            if version > FORMAT_VERSION {
                return Err(DataDirError::TooNew {
                    path: path.to_owned(),
                    version,
                    readable: FORMAT_VERSION,
                });
            }
            Ok(true)
        }
        None => {
            for name in entries {
                if !HARMLESS.iter().any(|harmless| name == *harmless) {
                    return Err(DataDirError::Foreign {
                        path: path.to_owned(),
                        example: name.to_string_lossy().into_owned(),
                    });
                }
            }
            Ok(false)
        }
    }
}

/// What is in a data directory is for its node alone: records, and what it was told of secrets.
const OWN_MODE: u32 = 0o700;
/// What directories above it are made with, as far as the process lets others in.
const PARENT_MODE: u32 = 0o777;

/// Makes the directory and what is missing above it, so that the names survive a power cut. One that is
/// there is left as it is.
fn create_with_parents(path: &Path, mode: u32) -> Result<(), DataDirError> {
    if path.as_os_str().is_empty() || path.exists() {
        return Ok(());
    }
    let failed = |source| DataDirError::at(path.to_owned(), source);
    let parent = path.parent().unwrap_or(Path::new(""));
    create_with_parents(parent, PARENT_MODE)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(failed(source)),
        Ok(()) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            sync_directory(parent).map_err(failed)
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge that owns the data directory")]
fn take_lock(path: &Path) -> Result<File, DataDirError> {
    let file = path.join(LOCK);
    let failed = |source| DataDirError::at(file.clone(), source);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut lock = options.open(&file).map_err(failed)?;
    try_lock(&lock, path)?;
    let holder = format!("{} {}\n", std::process::id(), host());
    // For people only, and a full disk may have no room for it: the lock itself is what counts.
    let _ = lock.set_len(0).and_then(|()| lock.write_all(holder.as_bytes()));
    Ok(lock)
}

/// Locks, or says who holds the lock.
fn try_lock(mut lock: &File, path: &Path) -> Result<(), DataDirError> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Whoever holds it may be writing this very line: an empty one is no error.
            let _ = lock.rewind().and_then(|()| lock.take(4096).read_to_string(&mut holder));
            let (pid, host) = holder.trim().split_once(' ').unwrap_or(("?", "?"));
            let (pid, host) = (pid.into(), host.into());
            Err(DataDirError::Locked { path: path.to_owned(), pid, host })
        }
        Err(errno) => Err(DataDirError::at(path.join(LOCK), errno.into())),
    }
}

fn node_id(path: &Path) -> Result<String, DataDirError> {
    if let Some(id) = stored_node_id(path)? {
        return Ok(id);
    }
    let id = uuid::Uuid::new_v4().to_string();
    write_whole(path, NODE, format!("{id}\n").as_bytes())
        .map_err(|source| DataDirError::at(path.join(NODE), source))?;
    Ok(id)
}

fn stored_node_id(path: &Path) -> Result<Option<String>, DataDirError> {
    let file = path.join(NODE);
    let text = read_small(&file).map_err(|source| DataDirError::at(file.clone(), source))?;
    let Some(text) = text else { return Ok(None) };
    match uuid::Uuid::parse_str(text.trim()) {
        Ok(id) => Ok(Some(id.to_string())),
        // Never made up anew: others may know this node by the id that was here.
        Err(_) => Err(DataDirError::Damaged { file, holds: "a node id (a UUID)" }),
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge that owns the data directory")]
fn open_existing(file: &Path) -> io::Result<Option<File>> {
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// A small file's text; what is no text is replaced, which no reader of ours takes for sound.
fn read_small(file: &Path) -> io::Result<Option<String>> {
    let Some(opened) = open_existing(file)? else { return Ok(None) };
    let mut bytes = Vec::new();
    opened.take(4096).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Writes a file so that, whenever the power goes, the old or the new one is there.
#[allow(clippy::disallowed_methods, reason = "the edge that owns the data directory")]
fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(name))?;
    sync_directory(directory)
}

#[allow(clippy::disallowed_methods, reason = "the edge that owns the data directory")]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn host() -> String {
    let name = read_small(Path::new("/proc/sys/kernel/hostname")).ok().flatten();
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or("?".into())
}
