//! Reading a store from front to back: which frames are whole, and what the first bad place is:
//! the end, a torn tail, or corruption. Changes nothing; recovery and `segment verify` decide.
//!
//! The verdict: raft indexes are contiguous, so the first bad place is where entry `i` would be.
//! Behind it, any frame whose head checks out, of entry `i` or later, tells what its writer knew
//! to be synced. When that is `i` or more, entry `i` had been durable: corruption. When no such
//! frame is there, entry `i` may never have been acknowledged: the tail is torn. Frames of lower
//! index are stale and say nothing.

use super::chunk::batch_facts;
use super::control::{Sin, commits};
use super::disk::DiskFile;
use super::frame::{self, FrameFault, FrameHeader, FrameKind, HEADER_BYTES};
use crate::model::{Offset, RaftIndex, Term, Timestamp};
use std::io;

const READ_BYTES: usize = 1 << 20;
static ZEROS: [u8; 4096] = [0; 4096];

/// Where a scan begins, and what must be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    pub position_bytes: u64,
    /// The entry that must come; `None` when nothing is known.
    pub index: Option<RaftIndex>,
    pub next: Offset,
    /// The term of the entry before.
    pub term: Term,
    /// Entries up to this are known to have been synced.
    pub durable: RaftIndex,
    /// The log's identity, where it is known; else the first frame's counts.
    pub identity: Option<u32>,
}

/// A whole frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub position_bytes: u64,
    pub header: FrameHeader,
    /// The newest record's time.
    pub newest: Option<Timestamp>,
    pub batches: u32,
}

/// What is behind the last whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the doc of each variant tells of its field")]
pub enum Tail {
    /// The file ends, or only zeros follow.
    End,
    /// Bytes of a flush that was never known to be durable.
    Torn { reason: String },
    /// Bytes that were durable once.
    Corrupt { reason: String },
    /// A frame of a later program.
    UnknownVersion { found: u8 },
}

/// What a scan saw.
#[derive(Debug)]
pub(super) struct Scan {
    pub frames: Vec<Found>,
    /// Where the frames end.
    pub end_bytes: u64,
    /// The highest entry that a frame here claims to have been synced.
    pub durable: RaftIndex,
    pub tail: Tail,
}

