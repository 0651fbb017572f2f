//! What a node left behind when it stopped. Every check is tied to this one node, by its paths, its
//! sockets, or references to what only it had: so that tests can run side by side in a process.

use super::control::Handles;
use crate::log::disk::SimDisk;
use crate::observe::Hub;
use crate::supervision::ShardThreads;
use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// The states of a TCP socket that is still in use, as procfs writes them.
const LISTENING: &str = "0A";
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";

/// Something that should be gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leak {
    /// An actor's place, its mailbox or a message to it is still held.
    Actor {
        /// The actor's path.
        path: String,
    },
    /// Something the node had one of is still held.
    Part {
        /// What.
        name: &'static str,
    },
    /// Threads of the shard still run, and with them the tasks on them.
    Threads {
        /// How many.
        count: usize,
    },
    /// A file below the data directory is open.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// A file below the data directory is mapped.
    Mapping {
        /// Its path.
        path: PathBuf,
    },
    /// Files of the simulated disk are open.
    SimFiles {
        /// How many handles there are.
        count: usize,
    },
    /// A socket of one of its ports is open.
    Socket {
        /// The port.
        port: u16,
        /// Whether it listens; else it is a connection.
        listens: bool,
    },
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Actor { path } => write!(f, "{path}: its mailbox or a reference to it is held"),
            Self::Part { name } => write!(f, "{name} is still held"),
            Self::Threads { count } => write!(f, "{count} threads of the shard still run"),
            Self::File { path } => write!(f, "{} is open", path.display()),
            Self::Mapping { path } => write!(f, "{} is mapped", path.display()),
            Self::SimFiles { count } => write!(f, "{count} files of the simulated disk are open"),
            Self::Socket { port, listens: true } => write!(f, "port {port} is listened on"),
            Self::Socket { port, listens: false } => {
                write!(f, "a connection to port {port} is open")
            }
        }
    }
}

/// What is known of a node that has stopped.
#[derive(Debug)]
pub(super) struct Remains {
    hub: Arc<Hub>,
    shard: ShardThreads,
    parts: Vec<(&'static str, Weak<dyn Any + Send + Sync>)>,
    data_dir: PathBuf,
    sim_disk: Option<SimDisk>,
    ports: [u16; 2],
    /// The sockets that listened on them.
    listeners: BTreeSet<u64>,
}

impl Remains {
    /// Taken while the node lives.
    pub(super) fn of(handles: &Handles, data_dir: &Path, sim_disk: Option<SimDisk>) -> Self {
        let ports = [handles.rpc_addr.port(), handles.http_addr.port()];
        let mine = open_sockets();
        let listeners = sockets()
            .into_iter()
            .filter(|socket| ports.contains(&socket.port) && socket.state == LISTENING)
            .map(|socket| socket.inode)
            .filter(|inode| mine.contains(inode))
            .collect();
        // Replicas come and go while a node of a cluster runs.
        let mut parts = handles.traces.clone();
        parts.extend(handles.partitions.traces());
        Self {
            hub: Arc::clone(&handles.hub),
            shard: handles.shard.clone(),
            parts,
            data_dir: data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned()),
            sim_disk,
            ports,
            listeners,
        }
    }

    /// Which threads of the shard and of the log are there at this moment.
    pub(super) fn threads(&self) -> Vec<Leak> {
        let mut leaks = Vec::new();
        match self.shard.alive() {
            0 => {}
            count => leaks.push(Leak::Threads { count }),
        }
        let flush = self.parts.iter().filter(|(name, _)| name.ends_with("flush thread"));
        let held = flush.filter(|(_, plan)| plan.strong_count() > 0);
        leaks.extend(held.map(|(name, _)| Leak::Part { name }));
        leaks
    }

    /// What is there at this moment.
    pub(super) fn look(&self) -> Vec<Leak> {
        let mut leaks: Vec<Leak> = Vec::new();
        let recorders = self.hub.recorders();
        leaks.extend(
            recorders.iter().map(|recorder| Leak::Actor { path: recorder.path_text().to_string() }),
        );
        drop(recorders);
        let held = self.parts.iter().filter(|(_, part)| part.strong_count() > 0);
        leaks.extend(held.map(|(name, _)| Leak::Part { name }));
        match self.shard.alive() {
            0 => {}
            count => leaks.push(Leak::Threads { count }),
        }
        leaks.extend(open_files(&self.data_dir).into_iter().map(|path| Leak::File { path }));
        leaks.extend(mappings(&self.data_dir).into_iter().map(|path| Leak::Mapping { path }));
        match self.sim_disk.as_ref().map_or(0, SimDisk::handles) {
            0 => {}
            count => leaks.push(Leak::SimFiles { count }),
        }
        leaks.extend(self.open_ports());
        leaks.sort();
        leaks.dedup();
        leaks
    }

    fn open_ports(&self) -> Vec<Leak> {
        let (all, mine) = (sockets(), open_sockets());
        let ours = |socket: &&Socket| mine.contains(&socket.inode);
        let mut leaks = Vec::new();
        for port in self.ports {
            let here: Vec<&Socket> =
                all.iter().filter(|socket| socket.port == port).filter(ours).collect();
            let listens = |socket: &Socket| socket.state == LISTENING;
            let is_own = |socket: &Socket| self.listeners.contains(&socket.inode);
            if here.iter().any(|socket| listens(socket) && is_own(socket)) {
                leaks.push(Leak::Socket { port, listens: true });
            }
            // The system may have given the port to another node since; its connections are its own.
            let is_taken = here.iter().any(|socket| listens(socket) && !is_own(socket));
            let is_open = |socket: &Socket| [ESTABLISHED, CLOSE_WAIT].contains(&&*socket.state);
            if !is_taken && here.iter().any(|socket| is_open(socket)) {
                leaks.push(Leak::Socket { port, listens: false });
            }
        }
        leaks
    }
}

struct Socket {
    port: u16,
    state: String,
    inode: u64,
}

/// The TCP sockets of this network namespace, by their local port.
#[allow(clippy::disallowed_methods, reason = "procfs, not a file of the log")]
fn sockets() -> Vec<Socket> {
    let table = |path| std::fs::read_to_string(path).unwrap_or_default();
    let read = |line: &str| {
        let mut fields = line.split_whitespace();
        let port = fields.nth(1)?.rsplit(':').next()?;
        let state = fields.nth(1)?.to_owned();
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Socket { port: u16::from_str_radix(port, 16).ok()?, state, inode })
    };
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .map(table)
        .iter()
        .flat_map(|text| text.lines().skip(1).filter_map(read))
        .collect()
}

/// The sockets that this process has open.
fn open_sockets() -> BTreeSet<u64> {
    let inode = |target: PathBuf| {
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors().into_iter().filter_map(inode).collect()
}

fn open_files(directory: &Path) -> Vec<PathBuf> {
    descriptors().into_iter().filter(|target| target.starts_with(directory)).collect()
}

/// What the open descriptors of this process lead to.
fn descriptors() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    // A descriptor may be closed while we look.
    entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
}

#[allow(clippy::disallowed_methods, reason = "procfs, not a file of the log")]
fn mappings(directory: &Path) -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    paths.filter(|path| path.starts_with(directory)).collect::<BTreeSet<_>>().into_iter().collect()
}
