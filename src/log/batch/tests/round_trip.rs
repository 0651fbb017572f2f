//! What goes in comes out.

use super::*;

proptest! {
    #[test]
    fn built_records_validate_and_read_back(
        records in any_records(),
        compression in any_compression(),
        base in 0u64..1 << 62,
        epoch in 0u32..1 << 31,
    ) {
        let built = build(&records, compression);
        prop_assert_eq!(built.record_count() as usize, records.len());
        prop_assert_eq!(Some(built.max_timestamp()), records.iter().map(|r| r.timestamp).max());
        prop_assert_eq!(&check(built.bytes()).unwrap(), &built);

        let stamped = built.stamped(Offset(base), epoch);
        prop_assert_eq!(&check(stamped.bytes()).unwrap(), &stamped);
        let header = verify_crc(stamped.bytes()).unwrap();
        prop_assert_eq!((header.base_offset, header.leader_epoch), (Offset(base), epoch));
        let numbered: Vec<_> = (base..).map(Offset).zip(records).collect();
        prop_assert_eq!(read(stamped.into_bytes()).unwrap(), numbered);
    }

    #[test]
    fn joined_batches_keep_their_order_and_get_dense_offsets(
        requests in proptest::collection::vec(any_records(), 1..5),
        base in 0u64..1 << 40,
    ) {
        let built = requests.iter().map(|records| build(records, Compression::None)).collect();
        let joined = ValidBatches::join(built).unwrap();
        prop_assert_eq!(&check(joined.bytes()).unwrap(), &joined);
        prop_assert_eq!(joined.batches().count(), requests.len());
        let stamped = joined.stamped(Offset(base), 7);
        let numbered: Vec<_> = (base..).map(Offset).zip(requests.concat()).collect();
        prop_assert_eq!(read(stamped.into_bytes()).unwrap(), numbered);
    }

    #[test]
    fn every_compression_gives_back_what_it_was_given(plain: Vec<u8>, kind in any_compression()) {
        let packed = Bytes::from(kind.compress(&plain).unwrap());
        prop_assert_eq!(kind.decompress(&packed, plain.len()).unwrap(), plain);
    }
}

#[test]
fn a_batch_is_compressed_as_asked_when_that_makes_it_smaller() {
    let records = repetitive(300);
    for kind in Compression::ALL {
        let built = build(&records, kind);
        let header = BatchHeader::parse(built.bytes()).unwrap();
        assert_eq!(header.compression(), Ok(kind));
        assert_eq!(built.len_bytes() < 10_000, kind != Compression::None, "{kind}");
        let back: Vec<Record> =
            read(built.into_bytes()).unwrap().into_iter().map(|(_, record)| record).collect();
        assert_eq!(back, records, "{kind}");
    }
    let single = [Record::of_value("x", Timestamp(0))];
    let header = BatchHeader::parse(build(&single, Compression::Gzip).bytes()).unwrap();
    assert_eq!(header.compression(), Ok(Compression::None), "one byte does not shrink");
}

#[test]
fn a_builder_is_empty_again_after_finish() {
    let mut builder = BatchBuilder::new();
    assert!(builder.finish().is_none());
    builder.push(&Record::of_value("first", Timestamp(-9))).unwrap();
    assert_eq!((builder.len(), builder.is_empty()), (1, false));
    let estimated = builder.estimated_bytes();
    assert_eq!(builder.finish().unwrap().len_bytes(), estimated);
    assert_eq!((builder.len(), builder.estimated_bytes()), (0, 0));
    builder.push(&Record::of_value("second", Timestamp(-90))).unwrap();
    let second = builder.finish().unwrap();
    assert_eq!(second.max_timestamp(), Timestamp(-90), "nothing of the first batch is left");
    let expected = (Offset(0), Record::of_value("second", Timestamp(-90)));
    assert_eq!(read(second.into_bytes()).unwrap(), [expected]);
}

#[test]
fn a_full_builder_takes_nothing_more_until_it_is_finished() {
    let limits = BatchLimits { batch_bytes_max: 300, ..BatchLimits::default() };
    let mut builder = BatchBuilder::new().with_limits(limits);
    let record = Record::of_value(vec![7u8; 100], Timestamp(5));
    builder.push(&record).unwrap();
    builder.push(&record).unwrap();
    assert_eq!(builder.push(&record), Err(BatchError::Full));
    let batch = builder.finish().unwrap();
    assert_eq!(batch.record_count(), 2);
    validate(batch.into_bytes(), &limits).expect("what is built is within the limits");
    builder.push(&record).expect("there is room again");

    let never = Record::of_value(vec![7u8; 300], Timestamp(5));
    let refused = builder.push(&never);
    assert!(matches!(refused, Err(BatchError::RecordTooLarge { .. })), "{refused:?}");
    assert_eq!(builder.len(), 1, "a refused record leaves no trace");
}

#[test]
fn timestamps_that_one_batch_cannot_span_go_into_two() {
    let mut builder = BatchBuilder::new();
    builder.push(&Record::of_value("early", Timestamp(i64::MIN))).unwrap();
    let late = Record::of_value("late", Timestamp(i64::MAX));
    assert_eq!(builder.push(&late), Err(BatchError::Full));
    builder.finish().unwrap();
    builder.push(&late).unwrap();
    assert_eq!(builder.finish().unwrap().max_timestamp(), Timestamp(i64::MAX));
}

#[test]
fn read_records_are_slices_of_the_batch() {
    let bytes = build(&repetitive(1), Compression::None).into_bytes();
    let (_, record) = read(bytes.clone()).unwrap().remove(0);
    let value = record.value.unwrap();
    assert!(bytes.as_ptr_range().contains(&value.as_ptr()), "no copy was made");
}

#[test]
fn the_bytes_of_a_small_batch_are_as_the_format_says() {
    let record = Record {
        key: Some("k".into()),
        value: None,
        headers: vec![Header { key: "h".into(), value: None }],
        timestamp: Timestamp(0x0102),
    };
    let bytes = build(&[record], Compression::None).stamped(Offset(0x0a0b), 0x0c).into_bytes();
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 0, 0, 0, 0x0a, 0x0b,  0, 0, 0, 60,  0, 0, 0, 0x0c,  2,  bytes[17], bytes[18],
        bytes[19], bytes[20],  0, 0,  0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 1, 2,  0, 0, 0, 0, 0, 0, 1, 2,
        255, 255, 255, 255, 255, 255, 255, 255,  255, 255,  255, 255, 255, 255,  0, 0, 0, 1,
        // length 10: attributes, timestamp, offset, key, null value, one header, null value
        20, 0, 0, 0, 2, b'k', 1, 2, 2, b'h', 1,
    ];
    assert_eq!(&bytes[..], &expected[..]);
    let stored = u32::from_be_bytes(bytes[17..21].try_into().unwrap());
    assert_eq!(stored, crc32c::crc32c(&bytes[21..]));
}

#[test]
fn compressions_are_known_by_name() {
    for kind in Compression::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert!("brotli".parse::<Compression>().unwrap_err().to_string().contains("zstd"));
}

#[test]
fn debug_output_shows_no_user_bytes() {
    let built = build(&[Record::of_value("secret", Timestamp(1))], Compression::None);
    let text = format!("{built:?}");
    assert!(text.contains("record_count: 1") && !text.contains("secret"), "{text}");
}
