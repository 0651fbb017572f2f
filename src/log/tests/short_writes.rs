//! Rung A8: a device that takes writes in pieces, and calls that a signal interrupts.

use super::crash::{Honesty, workload};
use super::harness::*;
use crate::log::Log;
use crate::log::disk::sim::DiskCall;
use crate::log::disk::sim::{CrashMode, Errno, Fault};
use crate::log::disk::{Disk, DiskFile, Map, SimDisk, write_all};
use crate::model::Chance;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What becomes of the rest when a call took a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It is written, by the loop that the real disk uses.
    Written,
    /// The sin: a short write is taken for a whole one.
    Forgotten,
}

/// A disk whose files take some bytes at a time and are interrupted in between.
#[derive(Debug, Clone)]
struct Stuttering {
    disk: SimDisk,
    dice: Arc<Mutex<Chance>>,
    rest: Rest,
}

impl Stuttering {
    fn new(disk: &SimDisk, seed: u64, rest: Rest) -> Self {
        Self { disk: disk.clone(), dice: Arc::new(Mutex::new(Chance::new(seed))), rest }
    }

    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(StutteringFile { inner, dice: self.dice.clone(), rest: self.rest })
    }
}

impl Disk for Stuttering {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.file(file))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create_new(path).map(|file| self.file(file))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_dir(directory)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

#[derive(Debug)]
struct StutteringFile {
    inner: Arc<dyn DiskFile>,
    dice: Arc<Mutex<Chance>>,
    rest: Rest,
}

impl StutteringFile {
    /// As `pwritev`: says how many bytes it took, or that it was interrupted before the first.
    fn take(&self, parts: &[IoSlice<'_>], position_bytes: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        let mut dice = self.dice.lock().unwrap();
        let count = match dice.below(4) {
            0 => return Err(io::ErrorKind::Interrupted.into()),
            1 => bytes.len(),
            _ => 1 + dice.below(bytes.len() as u64) as usize,
        };
        self.inner.write_at(&[&bytes[..count]], position_bytes)?;
        Ok(count)
    }
}

impl DiskFile for StutteringFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<()> {
        self.inner.read_at(buffer, position_bytes)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<bool> {
        self.inner.read_cached_at(buffer, position_bytes)
    }

    fn write_at(&self, parts: &[&[u8]], position_bytes: u64) -> io::Result<()> {
        let mut is_first = true;
        write_all(parts, position_bytes, |slices, position| {
            if self.rest == Rest::Forgotten && !std::mem::take(&mut is_first) {
                return Ok(slices.iter().map(|slice| slice.len()).sum());
            }
            self.take(slices, position)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.inner.set_len(len_bytes)
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.inner.allocate(len_bytes)
    }

    fn map(&self, len_bytes: usize) -> io::Result<Box<dyn Map>> {
        self.inner.map(len_bytes)
    }
}

/// Runs a workload to its end and closes the log.
fn run(disk: Arc<dyn Disk>, seed: u64) -> Result<Model, String> {
    let mut model = Model::default();
    let (mut log, _) = open_on(disk, &small(), clock()).map_err(|error| error.to_string())?;
    workload(&mut log, &mut model, seed, Honesty::AcknowledgesAfterSync)
        .map_err(|error| error.to_string())?;
    model.check(&log)?;
    log.close().map_err(|error| error.to_string())?;
    Ok(model)
}

/// Says what a device that stutters changed: nothing may differ, to the byte.
fn effect_of_stutter(seed: u64, rest: Rest) -> Result<(), String> {
    let (smooth, rough) = (SimDisk::new(), SimDisk::new());
    run(Arc::new(smooth.clone()), seed)?;
    let mut model = run(Arc::new(Stuttering::new(&rough, seed, rest)), seed)?;
    if rest == Rest::Written && rough.calls(DiskCall::Write) < 2 * smooth.calls(DiskCall::Write) {
        return Err("hardly a write was split".into());
    }
    let (wanted, found) = (files_of(&smooth), files_of(&rough));
    let differs = |name: &&String| found.get(*name) != wanted.get(*name);
    if let Some(name) = wanted.keys().chain(found.keys()).find(differs) {
        return Err(format!("{name} differs"));
    }
    let disk = rough.crash(seed, CrashMode::Lost);
    let (log, recovered) = open(&disk, &small()).map_err(|error| error.to_string())?;
    model.check_recovered(&log, &recovered)
}

#[test]
fn a8_short_and_interrupted_writes_leave_the_same_bytes_as_whole_ones() {
    for seed in 1..=20 {
        effect_of_stutter(seed, Rest::Written)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// Negative control: a writer that takes a short write for a whole one, in every single run.
#[test]
fn a8_a_writer_that_leaves_half_a_frame_is_caught() {
    for seed in 1..=10 {
        assert!(effect_of_stutter(seed, Rest::Forgotten).is_err(), "seed {seed}");
    }
}

#[test]
fn a8_a_crash_between_two_pieces_of_a_write_loses_nothing_acknowledged() {
    for seed in 1..=2 {
        let disk = SimDisk::new();
        run(Arc::new(Stuttering::new(&disk, seed, Rest::Written)), seed).unwrap();
        for stop in 1..=disk.mutations() {
            let mode = CrashMode::ALL[((stop + seed) % 3) as usize];
            let disk = SimDisk::new();
            disk.stop_after(stop);
            let mut model = Model::default();
            let rough = Arc::new(Stuttering::new(&disk, seed, Rest::Written));
            if let Ok((mut log, _)) = open_on(rough, &small(), clock()) {
                let honesty = Honesty::AcknowledgesAfterSync;
                let _ = workload(&mut log, &mut model, seed, honesty);
            }
            let disk = disk.crash(stop, mode);
            let (log, recovered) = open(&disk, &small()).unwrap();
            model
                .check_recovered(&log, &recovered)
                .unwrap_or_else(|error| panic!("seed {seed}, stop {stop}, {mode:?}: {error}"));
        }
    }
}

/// Appends, some of which meet a full disk after a few pieces. Says how many were refused.
fn append_all(log: &mut Log, model: &mut Model) -> u64 {
    let mut refused = 0;
    for round in 0..25 {
        let before = model.clone();
        let entries: Vec<_> = (0..1 + round % 4).map(|_| model.propose(2, 90)).collect();
        if let Err(error) = log.append(&entries) {
            assert!(error.is_disk_full(), "{error}");
            *model = Model { numbers: model.numbers, ..before };
            refused += 1;
        }
        model.durable = log.sync().unwrap().upto().0;
    }
    refused
}

#[test]
fn a8_a_disk_that_is_full_after_some_pieces_leaves_nothing_of_them() {
    let mut refused = 0;
    for n in 3..=80 {
        let disk = SimDisk::new();
        let mut model = Model { term: 1, ..Model::default() };
        let rough = Arc::new(Stuttering::new(&disk, n, Rest::Written));
        let (mut log, _) = open_on(rough, &small(), clock()).unwrap();
        disk.fail(Fault::every(DiskCall::Write).during(n..n + 2).with(Errno::NoSpace));
        refused += append_all(&mut log, &mut model);
        model.check(&log).unwrap_or_else(|error| panic!("call {n}: {error}"));
        let disk = disk.crash(n, CrashMode::ALL[n as usize % 3]);
        let (log, recovered) = open(&disk, &small()).unwrap();
        model
            .check_recovered(&log, &recovered)
            .unwrap_or_else(|error| panic!("call {n}, recovered: {error}"));
    }
    assert!(refused > 30, "only {refused} appends were refused");
}
