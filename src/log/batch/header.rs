//! The header of a batch, read and written by hand; nothing here looks at records.

use super::{BatchError, Compression, HEADER_BYTES, PREFIX_BYTES};
use crate::model::{Offset, Timestamp};
use bytes::Bytes;

/// The only format version spoken.
const MAGIC: i8 = 2;
/// What the length field does not count: the base offset and itself.
const LENGTH_BASE_BYTES: usize = 12;
const COMPRESSION_BITS: u16 = 0b111;
const LOG_APPEND_TIME_BIT: u16 = 0b1000;

/// What a batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The whole batch, all of its header included.
    pub length_bytes: usize,
    /// The term it was appended in (low 31 bits). Clients leave anything here.
    pub leader_epoch: u32,
    /// CRC-32C of all bytes from the attributes on.
    pub crc: u32,
    /// Compression and flags; see [`BatchHeader::compression`].
    pub attributes: u16,
    /// The last record's offset, counted from the base.
    pub last_offset_delta: u32,
    /// What the records' timestamps count from.
    pub base_timestamp: Timestamp,
    /// The latest timestamp in the batch, by the word of who built it.
    pub max_timestamp: Timestamp,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// How many records it holds.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads a header. Only the header need be there: `length_bytes` may exceed the slice.
    ///
    /// # Errors
    /// When there are fewer than [`HEADER_BYTES`], another magic, or a count or length that is
    /// negative or below what a batch has at least.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            let have_bytes = bytes.len();
            return Err(BatchError::Truncated { needed_bytes: HEADER_BYTES, have_bytes });
        };
        let magic = header[16] as i8;
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic });
        }
        let length = non_negative("the length", i32_at(header, 8))? as usize + LENGTH_BASE_BYTES;
        if length < HEADER_BYTES {
            return Err(BatchError::BadHeader { field: "the length", value: length as i64 });
        }
        let base = i64_at(header, 0);
        if base < 0 {
            return Err(BatchError::BadHeader { field: "the base offset", value: base });
        }
        Ok(Self {
            base_offset: Offset(base as u64),
            length_bytes: length,
            leader_epoch: i32_at(header, 12) as u32,
            crc: i32_at(header, 17) as u32,
            attributes: i16_at(header, 21) as u16,
            last_offset_delta: non_negative("the last offset delta", i32_at(header, 23))?,
            base_timestamp: Timestamp(i64_at(header, 27)),
            max_timestamp: Timestamp(i64_at(header, 35)),
            producer_id: i64_at(header, 43),
            producer_epoch: i16_at(header, 51),
            base_sequence: i32_at(header, 53),
            record_count: non_negative("the record count", i32_at(header, 57))?,
        })
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`].
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_id((self.attributes & COMPRESSION_BITS) as u8)
    }

    /// The offset that follows the last record's.
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64 + 1)
    }

    /// True when it tells its idempotent producer, with all that belongs to it.
    pub(super) const fn has_producer(&self) -> bool {
        self.producer_id >= 0 && self.producer_epoch >= 0 && self.base_sequence >= 0
    }

    /// True when the broker set one timestamp for all records: the maximum.
    pub(super) const fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Control, transactional, delete-horizon and undefined bits, and a broker's timestamp: all
    /// that a client may not ask for.
    pub(super) const fn has_special_attributes(&self) -> bool {
        self.attributes & !COMPRESSION_BITS != 0
    }

    /// Writes all fields but the CRC, which needs the records behind it: see [`seal`].
    pub(super) fn write(&self, target: &mut [u8; HEADER_BYTES]) {
        let length = self.length_bytes - LENGTH_BASE_BYTES;
        let length = u32::try_from(length).expect("limits keep batches far below 2 GiB");
        target[0..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        target[8..12].copy_from_slice(&length.to_be_bytes());
        target[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        target[16] = MAGIC as u8;
        target[17..21].copy_from_slice(&self.crc.to_be_bytes());
        target[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        target[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        target[27..35].copy_from_slice(&self.base_timestamp.0.to_be_bytes());
        target[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        target[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        target[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        target[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        target[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }
}

/// Sets base offset and leader epoch of the batch that begins at `prefix[0]`. Neither is under
/// the batch's CRC, so nothing has to be summed again.
///
/// # Panics
/// When `prefix` is shorter than 16 bytes.
pub fn stamp(prefix: &mut [u8], base: Offset, epoch: u32) {
    prefix[0..8].copy_from_slice(&base.0.to_be_bytes());
    prefix[12..16].copy_from_slice(&epoch.to_be_bytes());
}

/// Checks the first batch in `batch` against its own CRC: for bytes read back from disk or
/// received. Bytes behind the batch are ignored.
///
/// # Errors
/// As [`BatchHeader::parse`]; [`BatchError::Truncated`] when the batch is not whole;
/// [`BatchError::ChecksumMismatch`].
pub fn verify_crc(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let Some(covered) = batch.get(PREFIX_BYTES..header.length_bytes) else {
        return Err(truncated(&header, batch.len()));
    };
    let computed = crc32c::crc32c(covered);
    if computed != header.crc {
        return Err(BatchError::ChecksumMismatch { stored: header.crc, computed });
    }
    Ok(header)
}

/// Writes the CRC of a whole batch into its header.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[PREFIX_BYTES..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Splits batches that lie one after another, by their headers alone. Ends after the first error.
pub fn batches(bytes: &Bytes) -> Batches {
    Batches { rest: bytes.clone() }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let header = match BatchHeader::parse(&self.rest) {
            Ok(header) if header.length_bytes <= self.rest.len() => header,
            Ok(header) => {
                let error = truncated(&header, self.rest.len());
                self.rest.clear();
                return Some(Err(error));
            }
            Err(error) => {
                self.rest.clear();
                return Some(Err(error));
            }
        };
        Some(Ok((header, self.rest.split_to(header.length_bytes))))
    }
}

fn truncated(header: &BatchHeader, have_bytes: usize) -> BatchError {
    BatchError::Truncated { needed_bytes: header.length_bytes, have_bytes }
}

fn non_negative(field: &'static str, value: i32) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| BatchError::BadHeader { field, value: i64::from(value) })
}

fn i16_at(header: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes(header[at..at + 2].try_into().expect("two bytes"))
}

fn i32_at(header: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"))
}

fn i64_at(header: &[u8; HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"))
}
