//! What a record batch costs: to build, to check as it comes from a client, to read.

#![allow(missing_docs, reason = "`criterion_group!` makes a function without docs")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duramen::log::batch::{
    BatchBuilder, BatchLimits, Compression, ValidBatches, records, validate, verify_crc,
};
use duramen::model::{Offset, Timestamp};
use std::hint::black_box;

/// Records and bytes of each value.
const SHAPES: [(usize, usize); 4] = [(1, 100), (64, 100), (1000, 100), (64, 1024)];

fn name((count, value_bytes): (usize, usize)) -> String {
    format!("{count}x{value_bytes}B")
}

fn throughput((count, value_bytes): (usize, usize)) -> Throughput {
    Throughput::Bytes((count * value_bytes) as u64)
}

fn fill(builder: &mut BatchBuilder, (count, value_bytes): (usize, usize)) -> ValidBatches {
    let value = vec![b'v'; value_bytes];
    for n in 0..count {
        let timestamp = Timestamp(1_700_000_000_000 + n as i64);
        builder.push_parts(None, Some(&value), [], timestamp).expect("within the limits");
    }
    builder.finish().expect("not empty")
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch/encode");
    for shape in SHAPES {
        group.throughput(throughput(shape));
        let mut builder = BatchBuilder::new();
        group.bench_function(BenchmarkId::from_parameter(name(shape)), |bencher| {
            bencher.iter(|| black_box(fill(&mut builder, shape)));
        });
    }
    group.finish();
}

fn check(criterion: &mut Criterion) {
    let limits = BatchLimits::default();
    let mut group = criterion.benchmark_group("batch/validate");
    for shape in SHAPES {
        group.throughput(throughput(shape));
        let bytes = fill(&mut BatchBuilder::new(), shape).into_bytes();
        group.bench_function(BenchmarkId::from_parameter(name(shape)), |bencher| {
            bencher.iter(|| validate(black_box(bytes.clone()), &limits).expect("valid"));
        });
    }
    let shape = (1000, 100);
    group.throughput(throughput(shape));
    for kind in Compression::ALL.into_iter().filter(|kind| *kind != Compression::None) {
        let mut builder = BatchBuilder::new().with_compression(kind);
        let bytes = fill(&mut builder, shape).into_bytes();
        group.bench_function(BenchmarkId::new(kind.name(), name(shape)), |bencher| {
            bencher.iter(|| validate(black_box(bytes.clone()), &limits).expect("valid"));
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let limits = BatchLimits::default();
    let mut group = criterion.benchmark_group("batch/decode");
    for shape in SHAPES {
        group.throughput(throughput(shape));
        let bytes = fill(&mut BatchBuilder::new(), shape).into_bytes();
        group.bench_function(BenchmarkId::from_parameter(name(shape)), |bencher| {
            bencher.iter(|| {
                let mut value_bytes = 0;
                for item in records(black_box(bytes.clone()), limits) {
                    let (_, record) = item.expect("valid");
                    value_bytes += record.value.map_or(0, |value| value.len());
                }
                value_bytes
            });
        });
    }
    group.finish();
}

fn header_only(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch/prefix");
    let shape = (64, 1024);
    let built = fill(&mut BatchBuilder::new(), shape);
    group.throughput(throughput(shape));
    group.bench_function(BenchmarkId::new("verify_crc", name(shape)), |bencher| {
        bencher.iter(|| verify_crc(black_box(built.bytes())).expect("valid"));
    });
    let mut stamped = Some(built);
    group.bench_function(BenchmarkId::new("stamp", name(shape)), |bencher| {
        bencher.iter(|| {
            let batches = stamped.take().expect("put back below");
            stamped = Some(batches.stamped(Offset(black_box(42)), 7));
        });
    });
    group.finish();
}

criterion_group!(benches, encode, check, decode, header_only);
criterion_main!(benches);
