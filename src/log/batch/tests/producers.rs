//! What batches tell of their producers, and what a follower takes over from its leader.

use super::*;

fn of_producer(id: i64, epoch: i16, sequence: i32, counts: &[usize]) -> Vec<ValidBatches> {
    let mut builder = BatchBuilder::new().with_producer(id, epoch, sequence);
    let build = |count: &usize| {
        for record in repetitive(*count) {
            builder.push(&record).unwrap();
        }
        builder.finish().unwrap()
    };
    counts.iter().map(build).collect()
}

#[test]
fn a_producer_is_told_with_sequences_that_go_on_and_the_place_among_others() {
    let mut all = of_producer(7, 2, i32::MAX - 1, &[2, 3]);
    all.insert(1, build(&repetitive(4), Compression::None));
    let joined = ValidBatches::join(all).unwrap();
    let found: Vec<_> = joined.producers().collect();
    let facts = |first_sequence, record_count, relative_offset| BatchFacts {
        producer_id: 7,
        epoch: 2,
        first_sequence,
        record_count,
        relative_offset,
        max_timestamp: Timestamp(1_700_000_000_000 + i64::from(record_count) - 1),
    };
    assert_eq!(found, [facts(i32::MAX - 1, 2, 0), facts(0, 3, 6)]);
    assert_eq!(found[0].last_sequence(), i32::MAX);
    let stamped = joined.clone().stamped(Offset(90), 3);
    assert_eq!(producers_of(stamped.bytes()).collect::<Vec<_>>(), found);
    assert_eq!(check(joined.bytes()).unwrap().producers().count(), 2);
    assert_eq!(build(&repetitive(4), Compression::Gzip).producers().count(), 0);
}

#[test]
fn a_producer_without_epoch_or_sequence_is_refused() {
    for field in [51, 53] {
        let mut batch = of_producer(7, 2, 5, &[1])[0].bytes().to_vec();
        batch[field] = 0xff;
        let batch = resealed(batch);
        let refused = check(&batch);
        assert!(matches!(refused, Err(BatchError::BadHeader { .. })), "{refused:?}");
        // One that an older log holds is nobody's.
        assert_eq!(producers_of(&Bytes::from(batch)).count(), 0);
    }
}

proptest! {
    #[test]
    fn what_a_leader_sends_is_taken_over_as_it_was_judged(
        requests in proptest::collection::vec((any_records(), any_compression()), 1..4),
        id in -1i64..3,
        base in 0u64..1 << 40,
    ) {
        let built = requests.iter().map(|(records, compression)| {
            let mut builder = BatchBuilder::new().with_compression(*compression);
            if id >= 0 {
                builder = builder.with_producer(id, 0, 9);
            }
            for record in records {
                builder.push(record).unwrap();
            }
            builder.finish().unwrap()
        });
        let sent = ValidBatches::join(built.collect()).unwrap().stamped(Offset(base), 4);
        let taken = receive(sent.bytes().clone(), &BatchLimits::default()).unwrap();
        prop_assert_eq!(&taken, &sent);
        prop_assert_eq!(taken.producers().count(), if id >= 0 { requests.len() } else { 0 });
    }
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let limits = BatchLimits::default();
    let sent = build(&repetitive(5), Compression::Zstd).into_bytes();
    for at in (8..12).chain(16..sent.len()) {
        let mut changed = sent.to_vec();
        changed[at] ^= 4;
        assert!(receive(changed.into(), &limits).is_err(), "byte {at}");
    }
    for end in 0..sent.len() {
        assert!(receive(sent.slice(..end), &limits).is_err(), "cut at {end}");
    }
    let mut miscounted = sent.to_vec();
    miscounted[60] += 1;
    let refused = receive(resealed(miscounted).into(), &limits);
    assert!(matches!(refused, Err(BatchError::CountMismatch { .. })), "{refused:?}");
    let tight = BatchLimits { batch_bytes_max: 100, ..limits };
    assert!(matches!(receive(sent, &tight), Err(BatchError::BatchTooLarge { .. })));
}

#[test]
fn a_follower_does_not_decompress() {
    let mut packed = build(&repetitive(5), Compression::Zstd).bytes().to_vec();
    let end = packed.len();
    packed[HEADER_BYTES..end].fill(0);
    let packed = resealed(packed);
    assert!(matches!(check(&packed), Err(BatchError::Undecompressable { .. })));
    let taken = receive(packed.into(), &BatchLimits::default()).unwrap();
    assert_eq!(taken.record_count(), 5);
}
