//! Producers that go on whatever happens, and remember what they were told.

use crate::checker::{Acked, Event, Ledger, value};
use crate::read::linearizable_end;
use crate::rights::client_options;
use bytes::Bytes;
use duramen::log::batch::BatchBuilder;
use duramen::model::{Record, Timestamp};
use duramen::wire::client::{Client, ClusterClient, ClusterOptions, Place, ProducerOptions};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records of one batch.
const RECORDS: u64 = 5;
/// Batches of one producer that are not answered.
const OUTSTANDING: usize = 4;
/// The pause between two batches of a producer: load is for concurrency here, not for its own sake.
const PAUSE: Duration = Duration::from_millis(20);
/// A batch that is not stored by then has failed for good: longer than any fault lasts.
const DEADLINE: Duration = Duration::from_secs(120);
/// The pause between two linearizable reads of a partition, and how long one may take.
const READ_PAUSE: Duration = Duration::from_millis(100);
const READ_MAX: Duration = Duration::from_secs(2);

struct Shared {
    stop: AtomicBool,
    ledger: Mutex<Ledger>,
    progress: Mutex<Vec<Progress>>,
}

/// Of one partition.
#[derive(Debug, Clone, Copy)]
struct Progress {
    acknowledged: u64,
    next_offset: u64,
    last: Instant,
    /// The longest time between two acknowledgements since somebody asked.
    longest: Gap,
}

/// A time in which a partition acknowledged nothing.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    pub partition: u32,
    pub from: Instant,
    pub length: Duration,
}

pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Each producer sends to one partition, in turn over the partitions. `is_read`: each partition is
    /// read as well, at one node after the other.
    pub fn start(
        addresses: &[String],
        topic: &str,
        partitions: u32,
        producers: u32,
        is_read: bool,
    ) -> Self {
        let run = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
        let now = Instant::now();
        let progress = |partition| Progress {
            acknowledged: 0,
            next_offset: 0,
            last: now,
            longest: Gap { partition, from: now, length: Duration::ZERO },
        };
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            ledger: Mutex::new(Ledger { run, ..Ledger::default() }),
            progress: Mutex::new((0..partitions).map(progress).collect()),
        });
        let (addresses, topic) = (addresses.to_vec(), topic.to_owned());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut all = Vec::new();
                for producer in 0..producers {
                    let (addresses, topic) = (addresses.clone(), topic.clone());
                    let shared = Arc::clone(&for_thread);
                    let partition = producer % partitions;
                    all.push(tokio::spawn(async move {
                        produce(&shared, &addresses, &topic, partition, producer).await;
                    }));
                }
                for partition in 0..if is_read { partitions } else { 0 } {
                    let (addresses, topic) = (addresses.clone(), topic.clone());
                    let shared = Arc::clone(&for_thread);
                    all.push(tokio::spawn(async move {
                        read(&shared, &addresses, &topic, partition).await;
                    }));
                }
                for one in all {
                    one.await.expect("a client ends by itself");
                }
            });
        });
        Self { shared, thread }
    }

    /// Acknowledged records of each partition so far.
    pub fn acknowledged(&self) -> Vec<u64> {
        let progress = self.shared.progress.lock().expect("nobody panics with it");
        progress.iter().map(|progress| progress.acknowledged).collect()
    }

    /// The longest time for which a partition acknowledged nothing, since this was asked last.
    pub fn longest_gap(&self) -> Gap {
        let mut progress = self.shared.progress.lock().expect("nobody panics with it");
        let gaps = progress.iter_mut().map(|progress| {
            let open =
                Gap { from: progress.last, length: progress.last.elapsed(), ..progress.longest };
            let longest = progress.longest;
            progress.longest.length = Duration::ZERO;
            if open.length > longest.length { open } else { longest }
        });
        gaps.max_by_key(|gap| gap.length).expect("there are partitions")
    }

    /// Where the next record of each partition goes, as far as was acknowledged.
    pub fn offsets(&self) -> Vec<u64> {
        let progress = self.shared.progress.lock().expect("nobody panics with it");
        progress.iter().map(|progress| progress.next_offset).collect()
    }

    /// Ends it: what was sent is waited for.
    pub fn finish(self) -> Ledger {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().expect("the load ends by itself");
        std::mem::take(&mut *self.shared.ledger.lock().expect("nobody panics with it"))
    }
}

