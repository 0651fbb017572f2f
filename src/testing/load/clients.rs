//! The clients of a load: producers that name every record, consumers that follow.

use super::ledger::{Ledger, Name};
use super::{Aim, LoadPlan};
use crate::log::batch::{self, BatchBuilder, BatchLimits};
use crate::model::{Clock, Offset, SystemClock, Timestamp};
use crate::wire::client::{
    Client, ClientError, ClientOptions, Consistency, FetchOptions, Position, Refusal, Target,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long a request may be unanswered before its outcome counts as unknown.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The wait after an error, unless the node asks for another; and the longest it is granted.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What clients, the test and the thread between them share.
pub(super) struct Shared {
    aim: Aim,
    /// Whose turn it is to be connected to.
    turn: AtomicUsize,
    plan: LoadPlan,
    /// Tells this load's records from those of others.
    run: u64,
    pub(super) stop: AtomicBool,
    /// Nobody wants the ledger.
    pub(super) is_abandoned: AtomicBool,
    pub(super) acknowledged: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) errors: AtomicU64,
    ledger: Mutex<Ledger>,
}

impl Shared {
    pub(super) fn new(aim: Aim, plan: LoadPlan) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        Self {
            aim,
            turn: AtomicUsize::new(0),
            plan,
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            stop: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            ledger: Mutex::default(),
        }
    }

    pub(super) fn errors_by_kind(&self) -> BTreeMap<String, u64> {
        self.ledger().errors.clone()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a consumer met.
    fn stumble(&self, kind: String) {
        *self.ledger().consumer_errors.entry(kind).or_default() += 1;
        self.errors.fetch_add(1, Ordering::AcqRel);
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether there is another node to go to.
    fn has_choice(&self) -> bool {
        self.aim.addresses.read().unwrap_or_else(PoisonError::into_inner).len() > 1
    }

    async fn connect(&self) -> Result<Client, ClientError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let address = {
            let addresses = self.aim.addresses.read().unwrap_or_else(PoisonError::into_inner);
            addresses[turn % addresses.len()].clone()
        };
        Client::connect(&address, ClientOptions::default()).await
    }
}

/// Runs all clients to their end, then reads everything back.
pub(super) async fn run(shared: Arc<Shared>, patience: Duration) -> Ledger {
    let (goal, goals) = watch::channel(None);
    let Ok(begin) = tokio::time::timeout(patience, end_of_log(&shared)).await else {
        panic!("the log's end was not told in {patience:?}: {:?}", shared.ledger().consumer_errors)
    };
    let consumers: Vec<_> = (0..shared.plan.consumers)
        .map(|_| tokio::spawn(consume(Arc::clone(&shared), begin, goals.clone())))
        .collect();
    let producers: Vec<_> = (0..shared.plan.producers)
        .map(|number| tokio::spawn(produce(Arc::clone(&shared), number as u32)))
        .collect();
    for producer in producers {
        producer.await.expect("a producer ends by itself");
    }
    if shared.is_abandoned.load(Ordering::Acquire) {
        return Ledger::default();
    }
    let read = async {
        let mut found = Vec::new();
        let all = read_back(&shared, begin, &mut found).await;
        goal.send_replace(Some(all.next));
        let mut misread = Vec::new();
        for (number, consumer) in consumers.into_iter().enumerate() {
            let consumer = consumer.await.expect("a consumer ends by itself");
            // One that was faster than the reading back has met later records of others as well.
            let is_same = consumer.next != all.next || consumer.digest == all.digest;
            if !is_same || consumer.gap.is_some() {
                misread.push(number);
            }
        }
        (found, all, misread)
    };
    let read = tokio::time::timeout(2 * patience, read).await;
    let mut ledger = std::mem::take(&mut *shared.ledger());
    let Ok((found, all, misread)) = read else {
        panic!(
            "the log was not read to its end in {:?}: {:?}",
            2 * patience,
            ledger.consumer_errors
        )
    };
    ledger.others = all.next - begin - found.len() as u64;
    ledger.gap = all.gap;
    (ledger.found, ledger.misread) = (found, misread);
    ledger
}

