//! Looking at a log offline, read-only: what its files hold, and whether they are whole. For the
//! `segment` subcommands and for a person on call.

use super::checkpoint::Checkpoint;
use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::frame::{self, FrameHeader, HEADER_BYTES};
use super::options::INDEX_ENTRY_BYTES;
use super::scan::{self, Scan};
use super::segment::Part;
use crate::model::{Offset, RaftIndex, Term};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use super::scan::Tail;

/// What one store file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// The file.
    pub path: PathBuf,
    /// The offset that its name says it begins at.
    pub base: Offset,
    /// Its length.
    pub file_bytes: u64,
    /// Where its whole frames end; the first bad place when `tail` is not [`Tail::End`].
    pub end_bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// Record batches in them.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// The first and the last Raft entry, when there is any.
    pub entries: Option<(RaftIndex, RaftIndex)>,
    /// The offset behind the last record.
    pub next: Offset,
    /// What follows the whole frames.
    pub tail: Tail,
    /// False when the index file does not say what the store says; it is rebuilt when the log is
    /// opened or read, and no harm.
    pub index_is_right: bool,
}

/// Checks every frame and batch of a store file, or of all stores in a log's directory, in order
/// of their offsets. In a directory also what the files know of each other: the checkpoint, what
/// follows what, and that only the last may end torn. Blocks; changes nothing.
///
/// # Errors
/// [`LogError::ReadFailed`], [`LogError::FileMissing`]; [`LogError::FileDamaged`] for the
/// checkpoint. Damage in stores is reported, not returned as an error.
pub fn verify(disk: &dyn Disk, path: &Path) -> Result<Vec<StoreReport>, LogError> {
    let mut reports: Vec<StoreReport> = Vec::new();
    let stores = stores(disk, path)?;
    let is_file = stores.first().is_some_and(|(_, store)| store == path);
    let checkpoint = if is_file { None } else { Checkpoint::read(disk, path)? };
    // What is left of a log that was to begin anew is no longer anybody's: each store for itself.
    let mark = checkpoint.filter(|found| !found.begins_anew).map(|found| found.mark);
    for (place, (base, store)) in stores.iter().enumerate() {
        let before = reports.last().and_then(|report| report.entries);
        let durable = mark.filter(|mark| mark.base == *base).map(|mark| mark.index);
        let from = scan::From {
            position_bytes: 0,
            index: before.map(|(_, last)| last.next()),
            next: *base,
            term: Term(0),
            durable: durable.unwrap_or_default(),
            identity: None,
        };
        let mut report = report(disk, *base, store, from)?;
        if let Some((next, _)) = stores.get(place + 1) {
            let reason = match &report.tail {
                Tail::Torn { reason } => Some(reason.clone()),
                Tail::End if report.next != *next => {
                    Some(format!("it ends at offset {}, the next begins at {next}", report.next))
                }
                _ => None,
            };
            if let Some(reason) = reason {
                report.tail = Tail::Corrupt { reason };
            }
        }
        reports.push(report);
    }
    Ok(reports)
}

/// One frame as found on disk.
#[derive(Debug, Clone)]
pub struct DumpedFrame {
    /// The file that it is in.
    pub path: PathBuf,
    /// Where in it.
    pub position_bytes: u64,
    /// Its header.
    pub header: FrameHeader,
    /// Its record batches, for [`super::batch::batches`] and [`super::batch::records`]; the bytes
    /// themselves when it is internal.
    pub payload: Bytes,
}

/// Goes through the frames of a store file, or of all stores in a directory. Ends a store at the
/// first bad place: use [`verify`] to know what that is. Blocks; changes nothing.
///
/// # Errors
/// [`LogError::FileMissing`], [`LogError::ReadFailed`].
pub fn dump(disk: Arc<dyn Disk>, path: &Path) -> Result<Dump, LogError> {
    let mut stores = stores(disk.as_ref(), path)?;
    stores.reverse();
    Ok(Dump { disk, stores, open: None })
}

/// See [`dump`].
#[derive(Debug)]
pub struct Dump {
    disk: Arc<dyn Disk>,
    /// Those still to come, the next last.
    stores: Vec<(Offset, PathBuf)>,
    open: Option<OpenStore>,
}

#[derive(Debug)]
struct OpenStore {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len_bytes: u64,
    position: u64,
}