/// Scans a store of `len_bytes`. `progress` gets the position reached.
pub(super) fn scan(
    file: &dyn DiskFile,
    len_bytes: u64,
    from: From,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Scan> {
    let mut window = Window::new(file, len_bytes);
    let mut scan = Scan {
        frames: Vec::new(),
        end_bytes: from.position_bytes,
        durable: from.durable,
        tail: Tail::End,
    };
    let (mut expected, mut next, mut term) = (from.index, from.next, from.term);
    let mut identity = from.identity;
    let fault = loop {
        progress(scan.end_bytes);
        if scan.end_bytes >= len_bytes {
            return Ok(scan);
        }
        let found = match window.frame(scan.end_bytes)? {
            Ok(found) => found,
            Err(fault) => break fault,
        };
        let header = found.header;
        let follows = expected.is_none_or(|index| header.index == index)
            && identity.is_none_or(|identity| header.identity == identity);
        let is_next = follows && header.base == next && header.term >= term;
        if !is_next && !commits(Sin::TakeStaleFrames) {
            break FrameFault::Sum;
        }
        expected = Some(header.index.next());
        identity = Some(header.identity);
        (next, term) = (header.next_offset(), header.term);
        scan.durable = scan.durable.max(header.durable);
        scan.end_bytes += header.frame_bytes;
        scan.frames.push(found);
    };
    if commits(Sin::DropWholeFrame)
        && let Some(dropped) = scan.frames.pop()
    {
        scan.end_bytes = dropped.position_bytes;
    }
    let must = Must { index: expected, next, durable: scan.durable, identity };
    scan.tail = judge(&mut window, scan.end_bytes, must, fault)?;
    Ok(scan)
}

/// What had to be at the first bad place.
struct Must {
    index: Option<RaftIndex>,
    next: Offset,
    durable: RaftIndex,
    identity: Option<u32>,
}

/// The verdict on the first bad place.
fn judge(window: &mut Window<'_>, place: u64, must: Must, fault: FrameFault) -> io::Result<Tail> {
    if let FrameFault::Version { found } = fault {
        return Ok(Tail::UnknownVersion { found });
    }
    if let Some(index) = must.index.filter(|index| *index <= must.durable) {
        let reason = format!("{fault}, where entry {index} was durable");
        return Ok(Tail::Corrupt { reason });
    }
    if window.is_zero_from(place)? {
        return Ok(Tail::End);
    }
    if commits(Sin::StopAtDamage) {
        return Ok(Tail::Torn { reason: fault.to_string() });
    }
    let later = |header: &FrameHeader| {
        let is_ours = must.identity.is_none_or(|identity| header.identity == identity);
        (is_ours || commits(Sin::IgnoreIdentity))
            && must.index.is_none_or(|index| {
                header.index >= index && header.base >= must.next && header.durable >= index
            })
    };
    match window.find_head(place, later)? {
        None => Ok(Tail::Torn { reason: fault.to_string() }),
        Some((position, header)) => {
            let (index, durable) = (header.index, header.durable);
            let reason = format!(
                "{fault}, yet entry {index} at byte {position} says that all up to {durable} was durable"
            );
            Ok(Tail::Corrupt { reason })
        }
    }
}

/// A moving window over a file, read in large steps.
struct Window<'f> {
    file: &'f dyn DiskFile,
    len_bytes: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'f> Window<'f> {
    fn new(file: &'f dyn DiskFile, len_bytes: u64) -> Self {
        Self { file, len_bytes, start: 0, bytes: Vec::new() }
    }

    /// `count` bytes from `position`, fewer at the file's end.
    fn get(&mut self, position: u64, count: usize) -> io::Result<&[u8]> {
        let count = count.min((self.len_bytes - position) as usize);
        let held = position >= self.start
            && position + count as u64 <= self.start + self.bytes.len() as u64;
        if !held {
            let take = count.max(READ_BYTES).min((self.len_bytes - position) as usize);
            self.bytes.resize(take, 0);
            self.start = position;
            self.file.read_at(&mut self.bytes, position)?;
        }
        let at = (position - self.start) as usize;
        Ok(&self.bytes[at..at + count])
    }

    /// The whole, verified frame at `position`.
    fn frame(&mut self, position: u64) -> io::Result<Result<Found, FrameFault>> {
        let header = match FrameHeader::parse(self.get(position, HEADER_BYTES)?) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        if header.frame_bytes > self.len_bytes - position {
            return Ok(Err(FrameFault::Short));
        }
        let bytes = self.get(position, header.frame_bytes as usize)?;
        Ok(frame::verify(bytes).map(|header| {
            let is_data = header.kind == FrameKind::Data;
            let (newest, batches) = if is_data { batch_facts(bytes) } else { (None, 0) };
            Found { position_bytes: position, header, newest, batches }
        }))
    }

    /// True when the file holds only zeros from `position` on.
    fn is_zero_from(&mut self, mut position: u64) -> io::Result<bool> {
        while position < self.len_bytes {
            let bytes = self.get(position, READ_BYTES)?;
            if bytes.chunks(ZEROS.len()).any(|chunk| chunk != &ZEROS[..chunk.len()]) {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
        Ok(true)
    }

    /// The first place from `position` on where the head of a frame checks out that `wanted`
    /// says yes to. Frames may begin at any byte behind damage, so every byte is tried.
    fn find_head(
        &mut self,
        mut position: u64,
        wanted: impl Fn(&FrameHeader) -> bool,
    ) -> io::Result<Option<(u64, FrameHeader)>> {
        while position + HEADER_BYTES as u64 <= self.len_bytes {
            let (file, len_bytes) = (self.file, self.len_bytes);
            let bytes = self.get(position, READ_BYTES)?;
            let places = bytes.len() - (HEADER_BYTES - 1);
            let mut at = 0;
            while at < places {
                // No header begins where its kind byte and the 4 KiB behind it are zero.
                let probe = at + 12;
                if bytes.get(probe..probe + ZEROS.len()) == Some(&ZEROS) {
                    at += ZEROS.len();
                    continue;
                }
                if bytes[at + 13] == frame::VERSION && bytes[at + 14] == 0 {
                    let begin = position + at as u64;
                    let head = &bytes[at..at + HEADER_BYTES];
                    if let Some(header) = plausible(file, len_bytes, begin, head)
                        && wanted(&header)
                    {
                        return Ok(Some((begin, header)));
                    }
                }
                at += 1;
            }
            position += places as u64;
        }
        Ok(None)
    }
}

/// The header at `begin` when its checksum holds.
fn plausible(file: &dyn DiskFile, len_bytes: u64, begin: u64, head: &[u8]) -> Option<FrameHeader> {
    let header = FrameHeader::parse(head).ok()?;
    if header.frame_bytes > len_bytes - begin {
        return None;
    }
    let read = |at: u64, target: &mut [u8]| file.read_at(target, begin + at).is_ok();
    frame::head_holds(head, &header, read).then_some(header)
}
