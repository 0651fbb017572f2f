//! A partition as front ends hold it: checks what comes in, admits it, and reads through what the
//! partition's actors publish. Stays valid while the actors behind it are replaced.

use super::explain::{OverloadFacts, PartitionFacts};
use super::partition::{
    Chunk, LeaderHint, PartitionApi, PartitionState, PartitionStatus, PendingAck, ProduceError,
    ReadError,
};
use super::published::{Phase, Published};
use super::raft::{Body, Propose, RaftActor, ReadIndex};
use super::readers::Reader;
use crate::log::batch::{self, BatchBuilder, BatchError, BatchLimits, Compression, HEADERS_MAX};
use crate::log::{LogError, LogView, ReadMode, ReadOutcome};
use crate::model::{
    Clock, Durability, Header, Offset, Record, ReplicaId, Seldom, Timestamp, with_causes,
};
use crate::observe::Instruments;
use crate::observe::metrics::RefusedFor;
use crate::supervision::{ActorRef, Load, Refused, State};
use bytes::Bytes;
use slog::{Logger, warn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};

/// When to come back to a partition that is being recovered or rebuilt.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often the log tells of requests that were refused for load.
const OVERLOAD_TOLD_EVERY: Duration = Duration::from_secs(1);
/// Cold reads of one partition under way at a time; more wait their turn.
const COLD_READS_MAX: usize = 4;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PartitionHandle(Arc<Inner>, Option<Arc<str>>);

#[derive(Debug)]
struct Inner {
    raft: ActorRef<RaftActor>,
    published: Arc<Published>,
    clock: Arc<dyn Clock>,
    limits: BatchLimits,
    durability: Durability,
    cold_reads: Semaphore,
    refused: AtomicU64,
    overload: Mutex<Overload>,
    logger: Logger,
    instruments: Instruments,
}

/// When requests were last refused for load, and how many the log has not told of.
#[derive(Debug, Default)]
struct Overload {
    streak: Option<OverloadFacts>,
    told: Seldom,
    untold: u64,
}

impl PartitionHandle {
    /// A handle to the partition behind `raft`.
    pub fn new(
        raft: ActorRef<RaftActor>,
        published: Arc<Published>,
        clock: Arc<dyn Clock>,
        limits: BatchLimits,
        durability: Durability,
        logger: Logger,
        instruments: Instruments,
    ) -> Self {
        let cold_reads = Semaphore::new(COLD_READS_MAX);
        let refused = AtomicU64::new(0);
        let overload = Mutex::default();
        Self(
            Arc::new(Inner {
                raft,
                published,
                clock,
                limits,
                durability,
                cold_reads,
                refused,
                overload,
                logger,
                instruments,
            }),
            None,
        )
    }

    /// The same partition for those who may only read it. `reason` tells where to append.
    #[must_use]
    pub fn read_only(self, reason: Arc<str>) -> Self {
        Self(self.0, Some(reason))
    }

    /// As [`PartitionApi::propose_batches`], for batches that another cluster has judged and stored:
    /// only what may have happened on the way is checked.
    ///
    /// # Errors
    /// As there.
    pub fn copy_batches(&self, raw: Bytes) -> Result<PendingAck, ProduceError> {
        let bytes = raw.len();
        self.check_request(bytes)?;
        let whole = batch::receive(raw, &self.0.limits).map_err(invalid)?;
        self.propose(Body::Copied(whole), bytes)
    }

    /// As [`PartitionApi::propose_records`], for one record that is large and can be made smaller.
    ///
    /// # Errors
    /// As there.
    pub(super) fn propose_compressed(&self, record: &Record) -> Result<PendingAck, ProduceError> {
        let builder = BatchBuilder::new().with_limits(self.0.limits);
        let mut builder = builder.with_compression(Compression::Zstd);
        builder.push(record).map_err(invalid)?;
        let batch = builder.finish().expect("it holds a record");
        let bytes = batch.len_bytes();
        self.propose(Body::Batches(batch), bytes)
    }

    /// Nothing below this offset, which is committed, is read any more: its log may be shortened. Only for
    /// a log without retention of its own.
    pub(super) fn release_before(&self, offset: Offset) {
        self.0.published.need_from(offset);
    }

