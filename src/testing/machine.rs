//! The machine's disk as one node sees it, with a switch: once off, nothing that the node still
//! does reaches a file. What was written before stays, as when a process is killed.

use crate::log::disk::{Disk, DiskFile, Map};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module. Clones share the switch.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    disk: Arc<dyn Disk>,
    switch: Switch,
}

#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn is_off(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn check(&self) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("the process that wrote here counts as killed"));
        }
        Ok(())
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_off() { "off" } else { "on" })
    }
}

impl Machine {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, switch: Switch::default() }
    }

    pub(super) fn switch_off(&self) {
        self.switch.0.store(true, Ordering::Release);
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(MachineFile { file, switch: self.switch.clone() })
    }
}

impl Disk for Machine {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.switch.check()?;
        self.disk.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.switch.check()?;
        self.disk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.switch.check()?;
        Ok(self.file(self.disk.open(path)?))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.switch.check()?;
        Ok(self.file(self.disk.create_new(path)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.switch.check()?;
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.switch.check()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.switch.check()?;
        self.disk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.switch.check()?;
        self.disk.sync_dir(directory)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.switch.check()?;
        self.disk.free_bytes(path)
    }
}

#[derive(Debug)]
struct MachineFile {
    file: Arc<dyn DiskFile>,
    switch: Switch,
}

impl DiskFile for MachineFile {
    fn len(&self) -> io::Result<u64> {
        self.switch.check()?;
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<()> {
        self.switch.check()?;
        self.file.read_at(buffer, position_bytes)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<bool> {
        self.switch.check()?;
        self.file.read_cached_at(buffer, position_bytes)
    }

    fn write_at(&self, parts: &[&[u8]], position_bytes: u64) -> io::Result<()> {
        self.switch.check()?;
        self.file.write_at(parts, position_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.switch.check()?;
        self.file.sync_data()
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.switch.check()?;
        self.file.set_len(len_bytes)
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.switch.check()?;
        self.file.allocate(len_bytes)
    }

    fn map(&self, len_bytes: usize) -> io::Result<Box<dyn Map>> {
        self.switch.check()?;
        let map = self.file.map(len_bytes)?;
        Ok(Box::new(MachineMap { map, switch: self.switch.clone() }))
    }
}

#[derive(Debug)]
struct MachineMap {
    map: Box<dyn Map>,
    switch: Switch,
}

impl Map for MachineMap {
    fn len(&self) -> usize {
        self.map.len()
    }

    fn load(&self, at: usize, target: &mut [u8]) {
        self.map.load(at, target);
    }

    fn store(&self, at: usize, source: &[u8]) {
        if !self.switch.is_off() {
            self.map.store(at, source);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.switch.check()?;
        self.map.sync()
    }
}
