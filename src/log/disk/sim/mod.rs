//! A disk in memory that fails on demand: it loses what was not synced, tears it, flips bits,
//! fills up, stalls. For tests and benches of whatever is built on [`Disk`]; the same seed always
//! gives the same crash.
//!
//! Harsher than most real disks, never kinder: each unsynced sector and each unsynced name
//! survives a torn crash, or does not, by itself; a failed write is half done; a failed sync
//! throws the data away and lets the next one succeed, as ext4 does.

mod fault;
mod hold;
mod image;
mod world;

pub use fault::{DiskCall, Errno, Fault, ReadDamage};
pub use hold::SyncHold;

use super::{Disk, DiskFile, Map};
use fault::BadPlace;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use world::{FileId, World};

/// What the simulated device writes as a whole.
pub const SECTOR_BYTES: u64 = 512;

/// What a crash does to that which no sync has made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashMode {
    /// All of it survives, as when only the process dies.
    Clean,
    /// Nothing of it survives.
    Lost,
    /// Each sector, length and name survives or not, by the seed.
    Torn,
}

impl CrashMode {
    /// All modes, to be tried in turn.
    pub const ALL: [Self; 3] = [Self::Clean, Self::Lost, Self::Torn];
}

/// A call that changed something, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was called.
    pub call: DiskCall,
    /// The file or directory.
    pub file: PathBuf,
    /// The bytes concerned; empty for calls on names.
    pub range: Range<u64>,
}

/// Called with the file's path in each `sync_data`, before it takes effect and without any lock.
pub type SyncHook = Arc<dyn Fn(&Path) + Send + Sync>;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    sync_hook: Mutex<Option<SyncHook>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self::of(World::of_capacity(u64::MAX))
    }
}

