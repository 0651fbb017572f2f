//! Promises of the whole room; the parts test their own beside them.

mod interop;
mod malformed;
mod producers;
mod round_trip;

use super::*;
use crate::model::{Header, Offset, Payload, Record, Timestamp};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

/// Records of all shapes: parts null or empty, timestamps negative and months apart.
fn any_record() -> impl Strategy<Value = Record> {
    let part = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let header = ("[a-zé]{0,6}", part());
    (part(), part(), proptest::collection::vec(header, 0..4), -(1i64 << 45)..1i64 << 45).prop_map(
        |(key, value, headers, timestamp)| Record {
            key: key.map(Payload::from),
            value: value.map(Payload::from),
            headers: headers
                .into_iter()
                .map(|(key, value)| Header { key, value: value.map(Payload::from) })
                .collect(),
            timestamp: Timestamp(timestamp),
        },
    )
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    proptest::collection::vec(any_record(), 1..20)
}

fn any_compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..])
}

/// Records that every compression makes smaller.
fn repetitive(count: usize) -> Vec<Record> {
    (0..count)
        .map(|n| Record {
            key: Some(Payload::from(format!("key-{}", n % 7).into_bytes())),
            value: Some(Payload::from(vec![b'v'; 200])),
            headers: vec![Header { key: "kind".into(), value: Some("test".into()) }],
            timestamp: Timestamp(1_700_000_000_000 + n as i64),
        })
        .collect()
}

fn build(records: &[Record], compression: Compression) -> ValidBatches {
    let mut builder = BatchBuilder::new().with_compression(compression);
    for record in records {
        builder.push(record).unwrap();
    }
    builder.finish().unwrap()
}

fn read(bytes: Bytes) -> Result<Vec<(Offset, Record)>, BatchError> {
    records(bytes, BatchLimits::default()).collect()
}

fn check(bytes: &[u8]) -> Result<ValidBatches, BatchError> {
    validate(Bytes::copy_from_slice(bytes), &BatchLimits::default())
}

/// Writes the right CRC, so that what lies behind the CRC check is reached.
fn resealed(mut batch: Vec<u8>) -> Vec<u8> {
    header::seal(&mut batch);
    batch
}
