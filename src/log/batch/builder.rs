//! Gathers records into a batch.

use super::header::seal;
use super::{
    BatchError, BatchHeader, BatchLimits, Compression, HEADER_BYTES, HEADERS_MAX, TOO_MANY_HEADERS,
    ValidBatches, sequence_after, varint,
};
use crate::model::{Offset, Record, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};

/// Builds one batch after another from records of any number of requests. Each record is written
/// to its final place once; nothing is allocated per record.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records so far; empty before the first.
    buffer: BytesMut,
    record_count: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    compression: Compression,
    limits: BatchLimits,
    producer: Option<Producer>,
}

/// Who sends, and the sequence of the next batch's first record.
#[derive(Debug, Clone, Copy)]
struct Producer {
    id: i64,
    epoch: i16,
    sequence: i32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty builder without compression and with the default limits.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            record_count: 0,
            base_timestamp: Timestamp::default(),
            max_timestamp: Timestamp::default(),
            compression: Compression::None,
            limits: BatchLimits::default(),
            producer: None,
        }
    }

    /// Compresses from the next [`BatchBuilder::finish`] on, where that makes a batch smaller.
    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// Names an idempotent producer in each batch from the next [`BatchBuilder::finish`] on. The
    /// first gets `first_sequence`, each further one goes on behind the one before.
    ///
    /// # Panics
    /// When one of them is negative: these stand for no producer.
    #[must_use]
    pub fn with_producer(self, id: i64, epoch: i16, first_sequence: i32) -> Self {
        assert!(id >= 0 && epoch >= 0 && first_sequence >= 0, "negative is nobody");
        Self { producer: Some(Producer { id, epoch, sequence: first_sequence }), ..self }
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(self, limits: BatchLimits) -> Self {
        Self { limits, ..self }
    }

    /// Adds a record. See [`BatchBuilder::push_parts`].
    ///
    /// # Errors
    /// As [`BatchBuilder::push_parts`].
    pub fn push(&mut self, record: &Record) -> Result<(), BatchError> {
        let headers =
            record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
        self.push_parts(record.key.as_deref(), record.value.as_deref(), headers, record.timestamp)
    }

    /// Adds a record from its parts. The headers are walked twice: to measure, then to write.
    ///
    /// # Errors
    /// [`BatchError::RecordTooLarge`]: it can never be added. [`BatchError::Full`]: it can be
    /// after [`BatchBuilder::finish`] (no room, or its timestamp lies too far from the first
    /// one's). [`BatchError::MalformedRecord`]: more than [`HEADERS_MAX`] headers. Nothing was added
    /// then.
    pub fn push_parts<'h, H>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
        timestamp: Timestamp,
    ) -> Result<(), BatchError>
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        let base = if self.is_empty() { timestamp } else { self.base_timestamp };
        let delta = timestamp.0.checked_sub(base.0).ok_or(BatchError::Full)?;
        let offset_delta = i64::from(self.record_count);

        let (header_count, headers_bytes) = headers.clone().fold((0i64, 0), |(count, bytes), h| {
            (count + 1, bytes + nullable_bytes(Some(h.0.as_bytes())) + nullable_bytes(h.1))
        });
        let body_bytes = 1
            + varint::len(delta)
            + varint::len(offset_delta)
            + nullable_bytes(key)
            + nullable_bytes(value)
            + varint::len(header_count)
            + headers_bytes;
        if header_count > HEADERS_MAX as i64 {
            let (record, problem) = (self.record_count, TOO_MANY_HEADERS);
            return Err(BatchError::MalformedRecord { record, problem });
        }
        self.make_room(body_bytes)?;

        let start = self.buffer.len();
        varint::write(&mut self.buffer, body_bytes as i64);
        let body_start = self.buffer.len();
        self.buffer.put_u8(0);
        varint::write(&mut self.buffer, delta);
        varint::write(&mut self.buffer, offset_delta);
        put_nullable(&mut self.buffer, key);
        put_nullable(&mut self.buffer, value);
        varint::write(&mut self.buffer, header_count);
        for (key, value) in headers {
            put_nullable(&mut self.buffer, Some(key.as_bytes()));
            put_nullable(&mut self.buffer, value);
        }
        assert_eq!(self.buffer.len(), body_start + body_bytes, "measured as written");
        assert!(start >= HEADER_BYTES);

        self.max_timestamp =
            if self.is_empty() { timestamp } else { self.max_timestamp.max(timestamp) };
        self.base_timestamp = base;
        self.record_count += 1;
        Ok(())
    }

    /// How many records are gathered.
    pub fn len(&self) -> usize {
        self.record_count as usize
    }

    /// True when no record is gathered.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The size of the batch if it were finished now, before compression.
    pub fn estimated_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Makes the batch, with base offset 0, and starts the next. `None` when it is empty.
    pub fn finish(&mut self) -> Option<ValidBatches> {
        if self.is_empty() {
            return None;
        }
        let plain = self.buffer.split();
        let (compression, mut batch) = self.compressed(plain);
        let nobody = Producer { id: -1, epoch: -1, sequence: -1 };
        let Producer { id, epoch, sequence } = self.producer.unwrap_or(nobody);
        if let Some(producer) = &mut self.producer {
            producer.sequence = sequence_after(sequence, self.record_count);
        }
        let header = BatchHeader {
            base_offset: Offset(0),
            length_bytes: batch.len(),
            leader_epoch: 0,
            crc: 0, // sealed below
            attributes: u16::from(compression.id()),
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: self.record_count,
        };
        header.write(batch.first_chunk_mut().expect("room was left for the header"));
        seal(&mut batch);
        self.record_count = 0;
        Some(ValidBatches::of_built(Bytes::from(batch), &header))
    }

    /// Checks the limits and makes room for a record of `body_bytes` and its length; for the
    /// header too before the first record.
    fn make_room(&mut self, body_bytes: usize) -> Result<(), BatchError> {
        let record_bytes_max = self.limits.record_bytes_max;
        let bytes_max = self.limits.batch_bytes_max.min(self.limits.decompressed_bytes_max);
        let needed = varint::len(body_bytes as i64) + body_bytes;
        if body_bytes > record_bytes_max || needed > bytes_max.saturating_sub(HEADER_BYTES) {
            let record_bytes_max = record_bytes_max.min(bytes_max.saturating_sub(HEADER_BYTES));
            return Err(BatchError::RecordTooLarge { record_bytes: body_bytes, record_bytes_max });
        }
        let used = self.buffer.len().max(HEADER_BYTES);
        if used + needed > bytes_max {
            return Err(BatchError::Full);
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(HEADER_BYTES + needed);
            self.buffer.put_bytes(0, HEADER_BYTES);
        }
        self.buffer.reserve(needed);
        Ok(())
    }

    /// Compresses the records behind the header, unless that gains nothing: a batch that would
    /// grow, perhaps beyond its limit, stays as it is.
    fn compressed(&self, plain: BytesMut) -> (Compression, BytesMut) {
        if self.compression == Compression::None {
            return (Compression::None, plain);
        }
        match self.compression.compress(&plain[HEADER_BYTES..]) {
            Ok(packed) if packed.len() < plain.len() - HEADER_BYTES => {
                let mut batch = BytesMut::with_capacity(HEADER_BYTES + packed.len());
                batch.put_bytes(0, HEADER_BYTES);
                batch.put_slice(&packed);
                (self.compression, batch)
            }
            Ok(_) | Err(_) => (Compression::None, plain),
        }
    }
}

fn nullable_bytes(part: Option<&[u8]>) -> usize {
    part.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

fn put_nullable(target: &mut BytesMut, part: Option<&[u8]>) {
    match part {
        None => varint::write(target, -1),
        Some(bytes) => {
            varint::write(target, bytes.len() as i64);
            target.put_slice(bytes);
        }
    }
}
