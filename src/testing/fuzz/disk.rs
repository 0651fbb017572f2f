//! A log on a simulated disk that was written in order, and what an input does to its files.

use crate::log::batch::BatchBuilder;
use crate::log::disk::{Disk, SimDisk};
use crate::log::{Entry, EntryPayload, Log, LogError, LogOptions, Recovered, stable};
use crate::model::{ManualClock, Offset, RaftIndex, Record, Term, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The files of a log's directory, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

const DIRECTORY: &str = "/log";
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const FILE_BYTES_MAX: usize = 32 << 10;
const EDITS_MAX: usize = 64;
/// The last entry that the checkpoint of [`written`] covers.
pub(super) const CHECKPOINTED: RaftIndex = RaftIndex(27);

pub(super) fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

pub(super) fn options() -> LogOptions {
    LogOptions {
        segment_bytes_max: 4096,
        frame_bytes_max: 4096,
        index_entries_step: 4,
        zero_ahead_bytes: 512,
        reserve_free_bytes: 0,
        ..LogOptions::default()
    }
}

pub(super) fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(directory()).expect("an empty disk");
    for (name, bytes) in files {
        let file = disk.create_new(&directory().join(name)).expect("a name of its own");
        file.write_at(&[bytes], 0).expect("there is room");
        file.sync_data().expect("nothing fails");
    }
    disk.sync_dir(directory()).expect("nothing fails");
    disk
}

pub(super) fn files_of(disk: &SimDisk) -> Files {
    let read = |name: String| {
        let file = disk.open(&directory().join(&name)).expect("it is listed");
        let mut bytes = vec![0; file.len().expect("nothing fails") as usize];
        file.read_at(&mut bytes, 0).expect("nothing fails");
        (name, bytes)
    };
    let names = disk.list(directory()).expect("nothing fails");
    names.into_iter().map(read).collect()
}

pub(super) fn open(disk: &SimDisk) -> Result<(Log, Recovered), LogError> {
    let clock = Arc::new(ManualClock::at(NOW));
    Log::open(Arc::new(disk.clone()), clock, directory(), options(), &mut |_, _| {})
}

/// What lies at each offset of the log that [`written`] has.
#[derive(Debug)]
pub(super) struct Written {
    pub files: Files,
    pub values: Vec<(Timestamp, Vec<u8>)>,
    pub last: RaftIndex,
}

pub(super) fn entry(index: u64, term: u64, values: &[(Timestamp, Vec<u8>)]) -> Entry {
    let mut builder = BatchBuilder::new();
    for (timestamp, value) in values {
        builder.push(&Record::of_value(value.clone(), *timestamp)).expect("it fits");
    }
    let payload = match builder.finish() {
        Some(batches) => EntryPayload::Data(vec![batches]),
        None => EntryPayload::Internal(Bytes::from_static(b"members")),
    };
    Entry { term: Term(term), index: RaftIndex(index), payload }
}

/// Three segments and a checkpoint, with two terms, as a process leaves them that is killed: entries
/// behind the checkpoint, and zeros behind those.
pub(super) fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk).expect("an empty directory");
        let mut values = Vec::new();
        for index in 1..=30u64 {
            let fresh: Vec<_> = (0..index % 3)
                .map(|n| {
                    let at = Timestamp(NOW.0 + index as i64 * 1000 + n as i64);
                    (at, format!("value {index}.{n} ").repeat(30).into_bytes())
                })
                .collect();
            log.append(&[entry(index, 1 + index / 12, &fresh)]).expect("it fits");
            let _ = log.sync().expect("nothing fails");
            if index == CHECKPOINTED.0 {
                log.checkpoint().expect("nothing fails");
            }
            values.extend(fresh);
        }
        drop(log);
        let files = files_of(&disk);
        let stores = files.keys().filter(|name| name.ends_with(".store")).count();
        assert!(stores >= 3, "{stores} segments");
        Written { files, values, last: RaftIndex(30) }
    })
}

/// What an input did.
#[derive(Debug, Default)]
pub(super) struct Edited {
    pub files: Files,
    /// Checksums were made right again: what is shown may be what was never written.
    pub is_sealed: bool,
}

/// Edits of the files whose names are taken: an operation, a file, a place, a length, and as many
/// bytes; each cut to what there is.
pub(super) fn edited(mut script: &[u8], takes: impl Fn(&str) -> bool) -> Edited {
    let mut edited = Edited { files: written().files.clone(), is_sealed: false };
    for _ in 0..EDITS_MAX {
        let Some((&[operation, file, high, low, length], rest)) = script.split_first_chunk() else {
            break;
        };
        let names: Vec<String> = edited.files.keys().filter(|n| takes(n)).cloned().collect();
        if names.is_empty() {
            break;
        }
        let at_name = |at: u8| names[usize::from(at) % names.len()].clone();
        let (given, behind) = rest.split_at(usize::from(length).min(rest.len()));
        script = behind;
        let name = at_name(file);
        let place = usize::from(u16::from_be_bytes([high, low]));
        let donor = edited.files[&at_name(length)].clone();
        let bytes = edited.files.get_mut(&name).expect("it is listed");
        let place = place % (bytes.len() + 1);
        match operation % 9 {
            0 => overwrite(bytes, place, given),
            1 => bytes.truncate(place),
            2 => drop(edited.files.remove(&name)),
            3 => bytes.extend_from_slice(given),
            4 => overwrite(bytes, place, &donor[..donor.len().min(4 * usize::from(length))]),
            5 => overwrite(bytes, place, &vec![0; 8 * usize::from(length)]),
            6 => {
                given.iter().zip(bytes[place..].iter_mut()).for_each(|(flip, byte)| *byte ^= flip);
            }
            // Checksums made right: of a small file as a whole, of the frame at a place.
            7 => {
                reseal_small(bytes);
                edited.is_sealed = true;
            }
            _ => {
                reseal_frame(bytes, place);
                edited.is_sealed = true;
            }
        }
        if let Some(bytes) = edited.files.get_mut(&name) {
            bytes.truncate(FILE_BYTES_MAX);
        }
    }
    edited
}

fn overwrite(bytes: &mut Vec<u8>, place: usize, given: &[u8]) {
    let end = place + given.len();
    if end > bytes.len() {
        bytes.resize(end, 0);
    }
    bytes[place..end].copy_from_slice(given);
}

fn reseal_small(bytes: &mut Vec<u8>) {
    if let Some((head, content)) = bytes.split_first_chunk::<24>() {
        let magic = head[..4].try_into().expect("4 bytes");
        let version = u32::from_be_bytes(head[4..8].try_into().expect("4 bytes"));
        *bytes = stable::encode(magic, version, content);
    }
}

/// The frame that the place lies in, by the lengths of those before it.
fn reseal_frame(bytes: &mut [u8], place: usize) {
    let mut at = 0;
    while let Some(length) = bytes[at..].first_chunk::<8>() {
        let end = u64::from_be_bytes(*length).saturating_add(8).saturating_add(at as u64);
        let Some(frame) = usize::try_from(end).ok().and_then(|end| bytes.get_mut(at..end)) else {
            return;
        };
        let end = at + frame.len();
        if place < end {
            return super::frame::reseal(frame);
        }
        at = end;
    }
}

/// The offset of a record at or behind a time, as a reader of all of it finds.
pub(super) fn first_at(time: Timestamp) -> Offset {
    let values = &written().values;
    let found = values.iter().position(|(at, _)| *at >= time);
    Offset(found.unwrap_or(values.len()) as u64)
}
