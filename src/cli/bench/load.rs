//! The loads themselves: producers in lock step, a producer of batches, a reader, a follower.
//! The same code loads a node and the echo server.

use super::BenchError;
use super::process::{LogGrpc, Reach, connect};
use crate::log::batch::BatchBuilder;
use crate::model::{Clock, Record, SystemClock, Timestamp};
use crate::wire::pb::duramen::v1 as pb;
use bytes::Bytes;
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// How long a load runs.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub warmup: Duration,
    pub measured: Duration,
}

/// What a load saw.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Records in the measured time.
    pub records: u64,
    /// The measured time.
    pub seconds: f64,
    /// Records since the load began, the warm-up included.
    pub records_in_all: u64,
    /// Bytes of messages received, for loads that read.
    pub received_bytes: u64,
    /// Messages received, for loads that read.
    pub messages: u64,
    /// Clients that came and went beside the load.
    pub visits: u64,
    /// Nanoseconds; empty where the load has no latency.
    pub latency: Histogram<u64>,
}

/// For nanoseconds up to ten minutes; what takes longer counts as ten minutes.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order")
}

impl Sample {
    pub fn empty() -> Self {
        let latency = histogram();
        Self {
            records: 0,
            seconds: 0.0,
            records_in_all: 0,
            received_bytes: 0,
            messages: 0,
            visits: 0,
            latency,
        }
    }

    /// Records a second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    pub fn count(&mut self, records: u64, began: Duration, ended: Duration, warm: Duration) {
        self.records_in_all += records;
        if began >= warm {
            self.records += records;
            self.latency.saturating_record(u64::try_from((ended - began).as_nanos()).unwrap_or(0));
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.records_in_all += other.records_in_all;
        self.latency.add(&other.latency).expect("histograms of one precision add up");
    }
}

/// A value that neither compresses nor repeats.
fn value(bytes: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect::<Vec<u8>>().into()
}

fn one_record(bytes: usize) -> pb::ProduceRequest {
    let record = pb::Record { value: Some(value(bytes)), ..Default::default() };
    pb::ProduceRequest { topic: "log".into(), records: vec![record], ..Default::default() }
}

/// A whole batch as a producer would send it.
pub fn encoded_batch(records: usize, record_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    let record = Record::of_value(value(record_bytes), Timestamp(1_700_000_000_000));
    for _ in 0..records {
        builder.push(&record).expect("the benchmark's batches are within the limits");
    }
    builder.finish().expect("a batch of the benchmark holds records").into_bytes()
}

fn acknowledged(response: Option<pb::ProduceResponse>) -> Result<pb::ProduceResponse, BenchError> {
    let message = "the stream ended before the acknowledgement".to_owned();
    let response = response.ok_or(BenchError::Refused { message })?;
    match response.error {
        Some(error) => Err(BenchError::Refused { message: error.message }),
        None => Ok(response),
    }
}

/// Connections for producers in lock step: what it costs to make them is not theirs.
pub async fn connected(reach: &Reach, connections: usize) -> Result<Vec<LogGrpc>, BenchError> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(connect(reach).await?);
    }
    Ok(clients)
}

