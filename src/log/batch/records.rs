//! Decoding: batches to records.

use super::cursor::{Cursor, RecordSpan, header};
use super::{BatchError, BatchHeader, BatchLimits, Batches, HEADER_BYTES, batches};
use crate::model::{Header, Offset, Payload, Record};
use bytes::Bytes;

/// The records of batches that lie one after another, with their offsets. Ends after the first
/// error. CRCs are not checked here: see [`super::verify_crc`].
///
/// Keys, values and header values are slices of `bytes`, which stay alive as long as any of
/// them; of a decompressed copy where a batch is compressed.
pub fn records(bytes: Bytes, limits: BatchLimits) -> Records {
    Records { batches: batches(&bytes), open: None, limits, failed: false }
}

/// See [`records`].
#[derive(Debug)]
pub struct Records {
    batches: Batches,
    open: Option<OpenBatch>,
    limits: BatchLimits,
    failed: bool,
}

#[derive(Debug)]
struct OpenBatch {
    header: BatchHeader,
    /// Decompressed.
    records: Bytes,
    cursor: Cursor,
}

impl Iterator for Records {
    type Item = Result<(Offset, Record), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

impl Records {
    fn advance(&mut self) -> Result<Option<(Offset, Record)>, BatchError> {
        loop {
            if let Some(open) = &mut self.open {
                if !open.cursor.is_done() {
                    return open.next().map(Some);
                }
                open.cursor.finish(&open.records)?;
            }
            match self.batches.next() {
                None => return Ok(None),
                Some(batch) => self.open = Some(OpenBatch::new(batch?, &self.limits)?),
            }
        }
    }
}

impl OpenBatch {
    fn new(
        (header, batch): (BatchHeader, Bytes),
        limits: &BatchLimits,
    ) -> Result<Self, BatchError> {
        let packed = batch.slice(HEADER_BYTES..);
        let records = header.compression()?.decompress(&packed, limits.decompressed_bytes_max)?;
        let cursor =
            Cursor::new(header.record_count, header.base_timestamp, limits.record_bytes_max);
        Ok(Self { header, records, cursor })
    }

    fn next(&mut self) -> Result<(Offset, Record), BatchError> {
        let number = self.cursor.offset_delta();
        let span = self.cursor.next(&self.records)?;
        let headers = self
            .headers(&span)
            .map_err(|problem| BatchError::MalformedRecord { record: number, problem })?;
        let timestamp = if self.header.is_log_append_time() {
            self.header.max_timestamp
        } else {
            span.timestamp
        };
        let payload = |range| Payload(self.records.slice(range));
        let key = span.key.map(payload);
        let value = span.value.map(payload);
        let offset = self.header.base_offset.plus(u64::from(number));
        Ok((offset, Record { key, value, headers, timestamp }))
    }

    fn headers(&self, span: &RecordSpan) -> Result<Vec<Header>, &'static str> {
        let mut headers = Vec::with_capacity(span.header_count); // all of them were walked: no lie
        let mut at = span.headers_at;
        for _ in 0..span.header_count {
            let (key, value) = header(&self.records, &mut at)?;
            let key = std::str::from_utf8(&self.records[key]).map_err(|_| "not UTF-8")?;
            let value = value.map(|range| Payload(self.records.slice(range)));
            headers.push(Header { key: key.to_owned(), value });
        }
        Ok(headers)
    }
}