fn batch(run: u64, producer: u32, first: u64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for number in first..first + RECORDS {
        let padding = ((number * 7919) % 512) as usize;
        let record = Record::of_value(value(run, producer, number, padding), Timestamp(1));
        builder.push(&record).expect("small records fit");
    }
    builder.finish().expect("it holds records").into_bytes()
}

async fn produce(
    shared: &Shared,
    addresses: &[String],
    topic: &str,
    partition: u32,
    producer: u32,
) {
    let options = ClusterOptions { client: client_options(), ..ClusterOptions::default() };
    let cluster = loop {
        match ClusterClient::connect(addresses, options.clone(), None).await {
            Ok(cluster) => break cluster,
            Err(_) if shared.stop.load(Ordering::Acquire) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let answer_max = Duration::from_secs(2);
    let options = ProducerOptions { deadline: DEADLINE, answer_max, ..ProducerOptions::default() };
    let mut client = cluster.producer(topic, options);
    let run = shared.ledger.lock().expect("nobody panics with it").run;
    let mut open = FuturesOrdered::new();
    let mut next = 0;
    let mut pause = tokio::time::interval(PAUSE);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_over = shared.stop.load(Ordering::Acquire);
        if is_over && open.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            Some((first, outcome)) = open.next() => note(shared, producer, partition, first, outcome),
            _ = pause.tick(), if !is_over && open.len() < OUTSTANDING => {
                let first = next;
                next += RECORDS;
                shared.ledger.lock().expect("nobody panics with it").sent.insert(producer, next);
                let sent = client.send(Place::Partition(partition), batch(run, producer, first)).await;
                open.push_back(async move {
                    match sent {
                        Ok(receipt) => (first, receipt.await.map(|it| it.ack.base_offset.0)),
                        Err(error) => (first, Err(error)),
                    }
                });
            }
        }
    }
}

fn note(
    shared: &Shared,
    producer: u32,
    partition: u32,
    first: u64,
    outcome: Result<u64, duramen::wire::client::ClientError>,
) {
    let mut ledger = shared.ledger.lock().expect("nobody panics with it");
    match outcome {
        Ok(base) => {
            let acked = (0..RECORDS).map(|at| Acked {
                producer,
                number: first + at,
                partition,
                offset: base + at,
            });
            ledger.acked.extend(acked);
            ledger.history.push(Event::Acked { partition, end: base + RECORDS });
            let mut progress = shared.progress.lock().expect("nobody panics with it");
            let progress = &mut progress[partition as usize];
            progress.acknowledged += RECORDS;
            progress.next_offset = progress.next_offset.max(base + RECORDS);
            let length = progress.last.elapsed();
            if length > progress.longest.length {
                progress.longest = Gap { partition, from: progress.last, length };
            }
            progress.last = Instant::now();
        }
        Err(error) => *ledger.errors.entry(error.to_string()).or_default() += 1,
    }
}

/// Asks one node after the other how far the partition is. Of a read that is refused nothing is known.
async fn read(shared: &Shared, addresses: &[String], topic: &str, partition: u32) {
    let note = |event| shared.ledger.lock().expect("nobody panics with it").history.push(event);
    for (number, address) in (0u64..).zip(addresses.iter().cycle()) {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        tokio::time::sleep(READ_PAUSE).await;
        let read = number << 32 | u64::from(partition);
        let seen = tokio::time::timeout(READ_MAX, async {
            let mut client = Client::connect(address, client_options()).await.ok()?;
            note(Event::ReadBegan { read, partition });
            linearizable_end(&mut client, topic, partition).await
        });
        if let Ok(Some(end)) = seen.await {
            note(Event::ReadSaw { read, end, node: address.clone() });
        }
    }
}
