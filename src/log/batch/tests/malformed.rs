//! What is refused, and that nothing from outside makes the room panic or grow.

use super::*;

fn small() -> Vec<u8> {
    let records = [Record::of_value("one", Timestamp(10)), repetitive(1).remove(0)];
    build(&records, Compression::None).bytes().to_vec()
}

#[test]
fn every_flipped_bit_outside_the_stamped_fields_is_detected() {
    let batch = small();
    for at in (8..12).chain(16..batch.len()) {
        for bit in 0..8 {
            let mut flipped = batch.clone();
            flipped[at] ^= 1 << bit;
            assert!(verify_crc(&flipped).is_err(), "bit {bit} of byte {at}");
            assert!(check(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_truncation_is_an_error_and_no_panic() {
    for kind in Compression::ALL {
        let batch = build(&repetitive(20), kind).into_bytes();
        assert!(matches!(check(&[]), Err(BatchError::Empty)));
        for end in 1..batch.len() {
            let cut = check(&batch[..end]);
            assert!(matches!(cut, Err(BatchError::Truncated { .. })), "{kind}, {end}: {cut:?}");
            assert!(verify_crc(&batch[..end]).is_err());
            assert!(read(batch.slice(..end)).is_err());
            // Cut within the records, but with a header that agrees.
            if end >= HEADER_BYTES {
                let mut agreed = batch[..end].to_vec();
                agreed[8..12].copy_from_slice(&(end as u32 - 12).to_be_bytes());
                assert!(check(&resealed(agreed)).is_err(), "{kind}, {end}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_a_right_checksum_are_read_without_panic(
        records in proptest::collection::vec(any::<u8>(), 0..200),
        attributes in 0u16..8,
        count in 0u32..20,
    ) {
        let mut batch = vec![0; HEADER_BYTES];
        batch.extend(&records);
        let header = BatchHeader {
            length_bytes: batch.len(),
            attributes,
            last_offset_delta: count.saturating_sub(1),
            record_count: count,
            ..BatchHeader::parse(&small()).unwrap()
        };
        header.write(batch.first_chunk_mut().unwrap());
        let batch = resealed(batch);
        prop_assert_eq!(verify_crc(&batch).map(|header| header.record_count), Ok(count));
        let accepted = check(&batch).is_ok();
        let readable = read(Bytes::from(batch)).is_ok();
        prop_assert!(readable || !accepted, "what is accepted can be read");
    }

    #[test]
    fn changed_record_bytes_are_refused_or_readable(
        records in any_records(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut batch = build(&records, Compression::None).bytes().to_vec();
        let at = HEADER_BYTES + at.index(batch.len() - HEADER_BYTES);
        batch[at] = byte;
        let batch = resealed(batch);
        if let Ok(valid) = check(&batch) {
            prop_assert_eq!(read(valid.into_bytes()).unwrap().len(), records.len());
        }
    }
}

/// The batch of [`small`] with some header bytes replaced, and a right CRC.
fn with_header_bytes(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = small();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    resealed(batch)
}

#[test]
fn headers_that_no_client_may_send_are_refused_by_name() {
    let cases: [(Vec<u8>, BatchError); 10] = [
        (with_header_bytes(16, &[1]), BatchError::UnsupportedMagic { magic: 1 }),
        (with_header_bytes(21, &[0, 0x20]), BatchError::UnsupportedAttributes { attributes: 0x20 }),
        (with_header_bytes(21, &[0, 0x10]), BatchError::UnsupportedAttributes { attributes: 0x10 }),
        (with_header_bytes(21, &[0, 0x08]), BatchError::UnsupportedAttributes { attributes: 8 }),
        (with_header_bytes(21, &[1, 0]), BatchError::UnsupportedAttributes { attributes: 0x100 }),
        (with_header_bytes(21, &[0, 5]), BatchError::UnknownCompression { id: 5 }),
        (with_header_bytes(57, &[0, 0, 0, 0]), BatchError::Empty),
        (with_header_bytes(57, &[0, 0, 0, 1]), BatchError::CountMismatch { stated: 1, found: 2 }),
        (with_header_bytes(23, &[0, 0, 0, 2]), BatchError::CountMismatch { stated: 2, found: 3 }),
        (
            with_header_bytes(57, &[0xff; 4]),
            BatchError::BadHeader { field: "the record count", value: -1 },
        ),
    ];
    for (batch, expected) in cases {
        assert_eq!(check(&batch).unwrap_err(), expected);
    }
}

#[test]
fn a_header_that_states_other_records_than_there_are_is_refused() {
    let mut more = with_header_bytes(57, &[0, 0, 0, 3]);
    more[23..27].copy_from_slice(&[0, 0, 0, 2]);
    let error = check(&resealed(more)).unwrap_err();
    assert_eq!(error, BatchError::CountMismatch { stated: 3, found: 2 });

    let mut fewer = with_header_bytes(57, &[0, 0, 0, 1]);
    fewer[23..27].copy_from_slice(&[0, 0, 0, 0]);
    let error = check(&resealed(fewer)).unwrap_err();
    assert!(matches!(error, BatchError::MalformedRecord { record: 1, .. }), "{error}");
}

#[test]
fn batch_and_record_limits_are_kept() {
    let batch = small();
    let limits = BatchLimits { batch_bytes_max: batch.len() - 1, ..BatchLimits::default() };
    let error = validate(Bytes::from(batch.clone()), &limits).unwrap_err();
    assert!(matches!(error, BatchError::BatchTooLarge { .. }), "{error}");
    let limits = BatchLimits { record_bytes_max: 100, ..BatchLimits::default() };
    for kind in Compression::ALL {
        let bytes = build(&repetitive(9), kind).into_bytes();
        let error = validate(bytes, &limits).unwrap_err();
        assert!(matches!(error, BatchError::RecordTooLarge { .. }), "{kind}: {error}");
    }
}

#[test]
fn decompression_bombs_are_refused() {
    // A record of 4 MiB that packs into some KiB, once and as a pair that is too large together.
    let bomb = [Record::of_value(vec![0u8; 4 << 20], Timestamp(0))];
    for kind in Compression::ALL.into_iter().filter(|kind| *kind != Compression::None) {
        let one = build(&bomb, kind);
        assert!(one.len_bytes() < 1 << 20, "{kind}");
        let limits = BatchLimits { decompressed_bytes_max: 1 << 20, ..BatchLimits::default() };
        let expected = BatchError::DecompressedTooLarge { decompressed_bytes_max: 1 << 20 };
        assert_eq!(validate(one.bytes().clone(), &limits).unwrap_err(), expected);
        let read = records(one.bytes().clone(), limits).next().unwrap();
        assert_eq!(read.unwrap_err(), expected);

        let limits = BatchLimits { decompressed_bytes_max: 6 << 20, ..BatchLimits::default() };
        validate(one.bytes().clone(), &limits).expect("one is within the limit");
        let pair = ValidBatches::join(vec![one.clone(), one]).unwrap();
        let error = validate(pair.into_bytes(), &limits).unwrap_err();
        assert!(matches!(error, BatchError::DecompressedTooLarge { .. }), "{kind}: {error}");
    }
}

#[test]
fn records_that_are_decompressed_in_parts_are_checked_to_the_last() {
    let many: Vec<Record> = (0..400u32)
        .map(|number| vec![number as u8; (number as usize * 37) % 2_000])
        .chain([vec![1; 200 << 10]])
        .map(|value| Record::of_value(value, Timestamp(7)))
        .collect();
    for kind in Compression::ALL {
        let whole = build(&many, kind).into_bytes();
        assert_eq!(check(&whole).unwrap().record_count(), 401, "{kind}");
        for (count, problem) in [(400, "more bytes follow"), (402, "says it holds 402 records")] {
            let header = BatchHeader {
                last_offset_delta: count - 1,
                record_count: count,
                ..BatchHeader::parse(&whole).unwrap()
            };
            let mut other = whole.to_vec();
            header.write(other.first_chunk_mut().unwrap());
            let told = check(&resealed(other)).unwrap_err().to_string();
            assert!(told.contains(problem), "{kind}: {told}");
        }
    }
}

#[test]
fn a_snappy_block_that_claims_gigabytes_allocates_none() {
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]; // a length of 4 GiB - 1, then nonsense
    let raw = Compression::Snappy.decompress(&Bytes::copy_from_slice(&claim), 1000);
    assert_eq!(raw, Err(BatchError::DecompressedTooLarge { decompressed_bytes_max: 1000 }));
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff".to_vec();
    framed.extend(claim);
    let framed = Compression::Snappy.decompress(&Bytes::from(framed), 1000);
    let damaged = BatchError::Undecompressable { compression: Compression::Snappy };
    assert_eq!(framed, Err(damaged), "a block longer than the input");
}

#[test]
fn what_snappy_has_as_one_block_is_no_longer_than_a_record_may_be() {
    let limits = BatchLimits { record_bytes_max: 10_000, ..BatchLimits::default() };
    let many: Vec<Record> =
        (0..100).map(|_| Record::of_value(vec![7u8; 1_000], Timestamp(0))).collect();
    let framed = build(&many, Compression::Snappy).into_bytes();
    validate(framed.clone(), &limits).expect("many blocks, each of them small");
    let plain = build(&many, Compression::None).into_bytes();
    let whole = snap::raw::Encoder::new().compress_vec(&plain[HEADER_BYTES..]).unwrap();
    let raw = |block: &[u8]| {
        let mut batch = [&framed[..HEADER_BYTES], block].concat();
        let length = batch.len() as u32 - 12;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        Bytes::from(resealed(batch))
    };
    let error = validate(raw(&whole), &limits).unwrap_err();
    assert!(matches!(error, BatchError::SnappyBlockTooLarge { .. }), "{error}");
    let header = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    let one_block = [&header[..], &(whole.len() as u32).to_be_bytes(), &whole].concat();
    let error = validate(raw(&one_block), &limits).unwrap_err();
    assert!(matches!(error, BatchError::SnappyBlockTooLarge { .. }), "{error}");
    assert_eq!(records(raw(&whole), limits).flatten().count(), 100, "what is stored is read");
}

#[test]
fn iteration_ends_after_the_first_error() {
    let mut bytes = BytesMut::from(&small()[..]);
    bytes.extend_from_slice(&small()[..30]);
    let mut items = records(bytes.freeze(), BatchLimits::default());
    assert!(items.next().unwrap().is_ok());
    assert!(items.next().unwrap().is_ok());
    assert_eq!(
        items.next().unwrap().unwrap_err(),
        BatchError::Truncated { needed_bytes: HEADER_BYTES, have_bytes: 30 }
    );
    assert!(items.next().is_none());
}

/// A record of so many headers without content: two bytes each.
fn of_headers(count: usize) -> Vec<u8> {
    let mut body = BytesMut::from(&[0, 0, 0, 1, 1][..]);
    varint::write(&mut body, count as i64);
    body.extend_from_slice(&[0, 1].repeat(count));
    let mut batch = BytesMut::from(&[0; HEADER_BYTES][..]);
    varint::write(&mut batch, body.len() as i64);
    batch.extend_from_slice(&body);
    let header = BatchHeader {
        length_bytes: batch.len(),
        attributes: 0,
        last_offset_delta: 0,
        record_count: 1,
        ..BatchHeader::parse(&small()).unwrap()
    };
    header.write(batch.first_chunk_mut().unwrap());
    resealed(batch.to_vec())
}

#[test]
fn a_record_has_no_more_headers_than_can_be_held() {
    let most = of_headers(HEADERS_MAX);
    check(&most).unwrap();
    let records: Vec<_> = read(Bytes::from(most)).unwrap();
    assert_eq!(records.len(), 1);
    let problem = TOO_MANY_HEADERS;
    let refused = BatchError::MalformedRecord { record: 0, problem };
    let more = of_headers(HEADERS_MAX + 1);
    assert_eq!(check(&more).unwrap_err(), refused);
    assert_eq!(read(Bytes::from(more)).unwrap_err(), refused);
    let headers = (0..=HEADERS_MAX).map(|_| ("", None));
    let built = BatchBuilder::new().push_parts(None, None, headers, Timestamp(0));
    assert_eq!(built.unwrap_err(), refused);
}
