//! One frame's bytes: a Raft entry with its header and checksum. Pure: no file, no clock.
//!
//! Every byte is covered by exactly one checksum. The frame's own covers its header and, of each
//! record batch, the first [`PREFIX_BYTES`] (which hold the batch's checksum); the batch's covers
//! the rest. So a batch that was checked at the socket is not summed again on its way to disk.

use super::batch::{self, PREFIX_BYTES};
use super::control::{Sin, commits};
use super::entry::{Entry, EntryPayload};
use crate::model::{Offset, RaftIndex, Term, Timestamp};
use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};
use std::fmt;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 56;
/// The frame format that this program writes.
pub const VERSION: u8 = 1;
/// Batches below this are copied next to their header; larger ones are written from where they
/// are, since a copy would cost more than one more part of the vectored write.
const COPY_BELOW_BYTES: usize = 4096;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Whole record batches.
    Data,
    /// Bytes of the consensus room; no records.
    Internal,
}

/// A frame's header, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the whole frame, header included.
    pub frame_bytes: u64,
    /// The checksum as stored.
    pub crc: u32,
    /// What the payload is.
    pub kind: FrameKind,
    /// The format version.
    pub version: u8,
    /// The entry's term.
    pub term: Term,
    /// The entry's place in the Raft log.
    pub index: RaftIndex,
    /// The offset of the first record; of the next record when there is none.
    pub base: Offset,
    /// How many records the payload holds.
    pub records: u32,
    /// Which log wrote it: a number drawn when the log was created. Keeps a log that is stored
    /// as a record from being taken for frames of the log that holds it.
    pub identity: u32,
    /// The highest entry that the writer knew to be synced when it wrote this frame.
    pub durable: RaftIndex,
}

/// Why some bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each variant names its fields")]
pub enum FrameFault {
    /// Fewer bytes than a header, or than the header promises.
    Short,
    /// The header's fixed fields do not have values that this program writes.
    NotAHeader,
    /// The length cannot be right.
    Length { frame_bytes: u64 },
    /// The frame's checksum does not match.
    FrameChecksum,
    /// The checksum matches, but a later program wrote this.
    Version { found: u8 },
    /// A batch's checksum or structure is wrong.
    Batch { at_bytes: usize },
    /// The batches do not add up to what the header says.
    Sum,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the file ends inside a frame"),
            Self::NotAHeader => f.write_str("no frame header"),
            Self::Length { frame_bytes } => write!(f, "impossible frame length {frame_bytes}"),
            Self::FrameChecksum => f.write_str("frame checksum mismatch"),
            Self::Version { found } => write!(f, "unknown frame version {found}"),
            Self::Batch { at_bytes } => {
                write!(f, "bad record batch {at_bytes} bytes into the frame")
            }
            Self::Sum => f.write_str("frame header and batches disagree"),
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("a slice of 8"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("a slice of 4"))
}

impl FrameHeader {
    /// Reads a header. Checks the fixed fields, not the checksum.
    ///
    /// # Errors
    /// [`FrameFault::Short`], [`FrameFault::NotAHeader`] or [`FrameFault::Length`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameFault> {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else { return Err(FrameFault::Short) };
        let kind = match bytes[12] {
            1 => FrameKind::Data,
            2 => FrameKind::Internal,
            _ => return Err(FrameFault::NotAHeader),
        };
        let reserved_clear = bytes[14..16] == [0, 0];
        let header = Self {
            frame_bytes: u64_at(bytes, 0).saturating_add(8),
            crc: u32_at(bytes, 8),
            kind,
            version: bytes[13],
            term: Term(u64_at(bytes, 16)),
            index: RaftIndex(u64_at(bytes, 24)),
            base: Offset(u64_at(bytes, 32)),
            records: u32_at(bytes, 40),
            identity: u32_at(bytes, 44),
            durable: RaftIndex(u64_at(bytes, 48)),
        };
        if !reserved_clear || header.version == 0 || header.durable >= header.index {
            return Err(FrameFault::NotAHeader);
        }
        // Also keeps `next_offset` and the following index from overflowing.
        if header.base.0 > i64::MAX as u64 || header.index.0 > i64::MAX as u64 {
            return Err(FrameFault::NotAHeader);
        }
        let least = match kind {
            FrameKind::Data if header.records == 0 => return Err(FrameFault::NotAHeader),
            FrameKind::Internal if header.records != 0 => return Err(FrameFault::NotAHeader),
            FrameKind::Data => HEADER_BYTES + batch::HEADER_BYTES,
            FrameKind::Internal => HEADER_BYTES,
        };
        if header.frame_bytes < least as u64 || header.frame_bytes > 1 << 31 {
            return Err(FrameFault::Length { frame_bytes: header.frame_bytes });
        }
        Ok(header)
    }

    /// The offset behind the frame's last record.
    pub fn next_offset(&self) -> Offset {
        self.base.plus(u64::from(self.records))
    }
}

/// The checksum of a header's own bytes, without its checksum field.
fn header_crc(header: &[u8]) -> u32 {
    crc32c_append(crc32c(&header[..8]), &header[12..HEADER_BYTES])
}