    /// What the partition publishes.
    pub fn published(&self) -> &Arc<Published> {
        &self.0.published
    }

    fn propose(&self, body: Body, bytes: usize) -> Result<PendingAck, ProduceError> {
        let inner = &*self.0;
        if let Some(reason) = &self.1 {
            return Err(ProduceError::ReadOnly { message: reason.to_string() });
        }
        if inner.published.is_follower() {
            return Err(self.not_leader());
        }
        let permit = inner.raft.admit(bytes).map_err(|refused| self.refuse(refused))?;
        let (answer, pending) = PendingAck::channel();
        inner
            .raft
            .tell(Propose { body, bytes, answer, permit })
            .map_err(|refused| self.refuse(refused))?;
        Ok(pending)
    }

    /// Whoever passes requests on adds where the leader is.
    fn not_leader(&self) -> ProduceError {
        let (view, term) = (self.0.published.replica(), self.0.published.term());
        let node = view.leader.map(ReplicaId::node);
        let message = match node {
            Some(node) => format!("this replica does not lead; {node} does"),
            None => "this replica does not lead, and no leader is known at present".into(),
        };
        let hint = |node| LeaderHint { node, rpc_addr: String::new(), term };
        ProduceError::NotLeader { message, leader: node.map(hint) }
    }

    /// A request becomes one entry, so all its batches together keep to the limit of one.
    fn check_request(&self, batch_bytes: usize) -> Result<(), ProduceError> {
        let batch_bytes_max = self.0.limits.batch_bytes_max;
        if batch_bytes > batch_bytes_max {
            return Err(invalid(BatchError::BatchTooLarge { batch_bytes, batch_bytes_max }));
        }
        Ok(())
    }

    fn refuse(&self, refused: Refused) -> ProduceError {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        self.0.instruments.metrics.refused(refused_for(&refused)).one();
        let message = refused.to_string();
        match refused {
            Refused::Restarting { retry_after, .. } => {
                ProduceError::Restarting { message, retry_after }
            }
            Refused::Overloaded { retry_after, what, .. } => {
                self.note_overload(&message, what);
                ProduceError::Overloaded { message, retry_after }
            }
            Refused::Stopped { .. } => ProduceError::Stopped { message },
            Refused::Quarantined { .. } => ProduceError::Quarantined { message },
        }
    }

    /// Remembers a refusal for load; the log tells of them once a second at most.
    fn note_overload(&self, message: &str, what: Load) {
        let now = self.0.clock.monotonic();
        let mut overload = self.0.overload.lock().unwrap_or_else(PoisonError::into_inner);
        let streak = overload.streak.filter(|streak| streak.is_recent(now));
        let since = streak.map_or(now, |streak| streak.since);
        overload.streak = Some(OverloadFacts { what, since, last: now });
        overload.untold += 1;
        if overload.told.take(now, OVERLOAD_TOLD_EVERY) {
            warn!(self.0.logger, "requests are refused for load"; "requests" => overload.untold,
                "in_flight" => self.0.raft.in_flight(), "last" => message);
            overload.untold = 0;
        }
    }

    /// What it is doing, and why where it is not serving.
    pub fn state(&self) -> (PartitionState, String) {
        let Inner { raft, published, .. } = &*self.0;
        match raft.state() {
            State::Quarantined { reason, .. } => (PartitionState::Quarantined, reason),
            State::Stopping | State::Stopped => (PartitionState::Stopped, String::new()),
            State::Restarting { .. } => {
                let reason = match &*published.phase() {
                    Phase::Down { reason } => reason.clone(),
                    _ => String::new(),
                };
                (PartitionState::Restarting, reason)
            }
            State::Starting => (PartitionState::Recovering, "its actors are starting".into()),
            State::Running => match &*published.phase() {
                Phase::Serving => (PartitionState::Serving, String::new()),
                Phase::Full { reason } => (PartitionState::Serving, reason.clone()),
                Phase::Down { reason } => (PartitionState::Restarting, reason.clone()),
                Phase::Recovering { done_bytes, total_bytes } => (
                    PartitionState::Recovering,
                    format!("{done_bytes} of {total_bytes} bytes read"),
                ),
            },
        }
    }