/// Where the log ends now. Asks until it is told.
async fn end_of_log(shared: &Shared) -> u64 {
    loop {
        let described = async { shared.connect().await?.describe(&shared.aim.topic).await };
        match described.await {
            Ok(status) => match status.partitions.first() {
                Some(partition) => return partition.high_watermark,
                None => shared.stumble("describe names no partition".into()),
            },
            Err(error) => shared.stumble(kind_of(&error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn produce(shared: Arc<Shared>, producer: u32) {
    let (target, mut builder) = (Target::topic(&shared.aim.topic), BatchBuilder::new());
    let now = SystemClock::new().wall();
    let mut client = None;
    let mut number = 0;
    while !shared.is_stopping() {
        let names: Vec<Name> =
            (number..number + u64::from(shared.plan.records)).map(|n| (producer, n)).collect();
        let body = encode(&mut builder, shared.run, &names, shared.plan.value_bytes, now);
        let sent = async {
            let client = match &mut client {
                Some(client) => client,
                none => none.insert(shared.connect().await?),
            };
            client.produce_once(&target, body).await
        };
        let pause = match tokio::time::timeout(ANSWER_MAX, sent).await {
            Ok(Ok(ack)) => {
                let base = ack.base_offset.0;
                let placed = names.iter().enumerate();
                let placed = placed.map(|(at, name)| (*name, base + at as u64));
                shared.ledger().acknowledged.extend(placed);
                shared.acknowledged.fetch_add(names.len() as u64, Ordering::AcqRel);
                None
            }
            Ok(Err(error)) => {
                let mut ledger = shared.ledger();
                if is_definite(&error) {
                    ledger.refused.extend(names.iter().copied());
                } else {
                    ledger.unknown += names.len() as u64;
                }
                *ledger.errors.entry(kind_of(&error)).or_default() += 1;
                drop(ledger);
                if shared.has_choice() {
                    client = None;
                }
                Some(pause_after(&error))
            }
            Err(_) => {
                let mut ledger = shared.ledger();
                ledger.unknown += names.len() as u64;
                *ledger.errors.entry(format!("no answer in {ANSWER_MAX:?}")).or_default() += 1;
                client = None;
                Some(PAUSE)
            }
        };
        number += u64::from(shared.plan.records);
        if let Some(pause) = pause {
            shared.errors.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Follows the log until the goal is known and reached; gives back how far it came and what it read.
async fn consume(
    shared: Arc<Shared>,
    begin: u64,
    mut goals: watch::Receiver<Option<u64>>,
) -> Reader {
    let mut reader = Reader::at(begin);
    loop {
        let (next, mut goal) = (reader.next, goals.clone());
        tokio::select! {
            () = reached(&mut goals, next) => return reader,
            followed = follow(&shared, &mut reader, &mut goal) => match followed {
                Ok(()) => return reader,
                Err(error) => {
                    shared.stumble(kind_of(&error));
                    tokio::time::sleep(pause_after(&error)).await;
                }
            }
        }
    }
}

/// Waits until the goal is known and lies no further than `next`.
async fn reached(goals: &mut watch::Receiver<Option<u64>>, next: u64) {
    // An error says that the load is abandoned: as good as reached.
    drop(goals.wait_for(|goal| goal.is_some_and(|goal| next >= goal)).await.map(drop));
}

async fn follow(
    shared: &Shared,
    reader: &mut Reader,
    goals: &mut watch::Receiver<Option<u64>>,
) -> Result<(), ClientError> {
    let mut client = shared.connect().await?;
    let options = fetch_from(reader.next, true);
    let mut chunks = client.fetch(&Target::topic(&shared.aim.topic), options).await?;
    loop {
        let next = reader.next;
        tokio::select! {
            () = reached(goals, next) => return Ok(()),
            chunk = chunks.next() => match chunk? {
                Some(chunk) => {
                    let read = reader.take(chunk.batches, |_, _| {});
                    shared.consumed.fetch_add(read, Ordering::AcqRel);
                }
                None => return Err(ended()),
            },
        }
    }
}

/// Reads everything from `begin` on, and keeps this load's own. Tries until it has it.
async fn read_back(shared: &Shared, begin: u64, found: &mut Vec<(u64, Name)>) -> Reader {
    let mut reader = Reader::at(begin);
    loop {
        match read_on(shared, &mut reader, found).await {
            Ok(()) => return reader,
            Err(error) => {
                shared.stumble(kind_of(&error));
                tokio::time::sleep(pause_after(&error)).await;
            }
        }
    }
}

async fn read_on(
    shared: &Shared,
    reader: &mut Reader,
    found: &mut Vec<(u64, Name)>,
) -> Result<(), ClientError> {
    let mut client = shared.connect().await?;
    let mut options = fetch_from(reader.next, false);
    // Whoever is asked may be behind those who acknowledged.
    options.consistency = Consistency::Linearizable;
    let mut chunks = client.fetch(&Target::topic(&shared.aim.topic), options).await?;
    while let Some(chunk) = chunks.next().await? {
        reader.take(chunk.batches, |offset, value| {
            found.extend(name_of(value, shared.run).map(|name| (offset, name)));
        });
    }
    Ok(())
}

fn fetch_from(next: u64, follow: bool) -> FetchOptions {
    let position = Position::Offset(Offset(next));
    let consistency = Consistency::Committed;
    FetchOptions { position, chunk_bytes_max: 0, records_max: None, follow, consistency }
}

/// Reads on where it stopped, and remembers what it read by a digest.
#[derive(Debug, Default)]
struct Reader {
    next: u64,
    digest: u64,
    /// The first offset that was passed over, or could not be read.
    gap: Option<u64>,
}

impl Reader {
    fn at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    /// Takes whole batches. Records that were read before are passed over. Returns how many were
    /// new.
    fn take(&mut self, batches: Bytes, mut on_record: impl FnMut(u64, &[u8])) -> u64 {
        let first = self.next;
        for item in batch::records(batches, BatchLimits::default()) {
            let Ok((offset, record)) = item else {
                self.gap.get_or_insert(self.next);
                break;
            };
            if offset.0 < self.next {
                continue;
            }
            if offset.0 > self.next {
                self.gap.get_or_insert(self.next);
            }
            let value = record.value.as_deref().unwrap_or_default();
            on_record(offset.0, value);
            let seen = (offset.0 << 32) ^ u64::from(crc32c::crc32c(value));
            self.digest = self.digest.wrapping_mul(0x0000_0100_0000_01B3) ^ seen;
            self.next = offset.0 + 1;
        }
        self.next - first
    }
}

fn encode(
    builder: &mut BatchBuilder,
    run: u64,
    names: &[Name],
    value_bytes: usize,
    now: Timestamp,
) -> Bytes {
    for (producer, number) in names {
        let mut value = format!("{run}:{producer}:{number}:").into_bytes();
        value.resize(value.len().max(value_bytes), b'.');
        let none = std::iter::empty::<(&str, Option<&[u8]>)>();
        let pushed = builder.push_parts(None, Some(&value), none, now);
        pushed.expect("a request of a load is within the limits of a batch");
    }
    let batch = builder.finish().expect("a request holds a record");
    batch.stamped(Offset(0), 0).into_bytes()
}

fn name_of(value: &[u8], run: u64) -> Option<Name> {
    let mut parts = std::str::from_utf8(value).ok()?.split(':');
    if parts.next()?.parse() != Ok(run) {
        return None;
    }
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether it is certain that nothing was stored.
fn is_definite(error: &ClientError) -> bool {
    error.is_definite()
}

/// What went wrong in few words, the same for the same thing, and whom it names.
fn kind_of(error: &ClientError) -> String {
    match error {
        ClientError::Refused(Refusal { code, message, definite, .. }) => {
            let outcome = if *definite { "nothing done" } else { "outcome unknown" };
            let named = message.split_whitespace().find(|word| word.starts_with("node/"));
            let named = named.map(|path| format!(" by {}", path.trim_end_matches(':')));
            format!("refused{}: {code:?}, {outcome}", named.unwrap_or_default())
        }
        ClientError::Unavailable { .. } => "no connection".into(),
        ClientError::Address { .. } => "no address".into(),
        ClientError::Lost { .. } => "connection lost".into(),
        ClientError::Deadline { .. } => "no answer in time".into(),
        ClientError::Protocol { what } => format!("protocol: {what}"),
    }
}

fn pause_after(error: &ClientError) -> Duration {
    match error {
        ClientError::Refused(Refusal { retry_after: Some(after), .. }) => (*after).min(PAUSE_MAX),
        _ => PAUSE,
    }
}

fn ended() -> ClientError {
    let source = "a read that follows has ended".into();
    ClientError::Lost { address: String::new(), source }
}
