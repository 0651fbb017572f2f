//! The healthy client: appends, reads and connects anew all the time, and remembers what it was told.

use crate::machine::starved;
use crate::node::{HEALTHY, Node};
use crate::verdict::Ledger;
use bytes::Bytes;
use duramen::log::batch::{self, BatchBuilder, BatchLimits};
use duramen::model::{Offset, Record, Timestamp};
use duramen::testing::{block_on, until};
use duramen::wire::client::{Client, ClientOptions, Consistency, FetchOptions, Position, Target};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records of one batch, and the pause between two batches.
const RECORDS: u64 = 5;
const PAUSE: Duration = Duration::from_millis(10);
/// The pause between two reads, and between two new connections.
const READ_PAUSE: Duration = Duration::from_millis(50);
const KNOCK_PAUSE: Duration = Duration::from_millis(100);
/// Whoever waits longer is not answered any more.
const ANSWER_MAX: Duration = Duration::from_secs(60);

struct Shared {
    /// The node's process.
    pid: u32,
    stop: AtomicBool,
    ledger: Mutex<Ledger>,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    /// What is asked and not answered yet, by who asks.
    open: BTreeMap<&'static str, Instant>,
    longest: Duration,
    /// The longest that the node had no processor meanwhile.
    starved: Duration,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nobody panics with it")
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().expect("nobody panics with it")
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits for an answer, and notes how long; `None`, and an error on the ledger, where there is none.
    async fn answer<T, E: ToString>(
        &self,
        who: &'static str,
        asked: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let (begun, starved_before) = (Instant::now(), starved(self.pid));
        self.waits().open.insert(who, begun);
        let answered = tokio::time::timeout(ANSWER_MAX, asked).await;
        let mut waits = self.waits();
        waits.open.remove(who);
        let waited = begun.elapsed();
        // What the node had no processor for is no fault of it: other programs are on the machine.
        let starved = starved(self.pid).saturating_sub(starved_before).min(waited);
        waits.longest = waits.longest.max(waited - starved);
        waits.starved = waits.starved.max(starved);
        drop(waits);
        let error = match answered {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ANSWER_MAX:?}"),
        };
        *self.ledger().errors.entry(format!("{who}: {error}")).or_default() += 1;
        None
    }
}

pub struct Healthy {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Healthy {
    pub fn start(node: &Node) -> Self {
        let shared = Arc::new(Shared {
            pid: node.pid(),
            stop: AtomicBool::default(),
            ledger: Mutex::default(),
            waits: Mutex::default(),
        });
        let (address, options) = (node.target().rpc.to_string(), node.options());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let client = Client::connect(&address, options.clone()).await;
                let client = client.expect("the node answers");
                begin(client.clone()).await;
                tokio::join!(
                    produce(&for_thread, client.clone()),
                    read(&for_thread, client),
                    knock(&for_thread, &address, options)
                );
            });
        });
        Self { shared, thread }
    }

    /// Waits until some more records are acknowledged.
    pub fn until_acknowledged(&self) {
        let count = || self.shared.ledger().acknowledged.len();
        let wanted = count() + 4 * RECORDS as usize;
        until("the healthy client is answered", || count() >= wanted);
    }

    /// The longest that it waited for an answer since this was asked last; also for one that is due.
    pub fn take_longest(&self) -> Duration {
        let mut waits = self.shared.waits();
        let open = waits.open.values().map(Instant::elapsed).max().unwrap_or_default();
        std::mem::take(&mut waits.longest).max(open)
    }

    /// The longest that the node had no processor while it waited.
    pub fn longest_starved(&self) -> Duration {
        self.shared.waits().starved
    }

    /// Ends it: what was asked is waited for.
    pub fn finish(self) -> Ledger {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().expect("the healthy client ends by itself");
        std::mem::take(&mut *self.shared.ledger())
    }
}

fn target() -> Target {
    Target::topic(HEALTHY)
}

fn value(number: u64) -> Vec<u8> {
    format!("record {number} of the healthy client, {}", number.wrapping_mul(0x9E37_79B9)).into()
}

fn numbered(first: u64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for number in first..first + RECORDS {
        let record = Record::of_value(value(number), Timestamp(1));
        builder.push(&record).expect("small records fit");
    }
    builder.finish().expect("it holds records").into_bytes()
}

/// Has the first records stored. A partition that was just made has no leader for a moment, and is not to
/// be read either.
async fn begin(mut client: Client) {
    while client.produce_once(&target(), numbered(0)).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
}

async fn produce(shared: &Shared, mut client: Client) {
    let (mut first, target) = (RECORDS, target());
    while !shared.is_over() {
        tokio::time::sleep(PAUSE).await;
        let asked = client.produce_once(&target, numbered(first));
        if let Some(ack) = shared.answer("append", asked).await {
            let offsets = (0..).map(|at| ack.base_offset.0 + at);
            let records = (first..first + RECORDS).map(value);
            shared.ledger().acknowledged.extend(offsets.zip(records));
        }
        first += RECORDS;
    }
}

async fn read(shared: &Shared, client: Client) {
    let mut next = Offset(0);
    while !shared.is_over() {
        tokio::time::sleep(READ_PAUSE).await;
        let read = read_from(client.clone(), next);
        if let Some(found) = shared.answer("read", read).await {
            next = found.last_key_value().map_or(next, |(last, _)| Offset(last + 1));
            shared.ledger().read += found.len() as u64;
        }
    }
}

/// Connects anew. Where all places are taken it is turned away, which is an answer too.
async fn knock(shared: &Shared, address: &str, options: ClientOptions) {
    while !shared.is_over() {
        tokio::time::sleep(KNOCK_PAUSE).await;
        let knocking = async {
            let asked = async {
                let mut client = Client::connect(address, options.clone()).await?;
                client.describe(HEALTHY).await
            };
            Ok::<bool, String>(asked.await.is_ok())
        };
        match shared.answer("new connection", knocking).await {
            Some(true) => shared.ledger().knocks.0 += 1,
            Some(false) => shared.ledger().knocks.1 += 1,
            None => {}
        }
    }
}

async fn read_from(mut client: Client, from: Offset) -> Result<BTreeMap<u64, Vec<u8>>, String> {
    let options = FetchOptions {
        position: Position::Offset(from),
        chunk_bytes_max: 0,
        records_max: None,
        follow: false,
        consistency: Consistency::Committed,
    };
    let opened = client.fetch(&target(), options).await;
    let mut chunks = opened.map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    while let Some(chunk) = chunks.next().await.map_err(|error| error.to_string())? {
        for item in batch::records(chunk.batches, BatchLimits::default()) {
            let (offset, record) = item.map_err(|error| error.to_string())?;
            let value = record.value.map(|value| value.to_vec()).unwrap_or_default();
            found.insert(offset.0, value);
        }
    }
    Ok(found)
}

/// All that is stored of the healthy client's.
pub fn read_all(node: &Node) -> BTreeMap<u64, Vec<u8>> {
    block_on(async { read_from(node.client().await, Offset(0)).await.expect("it can be read") })
}