    /// What explains how the partition is.
    pub fn facts(&self) -> PartitionFacts {
        let Inner { raft, published, overload, .. } = &*self.0;
        PartitionFacts {
            raft: raft.path().to_string(),
            status: self.describe(),
            is_full: matches!(&*published.phase(), Phase::Full { .. }),
            flush: published.flush_wait().get(),
            entry: published.raft_wait().get(),
            readers: published.readers().list(),
            in_flight: raft.in_flight(),
            in_flight_max: raft.admission().messages_max,
            overload: overload.lock().unwrap_or_else(PoisonError::into_inner).streak,
            in_flight_bytes: raft.in_flight_bytes(),
            in_flight_bytes_max: raft.admission().bytes_max,
        }
    }

    /// The log as readers see it, once it is also known how much of it is committed.
    fn view(&self) -> Result<Arc<LogView>, ReadError> {
        let published = &self.0.published;
        let view = if published.is_bounded() { published.view() } else { None };
        view.ok_or_else(|| ReadError::Unavailable {
            message: match &*self.0.published.phase() {
                Phase::Down { reason } => format!("the partition cannot be read: {reason}"),
                _ => "the partition is being recovered".into(),
            },
            retry_after: RETRY_AFTER,
        })
    }

    fn check_range(&self, view: &LogView, offset: Offset, end: Offset) -> Result<(), ReadError> {
        let start = view.start();
        if offset < start || offset > end {
            return Err(ReadError::OutOfRange { offset, start, end });
        }
        Ok(())
    }

    /// Runs a read that may wait for the device on the blocking pool.
    async fn cold<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let _turn = self.0.cold_reads.acquire().await;
        match tokio::task::spawn_blocking(read).await {
            Ok(outcome) => outcome.map_err(|error| self.explain(error)),
            Err(error) => Err(ReadError::Io { message: format!("the read was given up: {error}") }),
        }
    }

    fn explain(&self, error: LogError) -> ReadError {
        let message = with_causes(&error);
        match error {
            LogError::OffsetOutOfRange { offset, start, .. } => {
                ReadError::OutOfRange { offset, start, end: self.high_watermark() }
            }
            LogError::Corrupt { .. } | LogError::Undecodable { .. } => {
                ReadError::Corrupt { message }
            }
            _ => ReadError::Io { message },
        }
    }
}

fn refused_for(refused: &Refused) -> RefusedFor {
    match refused {
        Refused::Overloaded { what: Load::Messages, .. } => RefusedFor::Messages,
        Refused::Overloaded { what: Load::Bytes, .. } => RefusedFor::Bytes,
        Refused::Overloaded { what: Load::Mailbox, .. } => RefusedFor::Mailbox,
        Refused::Restarting { .. } => RefusedFor::Restarting,
        Refused::Quarantined { .. } => RefusedFor::Quarantined,
        Refused::Stopped { .. } => RefusedFor::Stopped,
    }
}

fn invalid(error: BatchError) -> ProduceError {
    let message = match &error {
        BatchError::RecordTooLarge { .. } => {
            format!("{error} (log.record_bytes_max); send smaller ones")
        }
        BatchError::BatchTooLarge { .. } | BatchError::DecompressedTooLarge { .. } => {
            format!("{error} (log.batch_bytes_max)")
        }
        _ => error.to_string(),
    };
    match error {
        BatchError::BatchTooLarge { .. }
        | BatchError::RecordTooLarge { .. }
        | BatchError::DecompressedTooLarge { .. }
        | BatchError::SnappyBlockTooLarge { .. } => ProduceError::TooLarge { message },
        _ => ProduceError::Invalid { message },
    }
}

/// The most that a record can take in a batch: its bytes and the widest framing of each part.
fn encoded_bytes_max(record: &Record) -> usize {
    const FRAMING: usize = 48;
    const PART: usize = 10;
    let part = |payload: &Option<crate::model::Payload>| payload.as_deref().map_or(0, <[u8]>::len);
    let headers: usize =
        record.headers.iter().map(|h| 2 * PART + h.key.len() + part(&h.value)).sum();
    FRAMING + part(&record.key) + part(&record.value) + headers
}