/// Bytes of a whole batch, from its first 12.
fn batch_bytes(prefix: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(prefix.get(8..12)?.try_into().expect("a slice of 4"));
    let whole = usize::try_from(length).ok()?.checked_add(12)?;
    (whole >= batch::HEADER_BYTES).then_some(whole)
}

/// Checks a whole frame: header, checksum, each batch, and that offsets and counts add up.
///
/// `bytes` begins at the frame and may go on behind it.
///
/// # Errors
/// The first [`FrameFault`].
pub fn verify(bytes: &[u8]) -> Result<FrameHeader, FrameFault> {
    let header = FrameHeader::parse(bytes)?;
    let Some(frame) = bytes.get(..header.frame_bytes as usize) else {
        return Err(FrameFault::Short);
    };
    verify_head(frame, &header)?;
    if header.kind == FrameKind::Internal {
        return Ok(header);
    }
    let mut at = HEADER_BYTES;
    let mut next = header.base;
    while at < frame.len() {
        let whole = batch_bytes(&frame[at..]).ok_or(FrameFault::Batch { at_bytes: at })?;
        let stored = &frame[at..at + whole];
        let facts = check_batch(stored).map_err(|_| FrameFault::Batch { at_bytes: at })?;
        if facts.base_offset != next {
            return Err(FrameFault::Sum);
        }
        next = next.plus(u64::from(facts.record_count));
        at += whole;
    }
    if next != header.next_offset() {
        return Err(FrameFault::Sum);
    }
    Ok(header)
}

/// A stored batch against its own checksum.
fn check_batch(stored: &[u8]) -> Result<batch::BatchHeader, batch::BatchError> {
    if commits(Sin::IgnoreChecksums) {
        batch::BatchHeader::parse(stored)
    } else {
        batch::verify_crc(stored)
    }
}

/// Checks the frame's own checksum alone: the header and each batch's prefix (all of an internal
/// frame). Enough to know that the writer wrote it, not that the batches are whole.
fn verify_head(frame: &[u8], header: &FrameHeader) -> Result<(), FrameFault> {
    let mut crc = header_crc(frame);
    match header.kind {
        FrameKind::Internal => crc = crc32c_append(crc, &frame[HEADER_BYTES..]),
        FrameKind::Data => {
            let mut at = HEADER_BYTES;
            while at < frame.len() {
                let whole = batch_bytes(&frame[at..]).ok_or(FrameFault::FrameChecksum)?;
                if whole > frame.len() - at {
                    return Err(FrameFault::FrameChecksum);
                }
                crc = crc32c_append(crc, &frame[at..at + PREFIX_BYTES]);
                at += whole;
            }
        }
    }
    if crc != header.crc && !commits(Sin::IgnoreChecksums) {
        return Err(FrameFault::FrameChecksum);
    }
    if header.version != VERSION {
        return Err(FrameFault::Version { found: header.version });
    }
    Ok(())
}

/// As the head check of [`verify`], reading only what it needs through `read`, which fills the
/// buffer from so many bytes behind the frame's start, or says no.
///
/// Lets a search for frames behind damage look at a claimed 32 MiB without reading it.
pub(super) fn head_holds(
    head: &[u8],
    header: &FrameHeader,
    mut read: impl FnMut(u64, &mut [u8]) -> bool,
) -> bool {
    let mut crc = header_crc(head);
    let mut at = HEADER_BYTES as u64;
    while at < header.frame_bytes {
        match header.kind {
            FrameKind::Data => {
                let mut prefix = [0; PREFIX_BYTES];
                if header.frame_bytes - at < batch::HEADER_BYTES as u64 || !read(at, &mut prefix) {
                    return false;
                }
                let Some(whole) = batch_bytes(&prefix) else { return false };
                crc = crc32c_append(crc, &prefix);
                at += whole as u64;
            }
            FrameKind::Internal => {
                let mut piece = [0; 1024];
                let take = (header.frame_bytes - at).min(piece.len() as u64) as usize;
                if !read(at, &mut piece[..take]) {
                    return false;
                }
                crc = crc32c_append(crc, &piece[..take]);
                at += take as u64;
            }
        }
    }
    at == header.frame_bytes && crc == header.crc
}

/// Bytes and records that an entry takes as a frame.
pub fn measure(entry: &Entry) -> (u64, u64) {
    let (payload, records) = match &entry.payload {
        EntryPayload::Internal(bytes) => (bytes.len() as u64, 0),
        EntryPayload::Data(groups) => groups.iter().fold((0, 0), |(bytes, records), group| {
            (bytes + group.bytes().len() as u64, records + u64::from(group.record_count()))
        }),
    };
    (HEADER_BYTES as u64 + payload, records)
}

/// What the log must remember of a frame that it encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct EncodedFrame {
    pub index: RaftIndex,
    pub base: Offset,
    pub records: u32,
    pub frame_bytes: u64,
    /// The newest record's time; none for internal frames.
    pub max_timestamp: Option<Timestamp>,
}

#[derive(Debug)]
enum Part {
    /// A range of the head buffer.
    Head { start: usize, end: usize },
    /// User bytes where the caller has them.
    User(Bytes),
}