impl Iterator for Dump {
    type Item = Result<DumpedFrame, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(open) = &mut self.open {
                match open.advance() {
                    Ok(None) => self.open = None,
                    Ok(Some(frame)) => return Some(Ok(frame)),
                    Err(error) => {
                        self.open = None;
                        return Some(Err(error));
                    }
                }
            }
            let (_, path) = self.stores.pop()?;
            match open(self.disk.as_ref(), &path) {
                Ok((file, len_bytes)) => {
                    self.open = Some(OpenStore { path, file, len_bytes, position: 0 });
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl OpenStore {
    fn advance(&mut self) -> Result<Option<DumpedFrame>, LogError> {
        let position_bytes = self.position;
        let failed = |source| LogError::ReadFailed {
            file: self.path.display().to_string(),
            position_bytes,
            source,
        };
        let left = self.len_bytes - position_bytes;
        let mut head = [0; HEADER_BYTES];
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.file.read_at(&mut head, position_bytes).map_err(failed)?;
        let Some(header) = FrameHeader::parse(&head).ok().filter(|h| h.frame_bytes <= left) else {
            return Ok(None);
        };
        let mut bytes = vec![0; header.frame_bytes as usize];
        self.file.read_at(&mut bytes, position_bytes).map_err(failed)?;
        let Ok(header) = frame::verify(&bytes) else { return Ok(None) };
        self.position += header.frame_bytes;
        let payload = Bytes::from(bytes).slice(HEADER_BYTES..);
        Ok(Some(DumpedFrame { path: self.path.clone(), position_bytes, header, payload }))
    }
}

/// The stores at a path: the file itself, or those in the directory.
fn stores(disk: &dyn Disk, path: &Path) -> Result<Vec<(Offset, PathBuf)>, LogError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let parsed = name.as_deref().and_then(Part::parse);
    let missing = || LogError::FileMissing { file: path.display().to_string() };
    if let Some((part, base)) = parsed {
        let store = path.with_file_name(Part::Store.name(base));
        let exists = disk.exists(&store).unwrap_or(false);
        return if exists && part == Part::Store {
            Ok(vec![(base, store)])
        } else {
            Err(missing())
        };
    }
    let names = disk.list(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => missing(),
        _ => {
            let file = path.display().to_string();
            LogError::ReadFailed { file, position_bytes: 0, source }
        }
    })?;
    let found = names.iter().filter_map(|name| Part::parse(name));
    let stores = found.filter(|(part, _)| *part == Part::Store);
    let mut stores: Vec<_> = stores.map(|(_, base)| (base, Part::Store.path(path, base))).collect();
    stores.sort_unstable();
    if stores.is_empty() { Err(missing()) } else { Ok(stores) }
}

fn open(disk: &dyn Disk, path: &Path) -> Result<(Arc<dyn DiskFile>, u64), LogError> {
    let open = || {
        let file = disk.open(path)?;
        let length = file.len()?;
        Ok((file, length))
    };
    open().map_err(|source| LogError::ReadFailed {
        file: path.display().to_string(),
        position_bytes: 0,
        source,
    })
}

fn report(
    disk: &dyn Disk,
    base: Offset,
    path: &Path,
    from: scan::From,
) -> Result<StoreReport, LogError> {
    let (file, file_bytes) = open(disk, path)?;
    let scan = scan::scan(file.as_ref(), file_bytes, from, &mut |_| {}).map_err(|source| {
        LogError::ReadFailed { file: path.display().to_string(), position_bytes: 0, source }
    })?;
    let first = scan.frames.first().map(|found| found.header.index);
    let last = scan.frames.last().map(|found| found.header.index);
    Ok(StoreReport {
        path: path.to_owned(),
        base,
        file_bytes,
        end_bytes: scan.end_bytes,
        frames: scan.frames.len() as u64,
        batches: scan.frames.iter().map(|found| u64::from(found.batches)).sum(),
        records: scan.frames.iter().map(|found| u64::from(found.header.records)).sum(),
        entries: first.zip(last),
        next: scan.frames.last().map_or(base, |found| found.header.next_offset()),
        index_is_right: index_is_right(disk, path, base, &scan),
        tail: scan.tail,
    })
}

/// Compares the index file with the frames.
fn index_is_right(disk: &dyn Disk, store: &Path, base: Offset, scan: &Scan) -> bool {
    let path = store.with_file_name(Part::Index.name(base));
    let mut held = vec![0; scan.frames.len() * INDEX_ENTRY_BYTES];
    let read = disk.open(&path).and_then(|file| file.read_at(&mut held, 0));
    read.is_ok()
        && held.chunks_exact(INDEX_ENTRY_BYTES).zip(&scan.frames).all(|(held, found)| {
            let entry = super::index::IndexEntry::decode(held);
            u64::from(entry.relative) == found.header.base.0 - base.0
                && entry.position_bytes == found.position_bytes
        })
}