/// Records from `from` on: so many, and so many bytes when decoded, but at least one. Compressed
/// batches within the limit can hold many times as much.
fn decode(
    batches: Bytes,
    limits: BatchLimits,
    from: Offset,
    max_records: usize,
    max_bytes: usize,
) -> Result<Vec<(Offset, Record)>, ReadError> {
    let mut records = Vec::new();
    let mut bytes = 0;
    for item in batch::records(batches, limits) {
        let (offset, record) =
            item.map_err(|error| ReadError::Corrupt { message: error.to_string() })?;
        if offset < from {
            continue;
        }
        bytes += payload_bytes(&record);
        if !records.is_empty() && (records.len() >= max_records || bytes > max_bytes) {
            break;
        }
        records.push((offset, record));
    }
    Ok(records)
}

fn payload_bytes(record: &Record) -> usize {
    let part = |payload: &Option<crate::model::Payload>| payload.as_deref().map_or(0, <[u8]>::len);
    // A header without content takes memory all the same.
    let header = |h: &Header| size_of::<Header>() + h.key.len() + part(&h.value);
    let headers: usize = record.headers.iter().map(header).sum();
    part(&record.key) + part(&record.value) + headers
}

impl PartitionApi for PartitionHandle {
    fn propose_records(&self, mut records: Vec<Record>) -> Result<PendingAck, ProduceError> {
        let mut now = None;
        let mut bytes = 0;
        for record in &mut records {
            if record.timestamp == Timestamp(0) {
                record.timestamp = *now.get_or_insert_with(|| self.0.clock.wall());
            }
            if record.headers.len() > HEADERS_MAX {
                let problem = "it has too many headers; at most 65536 are taken";
                return Err(invalid(BatchError::MalformedRecord { record: 0, problem }));
            }
            let record_bytes = encoded_bytes_max(record);
            if record_bytes > self.0.limits.record_bytes_max {
                let record_bytes_max = self.0.limits.record_bytes_max;
                return Err(invalid(BatchError::RecordTooLarge { record_bytes, record_bytes_max }));
            }
            bytes += record_bytes;
        }
        if records.is_empty() {
            return Err(ProduceError::Invalid {
                message: "a request needs at least one record".into(),
            });
        }
        self.check_request(bytes)?;
        self.propose(Body::Records(records), bytes)
    }

    fn propose_batches(&self, raw: Bytes) -> Result<PendingAck, ProduceError> {
        let bytes = raw.len();
        self.check_request(bytes)?;
        let whole = batch::validate(raw, &self.0.limits).map_err(invalid)?;
        if whole.batch_count() > 1 && whole.producers().next().is_some() {
            return Err(ProduceError::Invalid {
                message:
                    "a batch with a producer id goes alone in its request: send one request for \
                    each"
                        .into(),
            });
        }
        self.propose(Body::Batches(whole), bytes)
    }

    fn readable(&self) -> Result<(), ReadError> {
        self.view().map(|_| ())
    }

    fn start_offset(&self) -> Offset {
        self.0.published.view().map_or(Offset(0), |view| view.start())
    }

    fn high_watermark(&self) -> Offset {
        self.0.published.high_watermark()
    }

    fn watch(&self) -> watch::Receiver<Offset> {
        self.0.published.watch()
    }

    async fn read_batches(&self, from: Offset, max_bytes: usize) -> Result<Chunk, ReadError> {
        let view = self.view()?;
        let until = self.high_watermark();
        self.check_range(&view, from, until)?;
        let mut outcome = view
            .read(from, until, max_bytes, ReadMode::Cached)
            .map_err(|error| self.explain(error))?;
        if outcome == ReadOutcome::NeedsBlocking {
            outcome =
                self.cold(move || view.read(from, until, max_bytes, ReadMode::Blocking)).await?;
        }
        Ok(match outcome {
            ReadOutcome::Chunk(chunk) => Chunk {
                batches: chunk.batches,
                base: chunk.base,
                next: chunk.next,
                records: chunk.records,
            },
            ReadOutcome::AtEnd | ReadOutcome::NeedsBlocking => {
                Chunk { batches: Bytes::new(), base: from, next: from, records: 0 }
            }
        })
    }

