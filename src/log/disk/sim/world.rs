//! The state behind a simulated disk: what programs see, and what a crash would leave.
//!
//! Invariant: what survives a crash is made of the durable state plus a subset of the pending
//! one (dirty sectors, new lengths, name changes), which syncs alone move over.

use super::fault::{BadPlace, DiskCall, Errno, Fault};
use super::image::{Image, PAGE_BYTES};
use super::{CrashMode, Operation, SECTOR_BYTES};
use crate::model::Chance;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(super) type FileId = u64;

/// Why a call did nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Denied {
    /// The simulated machine has crashed or was stopped.
    Crashed,
    /// By plan, or for want of space.
    Fault(Errno),
}

impl From<Denied> for io::Error {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Crashed => Self::other("crashed: the simulated machine is down"),
            Denied::Fault(errno) => errno.into(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    /// What programs read: the page cache.
    pub(super) seen: Image,
    /// What the medium holds for certain.
    durable: Image,
    /// Sectors written since the last sync. A failed sync empties it without writing.
    dirty: BTreeSet<u64>,
    /// Pages reserved from the start of the file.
    allocated_pages: u64,
    pub(super) handles: usize,
}

impl Node {
    fn charged_bytes(&self) -> u64 {
        (self.allocated_pages + self.seen.pages_from(self.allocated_pages)) * PAGE_BYTES
    }

