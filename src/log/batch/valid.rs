//! Checked batches: the only way for raw bytes into the log.

use super::compression::{Plain, too_large};
use super::cursor::Cursor;
use super::{
    BatchError, BatchFacts, BatchHeader, BatchLimits, HEADER_BYTES, batches, producers_of, stamp,
    verify_crc,
};
use crate::model::{Offset, Timestamp};
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::io::Read;

/// So much is decompressed at a time (unit: bytes).
const PART_BYTES: u64 = 64 << 10;
/// What a block of snappy may hold beside the longest record (unit: bytes).
const BLOCK_BYTES_MORE: usize = 64 << 10;

/// One or more whole batches whose every byte has been checked. `Debug` shows no user bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct ValidBatches {
    bytes: Bytes,
    batch_count: u32,
    record_count: u32,
    max_timestamp: Timestamp,
    /// True when a batch tells its producer; told once, so that asking costs nothing.
    has_producers: bool,
}

/// Checks batches as a client sent them, and keeps them as they are.
///
/// Per batch: magic, lengths, CRC; at least one record; as many records as stated, with dense
/// offsets, each within its limit and well framed; no bit set but the compression's. Compressed
/// batches are decompressed for that, within the limit, and then forgotten.
///
/// # Errors
/// The first thing found wrong; nothing is taken over then.
///
/// # Cost
/// One CRC and one walk over the framing; no allocation unless compressed. May take milliseconds
/// for large compressed batches.
pub fn validate(bytes: Bytes, limits: &BatchLimits) -> Result<ValidBatches, BatchError> {
    let mut decompressed_bytes_left = limits.decompressed_bytes_max;
    take_over(bytes, |header, batch| {
        check_whole(header, batch, limits)?;
        check_records(header, batch, limits, &mut decompressed_bytes_left)
    })
}

/// Takes over batches that a leader has judged, from its replication: they are in its log, so
/// only what may have happened on the way is checked: lengths, counts, checksums. Records are not
/// looked at, and nothing is decompressed.
///
/// # Errors
/// The first thing found wrong; nothing is taken over then.
///
/// # Cost
/// One CRC; no allocation.
pub fn receive(bytes: Bytes, limits: &BatchLimits) -> Result<ValidBatches, BatchError> {
    take_over(bytes, |header, batch| check_whole(header, batch, limits))
}

/// Splits the bytes, checks each batch, and sums up what all of them say.
fn take_over(
    bytes: Bytes,
    mut check: impl FnMut(&BatchHeader, &Bytes) -> Result<(), BatchError>,
) -> Result<ValidBatches, BatchError> {
    let mut batch_count = 0u32;
    let mut record_count = 0u32;
    let mut max_timestamp = Timestamp(i64::MIN);
    let mut has_producers = false;
    for batch in batches(&bytes) {
        let (header, batch) = batch?;
        check(&header, &batch)?;
        batch_count += 1;
        record_count = record_count
            .checked_add(header.record_count)
            .ok_or(BatchError::CountMismatch { stated: header.record_count, found: u32::MAX })?;
        max_timestamp = max_timestamp.max(header.max_timestamp);
        has_producers |= header.has_producer();
    }
    if batch_count == 0 {
        return Err(BatchError::Empty);
    }
    Ok(ValidBatches { bytes, batch_count, record_count, max_timestamp, has_producers })
}

impl ValidBatches {
    /// For the builder, whose batches are right by construction.
    pub(super) fn of_built(bytes: Bytes, header: &BatchHeader) -> Self {
        let BatchHeader { record_count, max_timestamp, .. } = *header;
        let has_producers = header.has_producer();
        Self { bytes, batch_count: 1, record_count, max_timestamp, has_producers }
    }

    /// The batches, one after another.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Gives up the guarantee for the bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The size of all batches with their headers.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many batches.
    pub fn batch_count(&self) -> u32 {
        self.batch_count
    }

    /// How many records in all batches; at least one.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The latest timestamp in the headers.
    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// Each batch with its header, in order.
    pub fn batches(&self) -> impl Iterator<Item = (BatchHeader, Bytes)> + use<> {
        batches(&self.bytes).map(|batch| batch.expect("the batches were split before"))
    }

    /// Those batches that tell their idempotent producer, in order. Costs nothing when none does.
    pub fn producers(&self) -> impl Iterator<Item = BatchFacts> + use<> {
        self.has_producers.then(|| producers_of(&self.bytes)).into_iter().flatten()
    }

    /// Gives the records the offsets from `base` on, and all batches the epoch. Works in place
    /// when nobody else holds the bytes, else on a copy.
    #[must_use]
    pub fn stamped(self, base: Offset, epoch: u32) -> Self {
        let mut bytes = BytesMut::from(self.bytes);
        let mut next = base;
        let mut at = 0;
        while at < bytes.len() {
            stamp(&mut bytes[at..], next, epoch);
            let header = BatchHeader::parse(&bytes[at..]).expect("the batches were parsed before");
            next = header.next_offset();
            at += header.length_bytes;
        }
        assert_eq!(next, base.plus(u64::from(self.record_count)), "offsets are dense");
        Self { bytes: bytes.freeze(), ..self }
    }