    async fn read_records(
        &self,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Offset, Record)>, ReadError> {
        let chunk = self.read_batches(from, max_bytes).await?;
        decode(chunk.batches, self.0.limits, from, max_records, max_bytes)
    }

    async fn find_time(&self, at: Timestamp) -> Result<Offset, ReadError> {
        let view = self.view()?;
        let until = self.high_watermark();
        self.cold(move || view.find_time(at, until)).await
    }

    fn reader(&self, peer: Option<SocketAddr>, next: Offset) -> Option<Reader> {
        Some(self.0.published.readers().open(peer, next, &self.0.clock))
    }

    async fn read_index(&self) -> Result<Offset, ReadError> {
        self.readable()?;
        let unavailable = |message| ReadError::Unavailable { message, retry_after: RETRY_AFTER };
        let (answer, answered) = oneshot::channel();
        self.0
            .raft
            .tell(ReadIndex { answer })
            .map_err(|refused| unavailable(refused.to_string()))?;
        answered.await.unwrap_or_else(|_| {
            Err(unavailable("the partition went down before it knew what is current".into()))
        })
    }

    fn is_follower(&self) -> bool {
        self.0.published.is_follower()
    }

    fn describe(&self) -> PartitionStatus {
        let Inner { raft, published, .. } = &*self.0;
        let (view, replica) = (published.view(), published.replica());
        let (state, reason) = self.state();
        PartitionStatus {
            state,
            reason,
            start: view.as_ref().map_or(Offset(0), |view| view.start()),
            high_watermark: published.high_watermark(),
            size_bytes: view.as_ref().map_or(0, |view| view.size_bytes()),
            segments: view
                .as_ref()
                .map_or(0, |view| u32::try_from(view.segments()).unwrap_or(u32::MAX)),
            term: published.term(),
            durability: self.0.durability,
            flushes: published.flushes(),
            refused: self.0.refused.load(Ordering::Relaxed),
            restarts: u32::try_from(raft.restarts()).unwrap_or(u32::MAX),
            role: replica.role,
            leader: replica.leader,
            replicas: replica.progress.clone(),
            // What is here was there, whatever was heard last.
            source_end: published.source_end().map(|end| end.max(published.high_watermark())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_batch_is_decoded_no_further_than_asked_for() {
        let mut builder = BatchBuilder::new().with_compression(Compression::Zstd);
        for _ in 0..100 {
            builder.push(&Record::of_value(vec![7; 1000], Timestamp(1))).unwrap();
        }
        let batches = builder.finish().unwrap().stamped(Offset(0), 1).into_bytes();
        assert!(batches.len() < 2000, "it was compressed to {}", batches.len());
        let limits = BatchLimits {
            batch_bytes_max: 1 << 20,
            record_bytes_max: 1 << 20,
            decompressed_bytes_max: 1 << 20,
        };
        let offsets = |from, max_records, max_bytes| {
            let found = decode(batches.clone(), limits, Offset(from), max_records, max_bytes);
            found.unwrap().iter().map(|(offset, _)| offset.0).collect::<Vec<_>>()
        };
        assert_eq!(offsets(0, 1000, 3500), [0, 1, 2]);
        assert_eq!(offsets(98, 1000, 3500), [98, 99]);
        assert_eq!(offsets(5, 1000, 1), [5], "at least one");
        assert_eq!(offsets(5, 2, 1 << 20), [5, 6]);
    }

    #[test]
    fn headers_without_content_count_in_what_an_answer_may_hold() {
        const HEADERS: usize = 1_000;
        let mut builder = BatchBuilder::new();
        for _ in 0..10 {
            let headers = (0..HEADERS).map(|_| ("", None));
            builder.push_parts(None, None, headers, Timestamp(0)).unwrap();
        }
        let batches = builder.finish().unwrap().into_bytes();
        let read = |records: usize| {
            let bytes_max = records * HEADERS * size_of::<Header>();
            decode(batches.clone(), BatchLimits::default(), Offset(0), 100, bytes_max).unwrap()
        };
        assert_eq!((read(0).len(), read(3).len(), read(10).len()), (1, 3, 10));
    }
}
