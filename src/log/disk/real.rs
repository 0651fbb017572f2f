//! The machine's file system. Linux calls, each for a reason: see the functions.

use super::{Disk, DiskFile, Map};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The most parts that one `pwritev` takes (`IOV_MAX`).
const PARTS_MAX: usize = 1024;
/// What is written at once where blocks cannot be reserved.
const ZEROS_BYTES: usize = 64 * 1024;

#[allow(clippy::cast_possible_wrap, reason = "a flag, as the system's call takes it")]
const NO_LINKS: i32 = OFlags::NOFOLLOW.bits() as i32;

/// The real file system, reached by path.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        match fs::create_dir(path) {
            Ok(()) => self.sync_dir(parent.unwrap_or(Path::new("."))),
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    #[allow(clippy::disallowed_methods, reason = "the real disk is the edge to the file system")]
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        // A link planted in place of a file would have another file cut and written over.
        let file = OpenOptions::new().read(true).write(true).custom_flags(NO_LINKS).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    #[allow(clippy::disallowed_methods, reason = "the real disk is the edge to the file system")]
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    #[allow(clippy::disallowed_methods, reason = "the real disk is the edge to the file system")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    #[allow(clippy::disallowed_methods, reason = "the real disk is the edge to the file system")]
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[allow(clippy::disallowed_methods, reason = "the real disk is the edge to the file system")]
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let status = rustix::fs::statvfs(path)?;
        // `bavail`, not `bfree`: what root keeps for itself is not ours.
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, position_bytes)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position_bytes: u64) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            let position = position_bytes + filled as u64;
            let mut rest = [IoSliceMut::new(&mut buffer[filled..])];
            match rustix::io::preadv2(&self.file, &mut rest, position, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                // The file system or kernel does not know the flag (some FUSE and network file
                // systems): answering "cold" for ever would be slower than to read.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.file.read_exact_at(&mut buffer[filled..], position)?;
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn write_at(&self, parts: &[&[u8]], position_bytes: u64) -> io::Result<()> {
        write_all(parts, position_bytes, |parts, position| {
            Ok(rustix::io::pwritev(&self.file, parts, position)?)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.file.set_len(len_bytes)
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        if len_bytes == 0 {
            return Ok(()); // The kernel refuses an empty range.
        }
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len_bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.allocate_by_writing(len_bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn map(&self, len_bytes: usize) -> io::Result<Box<dyn Map>> {
        // Touching a mapped page behind the end of the file is SIGBUS.
        if self.len()? < len_bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "map is longer than the file"));
        }
        let map = memmap2::MmapOptions::new().len(len_bytes).map_raw(&self.file)?;
        Ok(Box::new(RealMap { map }))
    }
}

impl RealFile {
    /// What `posix_fallocate` does where the file system cannot reserve (ZFS, some network file
    /// systems): zeros behind the present end.
    fn allocate_by_writing(&self, len_bytes: u64) -> io::Result<()> {
        let zeros = [0; ZEROS_BYTES];
        let mut end = self.len()?;
        while end < len_bytes {
            let count = (len_bytes - end).min(ZEROS_BYTES as u64);
            self.write_at(&[&zeros[..count as usize]], end)?;
            end += count;
        }
        Ok(())
    }
}

/// Writes all parts with calls of `write`, which may take fewer bytes than it is given.
pub(in crate::log) fn write_all(
    parts: &[&[u8]],
    mut position_bytes: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    for chunk in parts.chunks(PARTS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = chunk.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Empty parts in front would make a write of nothing look like a full device.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match write(rest, position_bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    position_bytes += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[derive(Debug)]
struct RealMap {
    map: memmap2::MmapRaw,
}

impl RealMap {
    /// The bytes `[at, at + count)`.
    ///
    /// As atomics, for one thread stores while others load: a reader that looks where nothing
    /// was published yet gets useless bytes then, but no undefined behaviour.
    fn bytes(&self, at: usize, count: usize) -> &[AtomicU8] {
        let end = at.checked_add(count).expect("a range within memory");
        assert!(end <= self.map.len(), "[{at}, {end}) is outside the map of {}", self.map.len());
        // SAFETY: the range was checked to lie in the mapping, which is readable, writable and
        // lives as long as `self`. `AtomicU8` has the layout of `u8`. All access of this process
        // goes through these atomics; the mapping is never handed out in another form. The file
        // is not shortened below a live mapping (contract 4 of `Disk`), so no page of it is gone.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(at).cast::<AtomicU8>(), count) }
    }
}

impl Map for RealMap {
    fn len(&self) -> usize {
        self.map.len()
    }

    fn load(&self, at: usize, target: &mut [u8]) {
        let mapped = self.bytes(at, target.len());
        for (byte, mapped) in target.iter_mut().zip(mapped) {
            *byte = mapped.load(Ordering::Relaxed);
        }
    }

    fn store(&self, at: usize, source: &[u8]) {
        for (byte, mapped) in source.iter().zip(self.bytes(at, source.len())) {
            mapped.store(*byte, Ordering::Relaxed);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.map.flush()
    }

    fn rest(&self) -> io::Result<()> {
        // SAFETY: the mapping is shared and of a file: what was stored is in the page cache, from where
        // the next access of the same address takes it, also one of another thread at this moment.
        unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `parts` to a device that answers each call as `answers` says, and then takes all.
    fn write_to(parts: &[&[u8]], answers: Vec<io::Result<usize>>) -> (io::Result<()>, Vec<u8>) {
        let mut device = Vec::new();
        let mut answers = answers.into_iter();
        let result = write_all(parts, 100, |slices, position| {
            assert_eq!(position, 100 + device.len() as u64, "goes on where it stopped");
            assert!(slices.len() <= PARTS_MAX);
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = answers.next().unwrap_or(Ok(all.len()))?.min(all.len());
            device.extend_from_slice(&all[..count]);
            Ok(count)
        });
        (result, device)
    }

    #[test]
    fn a_short_write_goes_on_in_the_middle_of_a_part() {
        let (result, device) = write_to(&[b"abc", b"", b"defg", b"h"], vec![Ok(1), Ok(4), Ok(1)]);
        result.unwrap();
        assert_eq!(device, b"abcdefgh");
    }

    #[test]
    fn an_interrupted_write_is_tried_again_and_other_errors_are_told() {
        let interrupted = || Err(io::ErrorKind::Interrupted.into());
        let (result, device) = write_to(&[b"abc"], vec![interrupted(), Ok(2), interrupted()]);
        result.unwrap();
        assert_eq!(device, b"abc");
        let full = Err(io::Error::from(Errno::NOSPC));
        let (result, device) = write_to(&[b"abc"], vec![Ok(2), full]);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(device, b"ab");
    }

    #[test]
    fn a_device_that_takes_nothing_ends_the_loop() {
        let (result, _) = write_to(&[b"abc"], vec![Ok(0)]);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WriteZero);
        let (result, _) = write_to(&[b"", b""], vec![Ok(0)]);
        result.expect("nothing to write is nothing to fail");
    }

    #[test]
    fn more_parts_than_one_call_takes_are_written_in_order() {
        let bytes: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
        let parts: Vec<&[u8]> = bytes.chunks(1).collect();
        let (result, device) = write_to(&parts, vec![Ok(1000), Ok(7)]);
        result.unwrap();
        assert_eq!(device, bytes);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "only the system knows which pages are in memory")]
    fn a_map_at_rest_holds_what_was_stored_and_no_page() {
        let file = RealFile { file: tempfile::tempfile().unwrap() };
        file.allocate(3 * 4096).unwrap();
        let map = memmap2::MmapOptions::new().len(3 * 4096).map_raw(&file.file).unwrap();
        let map = RealMap { map };
        let resident_kib = || {
            let from = format!("{:x}-", map.map.as_ptr() as usize);
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let lines = maps.lines().skip_while(|line| !line.starts_with(&from));
            let rss = lines.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
            rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        map.store(4090, b"kept by the file");
        assert!(resident_kib() > 0, "what was just written is in memory");
        map.rest().unwrap();
        assert_eq!(resident_kib(), 0);
        let mut found = [0; 16];
        map.load(4090, &mut found);
        assert_eq!(&found, b"kept by the file");
    }

    #[test]
    fn zeros_are_written_where_blocks_cannot_be_reserved() {
        let file = RealFile { file: tempfile::tempfile().unwrap() };
        file.write_at(&[b"kept"], 0).unwrap();
        let len_bytes = 2 * ZEROS_BYTES as u64 + 5;
        file.allocate_by_writing(len_bytes).unwrap();
        assert_eq!(file.len().unwrap(), len_bytes);
        let mut head = [1; 6];
        file.read_at(&mut head, 0).unwrap();
        assert_eq!(&head, b"kept\0\0");
    }
}
