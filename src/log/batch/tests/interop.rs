//! Held against `kafka-protocol`, an implementation that shares no code with this one.

use super::*;
use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kafka;
use std::collections::HashSet;

fn theirs(kind: Compression) -> kafka::Compression {
    match kind {
        Compression::None => kafka::Compression::None,
        Compression::Gzip => kafka::Compression::Gzip,
        Compression::Snappy => kafka::Compression::Snappy,
        Compression::Lz4 => kafka::Compression::Lz4,
        Compression::Zstd => kafka::Compression::Zstd,
    }
}

fn to_theirs(offset: u64, record: &Record) -> kafka::Record {
    let headers: IndexMap<StrBytes, Option<Bytes>> = record
        .headers
        .iter()
        .map(|header| {
            let value = header.value.as_ref().map(|value| value.0.clone());
            (StrBytes::from_string(header.key.clone()), value)
        })
        .collect();
    kafka::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: kafka::NO_PRODUCER_ID,
        producer_epoch: kafka::NO_PRODUCER_EPOCH,
        timestamp_type: kafka::TimestampType::Creation,
        offset: offset as i64,
        sequence: offset as i32,
        timestamp: record.timestamp.0,
        key: record.key.as_ref().map(|key| key.0.clone()),
        value: record.value.as_ref().map(|value| value.0.clone()),
        headers,
    }
}

fn to_ours(record: kafka::Record) -> (Offset, Record) {
    let headers = record.headers.into_iter();
    let ours = Record {
        key: record.key.map(Payload),
        value: record.value.map(Payload),
        headers: headers
            .map(|(key, value)| Header { key: key.to_string(), value: value.map(Payload) })
            .collect(),
        timestamp: Timestamp(record.timestamp),
    };
    (Offset(record.offset as u64), ours)
}

/// Their headers are a map: keys within a record must differ to be compared.
fn with_distinct_headers(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        let mut seen = HashSet::new();
        record.headers.retain(|header| seen.insert(header.key.clone()));
    }
    records
}

fn they_read(bytes: Bytes) -> Vec<(Offset, Record)> {
    let mut bytes = bytes;
    let sets = kafka::RecordBatchDecoder::decode_all(&mut bytes).unwrap();
    sets.into_iter().flat_map(|set| set.records).map(to_ours).collect()
}

fn they_write(records: &[Record], kind: Compression) -> Bytes {
    let records: Vec<_> = (0..).zip(records).map(|(n, record)| to_theirs(n, record)).collect();
    let options = kafka::RecordEncodeOptions { version: 2, compression: theirs(kind) };
    let mut bytes = BytesMut::new();
    kafka::RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

fn assert_agreement(records: &[Record], kind: Compression) {
    let numbered: Vec<_> = (0..).map(Offset).zip(records.iter().cloned()).collect();
    assert_eq!(they_read(build(records, kind).into_bytes()), numbered, "ours, {kind}");

    let written = they_write(records, kind);
    let header = verify_crc(&written).unwrap();
    assert_eq!(header.compression(), Ok(kind));
    assert_eq!(check(&written).unwrap().record_count() as usize, records.len());
    assert_eq!(read(written).unwrap(), numbered, "theirs, {kind}");
}

proptest! {
    #[test]
    fn each_reads_what_the_other_wrote(records in any_records(), kind in any_compression()) {
        assert_agreement(&with_distinct_headers(records), kind);
    }
}

#[test]
fn each_reads_what_the_other_compressed() {
    for kind in Compression::ALL {
        // Beyond one block of each format: snappy 32 KiB, LZ4 64 KiB, zstd 128 KiB.
        let records = repetitive(2000);
        let header = BatchHeader::parse(build(&records, kind).bytes()).unwrap();
        assert_eq!(header.compression(), Ok(kind), "compressed in earnest");
        assert_agreement(&records, kind);
    }
}

#[test]
fn nulls_empties_and_timestamps_months_apart_agree() {
    let day = 24 * 3600 * 1000i64;
    let records: Vec<Record> = [0, 26 * day, -400 * day, 3000 * day]
        .into_iter()
        .zip([(None, None), (Some(""), None), (None, Some("")), (Some("k"), Some("v"))])
        .map(|(timestamp, (key, value))| Record {
            key: key.map(Payload::from),
            value: value.map(Payload::from),
            headers: vec![
                Header { key: "null".into(), value: None },
                Header { key: String::new(), value: Some("".into()) },
            ],
            timestamp: Timestamp(timestamp),
        })
        .collect();
    for kind in Compression::ALL {
        assert_agreement(&records, kind);
    }
}

#[test]
fn raw_snappy_is_read_as_well() {
    let records = repetitive(50);
    let plain = build(&records, Compression::None).into_bytes();
    let packed = snap::raw::Encoder::new().compress_vec(&plain[HEADER_BYTES..]).unwrap();
    let mut batch = plain[..HEADER_BYTES].to_vec();
    batch.extend(packed);
    let length = batch.len() as u32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[21..23].copy_from_slice(&2u16.to_be_bytes());
    let valid = check(&resealed(batch)).unwrap();
    assert_eq!(read(valid.into_bytes()).unwrap(), read(plain).unwrap());
}