    /// Puts the batches of several requests one after another; no copy when there is only one.
    /// `None` when there is none, or the records are more than 2^32 - 1.
    pub fn join(all: Vec<Self>) -> Option<Self> {
        if all.len() <= 1 {
            return all.into_iter().next();
        }
        let mut bytes = BytesMut::with_capacity(all.iter().map(Self::len_bytes).sum());
        let (mut batch_count, mut record_count) = (0u32, 0u32);
        let mut max_timestamp = Timestamp(i64::MIN);
        let mut has_producers = false;
        for one in &all {
            bytes.extend_from_slice(&one.bytes);
            batch_count = batch_count.checked_add(one.batch_count)?;
            record_count = record_count.checked_add(one.record_count)?;
            max_timestamp = max_timestamp.max(one.max_timestamp);
            has_producers |= one.has_producers;
        }
        let bytes = bytes.freeze();
        Some(Self { bytes, batch_count, record_count, max_timestamp, has_producers })
    }
}

impl fmt::Debug for ValidBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidBatches")
            .field("len_bytes", &self.bytes.len())
            .field("batch_count", &self.batch_count)
            .field("record_count", &self.record_count)
            .field("max_timestamp", &self.max_timestamp)
            .finish()
    }
}

/// All that a batch can be checked for without its records.
fn check_whole(
    header: &BatchHeader,
    batch: &Bytes,
    limits: &BatchLimits,
) -> Result<(), BatchError> {
    if header.length_bytes > limits.batch_bytes_max {
        let batch_bytes_max = limits.batch_bytes_max;
        return Err(BatchError::BatchTooLarge {
            batch_bytes: header.length_bytes,
            batch_bytes_max,
        });
    }
    verify_crc(batch)?;
    if header.has_special_attributes() {
        // A compression of 5 to 7 lies within the allowed bits: told apart below.
        return Err(BatchError::UnsupportedAttributes { attributes: header.attributes });
    }
    header.compression()?;
    if header.record_count == 0 {
        return Err(BatchError::Empty);
    }
    // Both came from an `i32`, so that the sum fits.
    let spanned = header.last_offset_delta + 1;
    if header.record_count != spanned {
        return Err(BatchError::CountMismatch { stated: header.record_count, found: spanned });
    }
    Ok(())
}

/// What a client says of its records and of itself.
fn check_records(
    header: &BatchHeader,
    batch: &Bytes,
    limits: &BatchLimits,
    decompressed_bytes_left: &mut usize,
) -> Result<(), BatchError> {
    if header.producer_id >= 0 && !header.has_producer() {
        let (field, value) = match header.producer_epoch {
            epoch @ ..0 => ("the producer's epoch", i64::from(epoch)),
            _ => ("the producer's sequence", i64::from(header.base_sequence)),
        };
        return Err(BatchError::BadHeader { field, value });
    }
    let packed = batch.slice(HEADER_BYTES..);
    let mut cursor =
        Cursor::new(header.record_count, header.base_timestamp, limits.record_bytes_max);
    let compression = header.compression()?;
    let block_bytes_max = limits.record_bytes_max.saturating_add(BLOCK_BYTES_MORE);
    match compression.open(&packed, *decompressed_bytes_left, block_bytes_max)? {
        Plain::Whole(records) => {
            *decompressed_bytes_left -= records.len();
            while !cursor.is_done() {
                cursor.next(&records)?;
            }
            cursor.finish(&records)
        }
        Plain::Parts(decoder) => {
            let damaged = |error| compression.damaged(error);
            check_parts(decoder, &mut cursor, decompressed_bytes_left, damaged)
        }
    }
}

/// The same for records that come in parts: of what is decompressed not more is held than the longest
/// record and a part, however much of nothing somebody packed into few bytes.
fn check_parts(
    mut decoder: impl Read,
    cursor: &mut Cursor,
    decompressed_bytes_left: &mut usize,
    damaged: impl Fn(std::io::Error) -> BatchError,
) -> Result<(), BatchError> {
    let (mut held, bytes_max) = (Vec::new(), *decompressed_bytes_left);
    loop {
        let read = decoder.by_ref().take(PART_BYTES).read_to_end(&mut held).map_err(&damaged)?;
        *decompressed_bytes_left =
            decompressed_bytes_left.checked_sub(read).ok_or(too_large(bytes_max))?;
        let is_end = read == 0;
        while cursor.is_there(&held) || (is_end && !cursor.is_done()) {
            cursor.next(&held)?;
        }
        held.drain(..cursor.drop_walked());
        if is_end || (cursor.is_done() && !held.is_empty()) {
            return cursor.finish(&held);
        }
    }
}
