//! Walks the framing of uncompressed records. Validation and decoding share it, so that what was
//! accepted can be read.

use super::{BatchError, HEADERS_MAX, TOO_MANY_HEADERS, varint};
use crate::model::Timestamp;
use std::ops::Range;

/// The least that a record takes: length, attributes, two deltas, key, value, header count.
const RECORD_BYTES_MIN: usize = 7;

/// Where the parts of one record lie.
#[derive(Debug)]
pub(super) struct RecordSpan {
    pub(super) timestamp: Timestamp,
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Option<Range<usize>>,
    /// Where the first header begins.
    pub(super) headers_at: usize,
    pub(super) header_count: usize,
}

/// A position in the records of one batch.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    position: usize,
    /// The number of the next record.
    record: u32,
    record_count: u32,
    base_timestamp: Timestamp,
    record_bytes_max: usize,
}

impl Cursor {
    /// At the first of `record_count` records.
    pub(super) fn new(
        record_count: u32,
        base_timestamp: Timestamp,
        record_bytes_max: usize,
    ) -> Self {
        Self { position: 0, record: 0, record_count, base_timestamp, record_bytes_max }
    }

    /// True when as many records as the header states were walked.
    pub(super) fn is_done(&self) -> bool {
        self.record == self.record_count
    }

    /// The next record's offset, counted from the batch's base.
    pub(super) fn offset_delta(&self) -> u32 {
        self.record
    }

    /// Whether the next record lies in `records` to its end, or shows already what is wrong with it.
    pub(super) fn is_there(&self, records: &[u8]) -> bool {
        let mut at = self.position;
        if self.is_done() || records.len() - at < RECORD_BYTES_MIN {
            return false;
        }
        let Some(length) = varint::read_i32(records, &mut at) else { return true };
        usize::try_from(length)
            .map_or(true, |length| length <= records.len() - at || length > self.record_bytes_max)
    }

    /// What it has walked is dropped from before what it walks on in; tells how much that is.
    pub(super) fn drop_walked(&mut self) -> usize {
        std::mem::take(&mut self.position)
    }

    /// Walks one record of `records`, and checks everything about it.
    pub(super) fn next(&mut self, records: &[u8]) -> Result<RecordSpan, BatchError> {
        assert!(!self.is_done(), "the caller asks only while records are left");
        let malformed = |problem| BatchError::MalformedRecord { record: self.record, problem };
        if records.len() - self.position < RECORD_BYTES_MIN {
            return Err(BatchError::CountMismatch {
                stated: self.record_count,
                found: self.record,
            });
        }
        let mut at = self.position;
        let length = varint::read_i32(records, &mut at).ok_or(malformed("no length"))?;
        let length = usize::try_from(length).map_err(|_| malformed("negative length"))?;
        if length > self.record_bytes_max {
            let record_bytes_max = self.record_bytes_max;
            return Err(BatchError::RecordTooLarge { record_bytes: length, record_bytes_max });
        }
        if length > records.len() - at {
            return Err(malformed("longer than the batch"));
        }
        let end = at + length;
        let span = self.walk(&records[..end], at).map_err(malformed)?;
        self.position = end;
        self.record += 1;
        Ok(span)
    }

    /// After the last record: nothing may follow.
    pub(super) fn finish(&self, records: &[u8]) -> Result<(), BatchError> {
        if self.position == records.len() {
            return Ok(());
        }
        let problem = "more bytes follow than the header has records";
        Err(BatchError::MalformedRecord { record: self.record, problem })
    }

    /// Walks the record whose body is `bytes[at..]`.
    fn walk(&self, bytes: &[u8], mut at: usize) -> Result<RecordSpan, &'static str> {
        at += 1; // The attributes of a record are unused.
        let delta = varint::read_i64(bytes, &mut at).ok_or("bad timestamp delta")?;
        let timestamp = self.base_timestamp.0.checked_add(delta).ok_or("timestamp out of range")?;
        let delta = varint::read_i32(bytes, &mut at).ok_or("bad offset delta")?;
        if u32::try_from(delta) != Ok(self.record) {
            return Err("its offset does not follow the one before");
        }
        let key = nullable(bytes, &mut at).ok_or("bad key length")?;
        let value = nullable(bytes, &mut at).ok_or("bad value length")?;
        let header_count = varint::read_i32(bytes, &mut at).ok_or("bad header count")?;
        let header_count = usize::try_from(header_count).map_err(|_| "negative header count")?;
        if header_count > HEADERS_MAX {
            return Err(TOO_MANY_HEADERS);
        }
        let headers_at = at;
        for _ in 0..header_count {
            let (key, _) = header(bytes, &mut at)?;
            std::str::from_utf8(&bytes[key]).map_err(|_| "header key is not UTF-8")?;
        }
        if at != bytes.len() {
            return Err("its parts do not fill it");
        }
        Ok(RecordSpan { timestamp: Timestamp(timestamp), key, value, headers_at, header_count })
    }
}

/// Where a header's key and value lie; moves on to the next.
pub(super) fn header(
    bytes: &[u8],
    at: &mut usize,
) -> Result<(Range<usize>, Option<Range<usize>>), &'static str> {
    let key = nullable(bytes, at).ok_or("bad header key length")?.ok_or("header without key")?;
    let value = nullable(bytes, at).ok_or("bad header value length")?;
    Ok((key, value))
}

/// A length, -1 for null, and that many bytes. Outer `None`: malformed.
#[inline]
fn nullable(bytes: &[u8], at: &mut usize) -> Option<Option<Range<usize>>> {
    let length = varint::read_i32(bytes, at)?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    if length > bytes.len() - *at {
        return None;
    }
    let start = *at;
    *at += length;
    Some(Some(start..*at))
}
