//! What the log costs by itself, on the machine's own disk: append with and without a sync, reads
//! in chunks, recovery.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench ends at the first failure")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use duramen::log::batch::{BatchBuilder, ValidBatches};
use duramen::log::disk::RealDisk;
use duramen::log::{Entry, EntryPayload, Log, LogOptions, ReadMode, ReadOutcome};
use duramen::model::{Offset, RaftIndex, Record, SystemClock, Term, Timestamp};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

fn open(directory: &Path) -> Log {
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
    Log::open(disk, clock, directory, LogOptions::default(), &mut |_, _| {}).unwrap().0
}

fn batch(records: usize, bytes: usize) -> ValidBatches {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(&Record::of_value(vec![b'x'; bytes], Timestamp(1_700_000_000_000))).unwrap();
    }
    builder.finish().unwrap()
}

fn entry(log: &Log, batch: &ValidBatches) -> Entry {
    let payload = EntryPayload::Data(vec![batch.clone()]);
    Entry { term: Term(1), index: RaftIndex(log.last_index().0 + 1), payload }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    let shapes = [("64x100B", batch(64, 100)), ("64KiB", batch(1, 64 << 10))];
    for (name, batch) in &shapes {
        group.throughput(Throughput::Bytes(batch.bytes().len() as u64));
        for sync in [false, true] {
            let directory = tempfile::tempdir_in("target").unwrap();
            let mut log = open(directory.path());
            let title = format!("{name}/{}", if sync { "synced" } else { "written" });
            group.bench_function(title, |b| {
                b.iter(|| {
                    let entry = entry(&log, batch);
                    black_box(log.append(&[entry]).unwrap());
                    if sync {
                        let _ = black_box(log.sync().unwrap());
                    }
                    if log.view().segments() > 3 {
                        log.truncate_before(Offset(u64::MAX)).unwrap();
                    }
                });
            });
        }
    }
    group.finish();
}

fn filled(directory: &Path, bytes: u64) -> Log {
    let mut log = open(directory);
    let batch = batch(64, 100);
    while log.view().size_bytes() < bytes {
        let entry = entry(&log, &batch);
        log.append(&[entry]).unwrap();
    }
    let _ = log.sync().unwrap();
    log
}

fn read(c: &mut Criterion) {
    let directory = tempfile::tempdir_in("target").unwrap();
    let log = filled(directory.path(), 64 << 20);
    let (view, end) = (log.view(), log.next_offset());
    let mut group = c.benchmark_group("read");
    group.sample_size(20).throughput(Throughput::Bytes(view.size_bytes()));
    for kib in [64, 256] {
        group.bench_function(format!("64MiB/{kib}KiB-chunks"), |b| {
            b.iter(|| {
                let mut from = Offset(0);
                while from < end {
                    let outcome = view.read(from, end, kib << 10, ReadMode::Cached).unwrap();
                    match outcome {
                        ReadOutcome::Chunk(chunk) => from = black_box(chunk).next,
                        other => panic!("{other:?}"),
                    }
                }
            });
        });
    }
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10).throughput(Throughput::Bytes(64 << 20));
    group.bench_function("64MiB-active-segment", |b| {
        b.iter_batched(
            || {
                let directory = tempfile::tempdir_in("target").unwrap();
                drop(filled(directory.path(), 64 << 20));
                directory
            },
            |directory| (open(directory.path()), directory),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, append, read, recovery);
criterion_main!(benches);