/// Encodes entries into the parts of one vectored write. Kept between writes for its buffers.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    head: Vec<u8>,
    parts: Vec<Part>,
    frames: Vec<EncodedFrame>,
    bytes: u64,
    identity: u32,
}

impl Encoder {
    /// An encoder for the log of this identity.
    pub fn new(identity: u32) -> Self {
        Self { identity, ..Self::default() }
    }

    /// The identity that it writes.
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// Forgets what was encoded; lets go of user bytes and of an outsized buffer.
    pub fn clear(&mut self) {
        self.head.clear();
        self.head.shrink_to(1 << 20);
        self.parts.clear();
        self.frames.clear();
        self.bytes = 0;
    }

    /// As [`Encoder::clear`]; lets go of every buffer.
    pub fn rest(&mut self) {
        *self = Self::new(self.identity);
    }

    /// The frames encoded since [`Encoder::clear`].
    pub fn frames(&self) -> &[EncodedFrame] {
        &self.frames
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The parts to write, in order.
    pub fn parts(&self) -> Vec<&[u8]> {
        let part = |part| match part {
            &Part::Head { start, end } => &self.head[start..end],
            Part::User(bytes) => &bytes[..],
        };
        self.parts.iter().map(part).collect()
    }

    /// Adds an entry as a frame, its batches stamped with `base` and the term.
    pub fn push(&mut self, entry: &Entry, base: Offset, durable: RaftIndex) {
        let (frame_bytes, records) = measure(entry);
        let records = u32::try_from(records).expect("the log checks the count before it encodes");
        let at = self.head.len();
        self.head.extend_from_slice(&(frame_bytes - 8).to_be_bytes());
        self.head.extend_from_slice(&[0; 4]);
        let kind = if matches!(entry.payload, EntryPayload::Data(_)) { 1 } else { 2 };
        self.head.extend_from_slice(&[kind, VERSION, 0, 0]);
        self.head.extend_from_slice(&entry.term.0.to_be_bytes());
        self.head.extend_from_slice(&entry.index.0.to_be_bytes());
        self.head.extend_from_slice(&base.0.to_be_bytes());
        self.head.extend_from_slice(&records.to_be_bytes());
        self.head.extend_from_slice(&self.identity.to_be_bytes());
        self.head.extend_from_slice(&durable.0.to_be_bytes());
        let mut crc = header_crc(&self.head[at..]);
        self.close_head_part(at);
        let mut max_timestamp = None;
        match &entry.payload {
            EntryPayload::Internal(bytes) => {
                crc = crc32c_append(crc, bytes);
                self.push_bytes(bytes, 0);
            }
            EntryPayload::Data(groups) => {
                let mut next = base;
                for group in groups {
                    max_timestamp = max_timestamp.max(Some(group.max_timestamp()));
                    crc = self.push_batches(group.bytes(), &mut next, entry.term, crc);
                }
                assert_eq!(next, base.plus(u64::from(records)), "batches hold what they declare");
            }
        }
        self.head[at + 8..at + 12].copy_from_slice(&crc.to_be_bytes());
        let index = entry.index;
        self.frames.push(EncodedFrame { index, base, records, frame_bytes, max_timestamp });
        self.bytes += frame_bytes;
    }

    /// Adds whole batches, each with its own base offset; returns the checksum carried on.
    fn push_batches(&mut self, bytes: &Bytes, next: &mut Offset, term: Term, mut crc: u32) -> u32 {
        let mut at = 0;
        while at < bytes.len() {
            let whole = batch_bytes(&bytes[at..]).expect("validated batches have whole headers");
            let one = bytes.slice(at..at + whole);
            let last_delta = u32_at(&one, 23);
            let head = self.push_bytes(&one, batch::HEADER_BYTES);
            // Kafka's field is a signed 32 bits; the term keeps its low 31.
            let epoch = (term.0 & 0x7fff_ffff) as u32;
            let prefix = &mut self.head[head..head + PREFIX_BYTES];
            batch::stamp(prefix, *next, epoch);
            crc = crc32c_append(crc, prefix);
            *next = next.plus(u64::from(last_delta) + 1);
            at += whole;
        }
        crc
    }

    /// Adds bytes, of which at least the first `owned` are copied so that they can be changed.
    /// Returns where in the head buffer they begin.
    fn push_bytes(&mut self, bytes: &Bytes, owned: usize) -> usize {
        let copied = if bytes.len() < COPY_BELOW_BYTES { bytes.len() } else { owned };
        let start = self.head.len();
        self.head.extend_from_slice(&bytes[..copied]);
        self.close_head_part(start);
        if copied < bytes.len() {
            self.parts.push(Part::User(bytes.slice(copied..)));
        }
        start
    }

    /// Makes the head buffer from `start` on part of the write.
    fn close_head_part(&mut self, start: usize) {
        let upto = self.head.len();
        match self.parts.last_mut() {
            Some(Part::Head { end, .. }) if *end == start => *end = upto,
            _ if start == upto => {}
            _ => self.parts.push(Part::Head { start, end: upto }),
        }
    }
}
