//! Frames: a Raft entry as it lies on disk.

use crate::log::batch::{BatchBuilder, PREFIX_BYTES, batches, stamp};
use crate::log::frame::{FrameFault, FrameHeader, FrameKind, HEADER_BYTES, VERSION, verify};
use crate::model::{Offset, Record, Timestamp};
use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

pub(super) fn run(bytes: &[u8]) {
    looked_at(bytes);
    looked_at(&sealed(bytes));
}

fn looked_at(bytes: &[u8]) {
    let found = verify(bytes);
    assert_eq!(found, verify(bytes), "two looks at the same bytes");
    let Ok(header) = found else { return };
    assert_eq!(FrameHeader::parse(bytes), Ok(header), "the header alone says the same");
    let length = header.frame_bytes as usize;
    assert!(length <= bytes.len(), "no frame is longer than what is there");
    assert_eq!(header.version, VERSION);
    assert!(header.durable < header.index, "no frame proves itself");
    assert_eq!(verify(&bytes[..length]), Ok(header), "nothing behind it counts");
    assert_eq!(verify(&bytes[..length - 1]), Err(FrameFault::Short), "all of it counts");
    let payload = &bytes[HEADER_BYTES..length];
    if header.kind == FrameKind::Internal {
        return;
    }
    let mut next = header.base;
    for batch in batches(&Bytes::copy_from_slice(payload)) {
        let (batch, _) = batch.expect("a frame holds whole batches");
        assert_eq!(batch.base_offset, next, "offsets are dense");
        next = next.plus(u64::from(batch.record_count));
    }
    assert_eq!(next, header.next_offset(), "as many records as it says");
}

/// The bytes as a frame whose length and checksums are right, so that mutations get behind them.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    reseal(&mut frame);
    frame
}

/// Makes length and checksums right of what may be a frame.
pub(super) fn reseal(frame: &mut [u8]) {
    if frame.len() < HEADER_BYTES {
        return;
    }
    let length = frame.len() as u64 - 8;
    frame[..8].copy_from_slice(&length.to_be_bytes());
    let mut at = HEADER_BYTES;
    let is_data = frame[12] == 1;
    while is_data && frame.len() - at > PREFIX_BYTES {
        let length = u32::from_be_bytes(frame[at + 8..at + 12].try_into().expect("4 bytes"));
        let whole = (length as usize).saturating_add(12);
        let Some(batch) = frame[at..].get_mut(..whole).filter(|_| whole > PREFIX_BYTES) else {
            break;
        };
        let crc = crc32c(&batch[PREFIX_BYTES..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        at += whole;
    }
    let crc = checksum(frame, is_data);
    frame[8..12].copy_from_slice(&crc.to_be_bytes());
}

/// As `docs/formats/segment.md` has it.
fn checksum(frame: &[u8], is_data: bool) -> u32 {
    let mut crc = crc32c_append(crc32c(&frame[..8]), &frame[12..HEADER_BYTES]);
    let mut rest = &frame[HEADER_BYTES..];
    if !is_data {
        return crc32c_append(crc, rest);
    }
    while rest.len() >= PREFIX_BYTES {
        crc = crc32c_append(crc, &rest[..PREFIX_BYTES]);
        let length = u32::from_be_bytes(rest[8..12].try_into().expect("4 bytes"));
        let Some(behind) = rest.get((length as usize).saturating_add(12)..) else { break };
        rest = behind;
    }
    crc
}

/// A frame of so many batches of one record each; none: an internal one.
pub(super) fn frame(index: u64, base: u64, count: usize, value: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame[12..14].copy_from_slice(&[if count > 0 { 1 } else { 2 }, VERSION]);
    let fields = [(16, 1), (24, index), (32, base), (48, index - 1)];
    for (at, value) in fields {
        frame[at..at + 8].copy_from_slice(&u64::to_be_bytes(value));
    }
    frame[40..44].copy_from_slice(&(count as u32).to_be_bytes());
    for at in 0..count {
        let mut builder = BatchBuilder::new();
        let record = Record::of_value(value.to_vec(), Timestamp(1_700_000_000_000));
        builder.push(&record).expect("it fits");
        let mut batch = builder.finish().expect("a record").into_bytes().to_vec();
        stamp(&mut batch, Offset(base + at as u64), 1);
        frame.extend(batch);
    }
    if count == 0 {
        frame.extend_from_slice(value);
    }
    reseal(&mut frame);
    frame
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        frame(1, 0, 0, b""),
        frame(9, 17, 0, b"members"),
        frame(2, 5, 1, b"one"),
        frame(3, 0, 3, b"three of them"),
    ];
    let mut torn = frame(3, 0, 2, b"torn");
    torn.truncate(torn.len() - 9);
    let mut flipped = frame(3, 0, 2, b"flipped");
    flipped[80] ^= 4;
    let mut newer = frame(4, 0, 1, b"newer");
    newer[13] = VERSION + 1;
    seeds.extend([torn, flipped, newer]);
    seeds
}
