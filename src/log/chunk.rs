//! From a run of frames to the record batches in it: checked once, headers squeezed out in place.
//! Pure: one buffer in, the same buffer out. No work per record, and what is shown first stays where
//! it is: a run of one large frame is not moved at all.

use super::batch::BatchHeader;
use super::buffer::Buffer;
use super::entry::Chunk;
use super::frame::{self, FrameFault, FrameKind, HEADER_BYTES};
use crate::model::{Offset, RaftIndex, Timestamp};

/// What a run of frames must be and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The Raft index of the first frame.
    pub index: RaftIndex,
    /// The record that the read begins at.
    pub from: Offset,
    /// No frame that ends behind this may be shown.
    pub until: Offset,
}

/// What was found in a run.
#[derive(Debug)]
pub(super) struct Squeezed {
    /// The batches, when there were any.
    pub chunk: Option<Chunk>,
    /// Whole frames that were passed.
    pub frames: u64,
    /// Why the run ended, with the place in the run; none when all of it was used, or the bound
    /// was met.
    pub fault: Option<(usize, FrameFault)>,
    /// True when the next frame lies behind the bound.
    pub bounded: bool,
}

/// Checks the frames in `run` and moves their batches together to its front.
pub(super) fn squeeze(mut run: Buffer, wanted: Wanted) -> Squeezed {
    let (mut source, mut shown) = (0, 0..0);
    let mut out = Squeezed { chunk: None, frames: 0, fault: None, bounded: false };
    let (mut base, mut next): (Option<Offset>, Option<Offset>) = (None, None);
    while source < run.len() {
        let header = match frame::verify(&run[source..]) {
            Ok(header) => header,
            Err(fault) => {
                out.fault = Some((source, fault));
                break;
            }
        };
        let follows = next.map_or(header.base <= wanted.from, |next| header.base == next);
        if header.index.0 != wanted.index.0 + out.frames || !follows {
            out.fault = Some((source, FrameFault::Sum));
            break;
        }
        if header.next_offset() > wanted.until {
            out.bounded = true;
            break;
        }
        let end = source + header.frame_bytes as usize;
        if header.kind == FrameKind::Data && header.next_offset() > wanted.from {
            let mut start = source + HEADER_BYTES;
            if base.is_none() {
                let (skip, first) = skip_below(&run[start..end], header.base, wanted.from);
                start += skip;
                base = Some(first);
                shown = start..start;
            }
            if start > shown.end {
                run.copy_within(start..end, shown.end);
            }
            shown.end += end - start;
        }
        next = Some(header.next_offset());
        out.frames += 1;
        source = end;
    }
    if let (Some(base), Some(next)) = (base, next) {
        let records = next.0 - base.0;
        out.chunk = Some(Chunk { batches: run.share(shown), base, next, records });
    }
    out
}

/// Bytes of the verified batches that end at or below `from`, and the offset that follows them.
fn skip_below(batches: &[u8], base: Offset, from: Offset) -> (usize, Offset) {
    let (mut at, mut first) = (0, base);
    while at < batches.len() {
        let header = BatchHeader::parse(&batches[at..]).expect("the frame was verified");
        if header.next_offset() > from {
            break;
        }
        at += header.length_bytes;
        first = header.next_offset();
    }
    (at, first)
}

/// The newest timestamp in a verified data frame, and how many batches it holds.
pub(super) fn batch_facts(frame: &[u8]) -> (Option<Timestamp>, u32) {
    let (mut at, mut newest, mut count) = (HEADER_BYTES, None, 0);
    while at < frame.len() {
        let header = BatchHeader::parse(&frame[at..]).expect("the frame was verified");
        newest = newest.max(Some(header.max_timestamp));
        at += header.length_bytes;
        count += 1;
    }
    (newest, count)
}