impl Shared {
    fn of(world: World) -> Self {
        Self { world: Mutex::new(world), sync_hook: Mutex::new(None) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // A panic under the lock is a test's failed expectation; its clean-up may go on.
        self.world.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn sync_hook(&self) -> MutexGuard<'_, Option<SyncHook>> {
        self.sync_hook.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl SimDisk {
    /// An empty disk without end.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how much fits; may be called again, to make room or take it away.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.shared.world().capacity_bytes = capacity_bytes;
    }

    /// What named files occupy, in whole pages of 4 KiB.
    pub fn used_bytes(&self) -> u64 {
        self.shared.world().used_bytes()
    }

    /// Plans a fault; several may be active.
    pub fn fail(&self, fault: Fault) {
        self.shared.world().faults.push(fault);
    }

    /// Forgets all planned faults and bad places.
    pub fn heal(&self) {
        let mut world = self.shared.world();
        world.faults.clear();
        world.bad_places.clear();
    }

    /// Makes reads that touch `range` of the files whose path ends in `file` go wrong.
    pub fn damage_reads(&self, file: impl Into<PathBuf>, range: Range<u64>, damage: ReadDamage) {
        self.shared.world().bad_places.push(BadPlace { file: file.into(), range, damage });
    }

    /// Inverts a bit that is on the medium: it stays inverted after a crash.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: impl AsRef<Path>, byte: u64, bit: u8) {
        self.shared.world().flip(path.as_ref(), byte, bit);
    }

    /// While set, `read_cached_at` says that it would have to wait.
    pub fn set_cold(&self, cold: bool) {
        self.shared.world().cold = cold;
    }

    /// How often a kind was called, failures included.
    pub fn calls(&self, call: DiskCall) -> u64 {
        self.shared.world().calls.get(&call).copied().unwrap_or(0)
    }

    /// How often a kind was called on the files whose path, at that time, ended in `file`.
    pub fn calls_on(&self, call: DiskCall, file: impl AsRef<Path>) -> u64 {
        let world = self.shared.world();
        let on_file = world.calls_by_file.iter();
        on_file
            .filter(|((of, path), _)| *of == call && path.ends_with(file.as_ref()))
            .map(|(_, count)| count)
            .sum()
    }

    /// How many handles on files and mappings are open.
    pub fn handles(&self) -> usize {
        self.shared.world().handles()
    }

    /// How many mutating calls there were: the crash points that can be told apart.
    pub fn mutations(&self) -> u64 {
        self.shared.world().mutations
    }

    /// From now on keeps the mutating calls for [`SimDisk::operations`].
    pub fn record_operations(&self) {
        self.shared.world().operations.get_or_insert_default();
    }

    /// The mutating calls since [`SimDisk::record_operations`].
    pub fn operations(&self) -> Vec<Operation> {
        self.shared.world().operations.clone().unwrap_or_default()
    }

    /// Plans the machine's end: after the mutating call of this number (from 1, counted from the
    /// disk's beginning) the next one fails, and with it every call after that.
    pub fn stop_after(&self, mutation: u64) {
        self.shared.world().stop_after = Some(mutation);
    }

    /// Ends this machine: all its handles fail from now on. The disk returned holds what
    /// survived, without faults planned, counters at zero. Bad places stay.
    #[must_use]
    pub fn crash(&self, seed: u64, mode: CrashMode) -> Self {
        let after = self.after_crash(seed, mode);
        self.shared.world().crashed = true;
        after
    }

    /// What [`SimDisk::crash`] would return, while this machine goes on.
    #[must_use]
    pub fn after_crash(&self, seed: u64, mode: CrashMode) -> Self {
        let world = self.shared.world().survivors(seed, mode);
        Self { shared: Arc::new(Shared::of(world)) }
    }

    /// Calls `hook` in every sync: to delay it, or to look at the disk just before.
    pub fn set_sync_hook(&self, hook: Option<SyncHook>) {
        *self.shared.sync_hook() = hook;
    }

    /// Makes every sync wait until the hold is released or dropped. Replaces the hook.
    pub fn hold_syncs(&self) -> SyncHold {
        let hold = SyncHold::new();
        self.set_sync_hook(Some(hold.hook()));
        hold
    }

    fn file(&self, world: &mut World, id: FileId) -> Arc<dyn DiskFile> {
        Arc::new(SimFile::new(self.shared.clone(), world, id))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.shared.world();
        let (files, mutations) = (world.names.len(), world.mutations);
        write!(f, "SimDisk({files} files, {mutations} mutations, crashed: {})", world.crashed)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.shared.world();
        if !world.is_dir(path) || world.crashed {
            world.begin(DiskCall::CreateDir, path, 0..0)?;
            world.add_dir(path);
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.shared.world();
        alive(&world)?;
        if !world.is_dir(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = world.names.keys().filter(|path| parent(path) == directory);
        let mut names: Vec<String> = within
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.shared.world();
        world.begin(DiskCall::Open, path, 0..0)?;
        let id = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(&mut world, id))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.shared.world();
        world.begin(DiskCall::Create, path, 0..0)?;
        if world.names.contains_key(path) || world.is_dir(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !world.is_dir(parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = world.create(path)?;
        Ok(self.file(&mut world, id))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let world = self.shared.world();
        alive(&world)?;
        Ok(world.names.contains_key(path) || world.is_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.shared.world();
        world.begin(DiskCall::Rename, from, 0..0)?;
        world.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.shared.world();
        world.begin(DiskCall::Remove, path, 0..0)?;
        world.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.shared.world();
        world.begin(DiskCall::SyncDir, directory, 0..0)?;
        if !world.is_dir(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.sync_dir(directory);
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let world = self.shared.world();
        alive(&world)?;
        Ok(world.capacity_bytes.saturating_sub(world.used_bytes()))
    }
}

fn alive(world: &World) -> io::Result<()> {
    if world.crashed { Err(world::Denied::Crashed.into()) } else { Ok(()) }
}

/// A handle. Keeps its file alive after its name is gone.
struct SimFile {
    shared: Arc<Shared>,
    id: FileId,
}

impl SimFile {
    fn new(shared: Arc<Shared>, world: &mut World, id: FileId) -> Self {
        world.node(id).handles += 1;
        Self { shared, id }
    }

    fn path(&self) -> PathBuf {
        self.shared.world().node(self.id).path.clone()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut world = self.shared.world();
        world.node(self.id).handles -= 1;
        world.collect(self.id);
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path().display())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.shared.world();
        alive(&world)?;
        Ok(world.node(self.id).seen.len())
    }

    fn read_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<()> {
        let mut world = self.shared.world();
        let path = world.node(self.id).path.clone();
        // As `pread` refuses what no file offset can be.
        let end = position_bytes.checked_add(buffer.len() as u64);
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        world.begin(DiskCall::Read, &path, position_bytes..end)?;
        let node = world.node(self.id);
        if end > node.seen.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        node.seen.read(position_bytes, buffer);
        for place in &world.bad_places {
            place.spoil(&path, position_bytes, buffer)?;
        }
        Ok(())
    }

    fn read_cached_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<bool> {
        if self.shared.world().cold {
            return Ok(false);
        }
        self.read_at(buffer, position_bytes).map(|()| true)
    }

    fn write_at(&self, parts: &[&[u8]], position_bytes: u64) -> io::Result<()> {
        Ok(self.shared.world().write(self.id, parts, position_bytes)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        let hook = self.shared.sync_hook().clone(); // called without the lock
        if let Some(hook) = hook {
            hook(&self.path());
        }
        Ok(self.shared.world().sync(self.id, DiskCall::Sync)?)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        Ok(self.shared.world().set_len(self.id, len_bytes)?)
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        Ok(self.shared.world().allocate(self.id, len_bytes)?)
    }

    fn map(&self, len_bytes: usize) -> io::Result<Box<dyn Map>> {
        let mut world = self.shared.world();
        let path = world.node(self.id).path.clone();
        world.begin(DiskCall::Map, &path, 0..len_bytes as u64)?;
        if world.node(self.id).seen.len() < len_bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "map is longer than the file"));
        }
        let file = SimFile::new(self.shared.clone(), &mut world, self.id);
        Ok(Box::new(SimMap { file, len_bytes }))
    }
}

/// A mapping: stores go to the page cache at once, as on a real one.
#[derive(Debug)]
struct SimMap {
    file: SimFile,
    len_bytes: usize,
}

impl SimMap {
    fn check(&self, at: usize, count: usize) {
        let end = at.checked_add(count).expect("a range within memory");
        assert!(end <= self.len_bytes, "[{at}, {end}) is outside the map of {}", self.len_bytes);
    }
}

impl Map for SimMap {
    fn len(&self) -> usize {
        self.len_bytes
    }

    fn load(&self, at: usize, target: &mut [u8]) {
        self.check(at, target.len());
        self.file.shared.world().node(self.file.id).seen.read(at as u64, target);
    }

    fn store(&self, at: usize, source: &[u8]) {
        self.check(at, source.len());
        self.file.shared.world().store(self.file.id, at as u64, source);
    }

    fn sync(&self) -> io::Result<()> {
        Ok(self.file.shared.world().sync(self.file.id, DiskCall::MapSync)?)
    }
}

#[cfg(test)]
mod tests;