    fn mark_dirty(&mut self, at: u64, count: usize) {
        if count > 0 {
            let last = (at + count as u64 - 1) / SECTOR_BYTES;
            self.dirty.extend(at / SECTOR_BYTES..=last);
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.seen.write(at, bytes);
        self.mark_dirty(at, bytes.len());
    }

    fn set_len(&mut self, len: u64) {
        if len < self.seen.len() {
            // What is cut must read as zeros if the file grows again.
            let cut: Vec<u64> =
                self.seen.sectors_from(len).chain(self.durable.sectors_from(len)).collect();
            self.dirty.extend(cut);
            self.allocated_pages = self.allocated_pages.min(len.div_ceil(PAGE_BYTES));
        }
        self.seen.set_len(len);
    }

    fn sync(&mut self) {
        self.durable.set_len(self.seen.len());
        for sector in std::mem::take(&mut self.dirty) {
            self.durable.copy_sector(&self.seen, sector);
        }
    }

    /// What a crash leaves of this file.
    fn survivor(&self, random: &mut Chance, mode: CrashMode) -> Image {
        let mut image = self.durable.clone();
        if mode == CrashMode::Lost {
            return image;
        }
        let torn = mode == CrashMode::Torn;
        let new_len_survives = !torn || random.coin();
        let len = if new_len_survives { self.seen.len() } else { self.durable.len() };
        image.set_len(self.seen.len().max(self.durable.len()));
        for sector in &self.dirty {
            if !torn || random.coin() {
                image.copy_sector(&self.seen, *sector);
            }
        }
        image.set_len(len);
        image
    }
}

/// A change of names that no `sync_dir` has made durable.
#[derive(Debug, Clone)]
enum NameChange {
    Create { path: PathBuf, id: FileId },
    Rename { from: PathBuf, to: PathBuf, id: FileId },
    Remove { path: PathBuf, id: FileId },
}

impl NameChange {
    fn is_in(&self, directory: &Path) -> bool {
        let within = |path: &Path| path.parent() == Some(directory);
        match self {
            Self::Create { path, .. } | Self::Remove { path, .. } => within(path),
            Self::Rename { from, to, .. } => within(from) || within(to),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Create { path, id } => {
                names.insert(path, id);
            }
            Self::Rename { from, to, id } => {
                if names.get(&from) == Some(&id) {
                    names.remove(&from);
                }
                names.insert(to, id);
            }
            Self::Remove { path, id } => {
                if names.get(&path) == Some(&id) {
                    names.remove(&path);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct World {
    nodes: HashMap<FileId, Node>,
    next_id: FileId,
    pub(super) names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    pending_names: Vec<NameChange>,
    /// Durable from the start: `create_dir_all` promises it.
    directories: BTreeSet<PathBuf>,
    pub(super) capacity_bytes: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) bad_places: Vec<BadPlace>,
    pub(super) calls: HashMap<DiskCall, u64>,
    pub(super) calls_by_file: HashMap<(DiskCall, PathBuf), u64>,
    pub(super) mutations: u64,
    pub(super) stop_after: Option<u64>,
    pub(super) crashed: bool,
    pub(super) operations: Option<Vec<Operation>>,
    pub(super) cold: bool,
}

impl World {
    pub(super) fn of_capacity(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Counts a call, and decides whether it happens.
    pub(super) fn begin(
        &mut self,
        call: DiskCall,
        path: &Path,
        range: Range<u64>,
    ) -> Result<(), Denied> {
        if self.crashed {
            return Err(Denied::Crashed);
        }
        if call.is_mutation() {
            if self.stop_after.is_some_and(|last| self.mutations >= last) {
                self.crashed = true;
                return Err(Denied::Crashed);
            }
            self.mutations += 1;
        }
        *self.calls.entry(call).or_default() += 1;
        *self.calls_by_file.entry((call, path.to_owned())).or_default() += 1;
        if call.is_mutation()
            && let Some(operations) = &mut self.operations
        {
            operations.push(Operation { call, file: path.to_owned(), range });
        }
        // Every fault counts the call, also when an earlier one strikes.
        let struck = self.faults.iter_mut().filter_map(|fault| fault.strikes(call, path)).last();
        struck.map_or(Ok(()), |errno| Err(Denied::Fault(errno)))
    }

    pub(super) fn node(&mut self, id: FileId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node lives as long as a handle or a name")
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || path == Path::new("/") || self.directories.contains(path)
    }

    pub(super) fn add_dir(&mut self, path: &Path) {
        self.directories.extend(path.ancestors().map(Path::to_owned));
    }

    pub(super) fn handles(&self) -> usize {
        self.nodes.values().map(|node| node.handles).sum()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().map(|id| self.nodes[id].charged_bytes()).sum()
    }

    fn reserve(&self, more_pages: u64) -> Result<(), Denied> {
        let needed = more_pages * PAGE_BYTES;
        if more_pages > 0 && self.used_bytes() + needed > self.capacity_bytes {
            return Err(Denied::Fault(Errno::NoSpace));
        }
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path) -> Result<FileId, Denied> {
        if self.used_bytes() >= self.capacity_bytes {
            return Err(Denied::Fault(Errno::NoSpace));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.nodes.insert(id, Node { path: path.to_owned(), ..Node::default() });
        self.names.insert(path.to_owned(), id);
        self.pending_names.push(NameChange::Create { path: path.to_owned(), id });
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.is_dir(to.parent().unwrap_or(Path::new(""))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        let replaced = self.names.insert(to.to_owned(), id);
        self.node(id).path = to.to_owned();
        let (from, to) = (from.to_owned(), to.to_owned());
        self.pending_names.push(NameChange::Rename { from, to, id });
        if let Some(replaced) = replaced.filter(|replaced| *replaced != id) {
            self.collect(replaced);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let id = self.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        self.pending_names.push(NameChange::Remove { path: path.to_owned(), id });
        self.collect(id);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, directory: &Path) {
        for change in std::mem::take(&mut self.pending_names) {
            if change.is_in(directory) {
                change.apply(&mut self.durable_names);
            } else {
                self.pending_names.push(change);
            }
        }
        let all: Vec<FileId> = self.nodes.keys().copied().collect();
        for id in all {
            self.collect(id);
        }
    }

    /// Forgets a file that neither a handle, a name nor a crash could bring back.
    pub(super) fn collect(&mut self, id: FileId) {
        let named = |names: &BTreeMap<PathBuf, FileId>| names.values().any(|named| *named == id);
        let unused = self.nodes.get(&id).is_some_and(|node| node.handles == 0);
        let pending = self.pending_names.iter().any(|change| match change {
            NameChange::Create { id: of, .. } | NameChange::Rename { id: of, .. } => *of == id,
            NameChange::Remove { .. } => false,
        });
        if unused && !pending && !named(&self.names) && !named(&self.durable_names) {
            self.nodes.remove(&id);
        }
    }

    pub(super) fn write(&mut self, id: FileId, parts: &[&[u8]], at: u64) -> Result<(), Denied> {
        let bytes = parts.concat();
        let end = at + bytes.len() as u64;
        let path = self.node(id).path.clone();
        let begun = self.begin(DiskCall::Write, &path, at..end);
        if let Err(denied) = begun {
            // As a device may: what was asked for is half done.
            if matches!(denied, Denied::Fault(Errno::Io | Errno::NoSpace)) {
                self.node(id).write(at, &bytes[..bytes.len() / 2]);
            }
            return Err(denied);
        }
        let node = &self.nodes[&id];
        let new_pages = (at / PAGE_BYTES..end.div_ceil(PAGE_BYTES))
            .filter(|page| *page >= node.allocated_pages && !node.seen.has_page(*page))
            .count();
        self.reserve(new_pages as u64)?;
        self.node(id).write(at, &bytes);
        Ok(())
    }

    pub(super) fn store(&mut self, id: FileId, at: u64, bytes: &[u8]) {
        let path = self.node(id).path.clone();
        let range = at..at + bytes.len() as u64;
        if self.begin(DiskCall::MapStore, &path, range).is_ok() {
            self.node(id).write(at, bytes);
        }
    }

    /// Both ways to sync a file's content. After a failure the kernel has marked the pages clean:
    /// they read well, are not on the medium, and a second sync has nothing to complain about.
    pub(super) fn sync(&mut self, id: FileId, call: DiskCall) -> Result<(), Denied> {
        let path = self.node(id).path.clone();
        let len = self.node(id).seen.len();
        let begun = self.begin(call, &path, 0..len);
        match begun {
            Ok(()) => self.node(id).sync(),
            Err(Denied::Fault(_)) => self.node(id).dirty.clear(),
            Err(Denied::Crashed) => {}
        }
        begun
    }

    pub(super) fn set_len(&mut self, id: FileId, len: u64) -> Result<(), Denied> {
        let path = self.node(id).path.clone();
        self.begin(DiskCall::SetLen, &path, 0..len)?;
        self.node(id).set_len(len);
        Ok(())
    }

    pub(super) fn allocate(&mut self, id: FileId, len: u64) -> Result<(), Denied> {
        let path = self.node(id).path.clone();
        self.begin(DiskCall::Allocate, &path, 0..len)?;
        let pages = len.div_ceil(PAGE_BYTES);
        let node = &self.nodes[&id];
        if pages > node.allocated_pages {
            let present = node.seen.pages_from(node.allocated_pages) - node.seen.pages_from(pages);
            self.reserve(pages - node.allocated_pages - present)?;
            self.node(id).allocated_pages = pages;
        }
        let node = self.node(id);
        if node.seen.len() < len {
            node.set_len(len);
        }
        Ok(())
    }

    /// Inverts a bit on the medium and in the cache.
    pub(super) fn flip(&mut self, path: &Path, at: u64, bit: u8) {
        let id = *self.names.get(path).expect("the file to damage exists");
        let node = self.node(id);
        assert!(at < node.seen.len(), "byte {at} is behind the end of {}", path.display());
        node.seen.flip(at, bit);
        if at < node.durable.len() {
            node.durable.flip(at, bit);
        }
    }

    /// The world after a crash now. Counters, faults and handles start anew; a bad medium stays.
    pub(super) fn survivors(&self, seed: u64, mode: CrashMode) -> Self {
        let mut random = Chance::new(seed);
        let mut names = self.durable_names.clone();
        for change in &self.pending_names {
            let survives = match mode {
                CrashMode::Clean => true,
                CrashMode::Lost => false,
                CrashMode::Torn => random.coin(),
            };
            if survives {
                change.clone().apply(&mut names);
            }
        }
        let mut nodes = HashMap::new();
        for (path, id) in &names {
            let old = &self.nodes[id];
            let image = old.survivor(&mut random, mode);
            let allocated_pages = old.allocated_pages.min(image.len().div_ceil(PAGE_BYTES));
            let path = path.clone();
            let (seen, durable) = (image.clone(), image);
            nodes.insert(*id, Node { path, seen, durable, allocated_pages, ..Node::default() });
        }
        Self {
            nodes,
            next_id: self.next_id,
            durable_names: names.clone(),
            names,
            directories: self.directories.clone(),
            capacity_bytes: self.capacity_bytes,
            bad_places: self.bad_places.clone(),
            ..Self::default()
        }
    }
}