/// Producers on connections of their own that wait for each acknowledgement.
pub async fn lock_step(
    clients: Vec<LogGrpc>,
    unary: bool,
    record_bytes: usize,
    window: Window,
) -> Result<Sample, BenchError> {
    let clock = SystemClock::new();
    let producers = clients.into_iter().map(|client| {
        let clock = clock.clone();
        tokio::spawn(async move {
            match unary {
                true => lock_step_unary(client, record_bytes, window, clock).await,
                false => lock_step_stream(client, record_bytes, window, clock).await,
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let mut sample = Sample::empty();
    for producer in producers {
        sample.merge(&producer.await.expect("a producer does not panic")?);
    }
    sample.seconds = window.measured.as_secs_f64();
    Ok(sample)
}

async fn lock_step_stream(
    mut client: LogGrpc,
    record_bytes: usize,
    window: Window,
    clock: SystemClock,
) -> Result<Sample, BenchError> {
    let request = one_record(record_bytes);
    let (sender, receiver) = mpsc::channel(1);
    let mut acks = client.produce(ReceiverStream::new(receiver)).await?.into_inner();
    let (mut sample, stop) = (Sample::empty(), window.warmup + window.measured);
    let mut now = clock.monotonic();
    while now < stop {
        let began = now;
        // A closed stream shows in the acknowledgement that does not come.
        let _ = sender.send(request.clone()).await;
        acknowledged(acks.message().await?)?;
        now = clock.monotonic();
        sample.count(1, began, now, window.warmup);
    }
    Ok(sample)
}

async fn lock_step_unary(
    mut client: LogGrpc,
    record_bytes: usize,
    window: Window,
    clock: SystemClock,
) -> Result<Sample, BenchError> {
    let request = one_record(record_bytes);
    let (mut sample, stop) = (Sample::empty(), window.warmup + window.measured);
    let mut now = clock.monotonic();
    while now < stop {
        let began = now;
        client.produce_once(request.clone()).await?;
        now = clock.monotonic();
        sample.count(1, began, now, window.warmup);
    }
    Ok(sample)
}

/// When a producer of batches ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After the window.
    Time(Window),
    /// After so many batches.
    Batches(u64),
}

/// One producer of whole batches, so many of them outstanding.
pub async fn pipe(
    reach: &Reach,
    batch_records: usize,
    record_bytes: usize,
    outstanding: usize,
    until: Until,
) -> Result<Sample, BenchError> {
    let batch = encoded_batch(batch_records, record_bytes);
    let request = pb::ProduceRequest { topic: "log".into(), batch, ..Default::default() };
    let (sender, receiver) = mpsc::channel(outstanding);
    let mut client = connect(reach).await?;
    let mut acks = client.produce(ReceiverStream::new(receiver)).await?.into_inner();
    let clock = SystemClock::new();
    let (warm, stop, batches_max) = match until {
        Until::Time(window) => (window.warmup, window.warmup + window.measured, u64::MAX),
        Until::Batches(count) => (Duration::ZERO, Duration::MAX, count),
    };
    let (mut sample, mut sent) = (Sample::empty(), std::collections::VecDeque::new());
    let (mut begun, mut now) = (0, clock.monotonic());
    let (mut first, mut last) = (None, now);
    loop {
        while sent.len() < outstanding && now < stop && begun < batches_max {
            let _ = sender.send(request.clone()).await;
            sent.push_back(clock.monotonic());
            begun += 1;
        }
        let Some(began) = sent.pop_front() else { break };
        acknowledged(acks.message().await?)?;
        now = clock.monotonic();
        // What is acknowledged behind the window was sent within it, yet fills no time of it.
        if now <= stop {
            sample.count(batch_records as u64, began, now, warm);
            if began >= warm {
                first.get_or_insert(began);
                last = now;
            }
        } else {
            sample.records_in_all += batch_records as u64;
        }
    }
    sample.seconds = (last - first.unwrap_or(last)).as_secs_f64().max(f64::EPSILON);
    Ok(sample)
}

/// Reads what a fetch gives, to its end.
pub async fn read(reach: &Reach, request: pb::FetchRequest) -> Result<Sample, BenchError> {
    let mut client = connect(reach).await?;
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let mut responses: Streaming<pb::FetchResponse> = client.fetch(request).await?.into_inner();
    let mut sample = Sample::empty();
    while let Some(response) = responses.message().await? {
        sample.records += response.next_offset - response.base_offset;
        sample.received_bytes += response.batches.len() as u64;
        sample.messages += 1;
    }
    sample.records_in_all = sample.records;
    sample.seconds = (clock.monotonic() - began).as_secs_f64().max(f64::EPSILON);
    Ok(sample)
}

/// A producer and a follower: from the send of a record to its receipt, one at a time.
pub async fn tail(
    reach: &Reach,
    record_bytes: usize,
    window: Window,
) -> Result<Sample, BenchError> {
    let mut follower = connect(reach).await?;
    let follow = pb::FetchRequest {
        topic: "log".into(),
        position: Some(pb::fetch_request::Position::End(true)),
        follow: true,
        ..Default::default()
    };
    let mut followed = follower.fetch(follow).await?.into_inner();
    let mut producer = connect(reach).await?;
    let (sender, receiver) = mpsc::channel(1);
    let mut acks = producer.produce(ReceiverStream::new(receiver)).await?.into_inner();
    let request = one_record(record_bytes);
    let (mut sample, stop) = (Sample::empty(), window.warmup + window.measured);
    let clock = SystemClock::new();
    let mut now = clock.monotonic();
    while now < stop {
        let began = now;
        let _ = sender.send(request.clone()).await;
        let received = followed.message().await?;
        now = clock.monotonic();
        if received.is_none_or(|response| response.records.is_empty()) {
            let message = "the follower's stream ended".to_owned();
            return Err(BenchError::Refused { message });
        }
        sample.count(1, began, now, window.warmup);
        acknowledged(acks.message().await?)?;
        now = clock.monotonic();
    }
    sample.seconds = window.measured.as_secs_f64();
    Ok(sample)
}
