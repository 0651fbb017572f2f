//! Record batches: those of clients, with all codecs.

use super::MIB;
use crate::log::batch::{
    BatchBuilder, BatchError, BatchLimits, Compression, HEADER_BYTES, PREFIX_BYTES, ValidBatches,
    batches, receive, records, validate, verify_crc,
};
use crate::model::{Header, Offset, Record, Timestamp};
use bytes::Bytes;

/// Small, so that a bomb shows.
const LIMITS: BatchLimits = BatchLimits {
    batch_bytes_max: 64 << 10,
    record_bytes_max: 32 << 10,
    decompressed_bytes_max: 256 << 10,
};
/// What holds what was taken under [`LIMITS`] when it is written again.
const WIDE: BatchLimits =
    BatchLimits { batch_bytes_max: MIB, record_bytes_max: MIB, decompressed_bytes_max: MIB };

pub(super) fn run(bytes: &[u8]) {
    taken_as_it_is(Bytes::copy_from_slice(bytes));
    if let Some(sealed) = sealed(bytes) {
        taken_as_it_is(sealed);
    }
    built(bytes);
}

/// The bytes as one batch whose length and checksum are right, so that mutations get behind them.
fn sealed(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < HEADER_BYTES {
        return None;
    }
    let mut batch = bytes.to_vec();
    let length = u32::try_from(batch.len() - 12).ok()?;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc32c::crc32c(&batch[PREFIX_BYTES..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Some(batch.into())
}

fn taken_as_it_is(bytes: Bytes) {
    let taken = validate(bytes.clone(), &LIMITS);
    assert_eq!(taken, validate(bytes.clone(), &LIMITS), "two looks at the same bytes");
    let received = receive(bytes.clone(), &LIMITS);
    // What is no batch at all can be split and read to its first error, without more ado.
    let read: Result<Vec<(Offset, Record)>, BatchError> = records(bytes.clone(), LIMITS).collect();
    let split = batches(&bytes).filter_map(Result::ok);
    let whole: usize = split.map(|(_, batch)| batch.len()).sum();
    assert!(whole <= bytes.len(), "no byte is in two batches");
    let Ok(valid) = taken else { return };
    assert_eq!(received.as_ref(), Ok(&valid), "what a leader took its followers take");
    assert_eq!(valid.bytes(), &bytes, "taken as it is");
    let read = read.expect("what was taken can be read");
    assert_eq!(read.len(), valid.record_count() as usize, "as many as stated");
    stamped(&valid, &read);
    written_again(&valid, &read);
}

/// Offsets are dense once they are given, and no checksum minds.
fn stamped(valid: &ValidBatches, read: &[(Offset, Record)]) {
    let stamped = valid.clone().stamped(Offset(1000), 7);
    for (_, batch) in stamped.batches() {
        assert!(verify_crc(&batch).is_ok(), "stamps are not under the checksum");
    }
    let again = records(stamped.into_bytes(), LIMITS).map(|record| record.expect("as before"));
    let mut due = (1000..).map(Offset);
    assert!(
        again.zip(read).all(|((offset, record), (_, before))| {
            Some(offset) == due.next() && record == *before
        }),
        "the records are the same, one offset each"
    );
}

fn written_again(valid: &ValidBatches, read: &[(Offset, Record)]) {
    let first = valid.batches().next().expect("there is one").0;
    let compression = first.compression().expect("it was taken");
    let mut builder = BatchBuilder::new().with_compression(compression).with_limits(WIDE);
    for (_, record) in read {
        match builder.push(record) {
            Ok(()) => {}
            // Two batches, each within its limits, or times too far apart for one.
            Err(BatchError::Full) => return,
            Err(error) => panic!("a record that was taken cannot be written: {error}"),
        }
    }
    let built = builder.finish().expect("at least one record");
    let again = records(validate(built.into_bytes(), &WIDE).expect("built").into_bytes(), WIDE);
    let again: Vec<Record> = again.map(|record| record.expect("built").1).collect();
    assert!(again.iter().eq(read.iter().map(|(_, record)| record)), "the same records");
}

/// Records made of the bytes, through each codec and back.
fn built(bytes: &[u8]) {
    let Some((codec, rest)) = super::choice(bytes, Compression::ALL.len() as u8) else { return };
    let compression = Compression::ALL[usize::from(codec)];
    let mut builder = BatchBuilder::new().with_compression(compression).with_limits(WIDE);
    let mut pushed = Vec::new();
    for (at, piece) in rest.chunks(23).take(64).enumerate() {
        let at_byte = |at: usize| piece.get(at).copied().unwrap_or(0);
        let part = |is_there: bool| is_there.then(|| piece.to_vec().into());
        let headers = (0..at_byte(0) % 3)
            .map(|n| Header { key: format!("h{n}"), value: part(at_byte(1) % 2 == 0) });
        let record = Record {
            key: part(at_byte(2) % 2 == 0),
            value: part(at_byte(3) % 2 == 0),
            headers: headers.collect(),
            timestamp: Timestamp(i64::from(at_byte(4)) - 100 + at as i64),
        };
        builder.push(&record).expect("small records fit");
        pushed.push(record);
    }
    let Some(built) = builder.finish() else { return };
    let bytes = validate(built.clone().into_bytes(), &WIDE);
    assert_eq!(bytes.as_ref(), Ok(&built), "what is built is valid");
    let read = records(built.into_bytes(), WIDE).map(|record| record.expect("built").1);
    assert!(read.eq(pushed), "the same records");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new().with_compression(compression);
        for at in 0..3 {
            let header = Header { key: "trace".into(), value: Some(vec![at; 40].into()) };
            let record = Record {
                key: (at > 0).then(|| vec![b'k'; 40].into()),
                value: Some(vec![b'v'; 60].into()),
                headers: vec![header],
                timestamp: Timestamp(1_700_000_000_000 + i64::from(at)),
            };
            builder.push(&record).expect("it fits");
        }
        seeds.push(builder.finish().expect("three records").into_bytes().to_vec());
        // More than the limit, from a few bytes.
        let mut bomb = BatchBuilder::new().with_compression(compression).with_limits(WIDE);
        let record = Record::of_value(vec![0; 300 << 10], Timestamp(0));
        bomb.push(&record).expect("it fits");
        let bomb = bomb.finish().expect("a record").into_bytes();
        seeds.extend((bomb.len() < 4096).then(|| bomb.to_vec()));
    }
    let two = [seeds[0].clone(), seeds[0].clone()].concat();
    seeds.push(two);
    // One record of nothing but headers, in as few bytes as they can take.
    let headers = (0..1500).map(|_| ("", None));
    let mut many = BatchBuilder::new();
    many.push_parts(None, None, headers, Timestamp(0)).expect("it fits");
    seeds.push(many.finish().expect("a record").into_bytes().to_vec());
    seeds
}
