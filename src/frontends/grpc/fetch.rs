//! A fetch: where it begins, how much one response holds, when it ends or waits.

use super::dispatch::Client;
use super::refusal::Refusal;
use crate::access::Action;
use crate::actors::partition::{PartitionApi, ReadError};
use crate::actors::readers::{Reader, ReaderWait};
use crate::frontends::access::StreamPass;
use crate::frontends::drain::Drain;
use crate::frontends::unsent::{Taker, Unsent};
use crate::model::{Offset, Timestamp};
use crate::wire::convert::record_to_duramen;
use crate::wire::pb::duramen::v1 as pb;
use pb::fetch_request::Position;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::Status;

/// How long a reader rests when the watermark promised records that a read did not find.
pub const EMPTY_READ_PAUSE: Duration = Duration::from_millis(1);

/// The most decoded records in one response.
const RESPONSE_RECORDS_MAX: u64 = 16 << 10;

/// How much one response may hold.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Where the client does not say.
    pub bytes_default: usize,
    /// Whatever the client says.
    pub bytes_max: usize,
    /// What lies unread on the port makes responses smaller, and fewer.
    pub unsent: Unsent,
}

/// The responses to a fetch.
pub type FetchStream = Pin<Box<dyn Stream<Item = Result<pb::FetchResponse, Status>> + Send>>;

/// A reader's place in a partition.
pub struct Fetch<P> {
    partition: P,
    high_watermark: watch::Receiver<Offset>,
    drain: Drain,
    format: pb::FetchFormat,
    next: Offset,
    /// Where a fetch that does not follow ends: the log's end when it began.
    end: Option<Offset>,
    /// How many records are still wanted; `None`: all.
    wanted: Option<u64>,
    bytes_max: usize,
    unsent: Unsent,
    taker: Taker,
    reader: Option<Reader>,
    topic: String,
    /// Asked before each response.
    pass: StreamPass,
}

impl<P: PartitionApi> Fetch<P> {
    /// Finds where to begin. Topic and partition have been checked.
    pub async fn begin(
        partition: P,
        request: pb::FetchRequest,
        limits: FetchLimits,
        drain: Drain,
        client: Option<&Client>,
        pass: StreamPass,
    ) -> Result<Self, Refusal> {
        let format = pb::FetchFormat::try_from(request.format)
            .map_err(|_| Refusal::invalid(format!("fetch format {} is unknown", request.format)))?;
        partition.readable()?;
        let (start, end) = (partition.start_offset(), partition.high_watermark());
        let next = match request.position {
            None | Some(Position::Start(_)) => start,
            Some(Position::End(_)) => end,
            Some(Position::BeforeEnd(count)) => Offset(end.0.saturating_sub(count)).max(start),
            Some(Position::TimestampMs(at)) => partition.find_time(Timestamp(at)).await?,
            Some(Position::Offset(offset)) => {
                let offset = Offset(offset);
                if offset < start || offset > end {
                    return Err(ReadError::OutOfRange { offset, start, end }.into());
                }
                offset
            }
        };
        let bytes_max = match request.max_bytes as usize {
            0 => limits.bytes_default,
            asked => asked.min(limits.bytes_max),
        };
        let wanted = (request.max_records > 0).then_some(request.max_records);
        let high_watermark = partition.watch();
        let end = (!request.follow).then_some(end);
        let reader = partition.reader(client.map(|client| client.peer), next);
        let topic = request.topic;
        Ok(Self {
            partition,
            high_watermark,
            drain,
            format,
            next,
            end,
            wanted,
            bytes_max,
            unsent: limits.unsent,
            taker: client.map(|client| client.seat.taker().clone()).unwrap_or_default(),
            reader,
            topic,
            pass,
        })
    }

    /// The next response; `None` at the end of a fetch that has one.
    pub async fn next(&mut self) -> Result<Option<pb::FetchResponse>, Refusal> {
        while self.wanted != Some(0) {
            if self.end.is_some_and(|end| self.next >= end) {
                return Ok(None);
            }
            self.waits(ReaderWait::Records);
            self.wait().await?;
            self.waits(ReaderWait::Client);
            let room = self.unsent.promise(&self.taker, self.bytes_max).await;
            self.waits(ReaderWait::Node);
            self.pass.check(Action::Consume, &self.topic)?;
            let response = match self.format {
                pb::FetchFormat::Records => self.read_records(room.bytes).await?,
                pb::FetchFormat::Batches => self.read_batches(room.bytes).await?,
            };
            if response.next_offset > self.next.0 {
                let covered = response.next_offset - response.base_offset.max(self.next.0);
                self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(covered));
                self.next = Offset(response.next_offset);
                self.waits(ReaderWait::Client);
                return Ok(Some(response));
            }
            tokio::time::sleep(EMPTY_READ_PAUSE).await;
        }
        Ok(None)
    }

    fn waits(&self, wait: ReaderWait) {
        if let Some(reader) = &self.reader {
            reader.waits(wait, self.next);
        }
    }

    /// A response without records, that tells where the reader stands.
    pub fn nothing(&self) -> pb::FetchResponse {
        pb::FetchResponse {
            base_offset: self.next.0,
            next_offset: self.next.0,
            high_watermark: self.partition.high_watermark().0,
            ..Default::default()
        }
    }

    /// All responses, as a stream.
    pub fn into_stream(self) -> FetchStream {
        Box::pin(futures_util::stream::try_unfold(self, |mut fetch| async move {
            Ok(fetch.next().await?.map(|response| (response, fetch)))
        }))
    }

    /// Waits until there is something at `next`.
    async fn wait(&mut self) -> Result<(), Refusal> {
        let next = self.next;
        if self.drain.has_begun() && self.end.is_none() {
            return Err(Refusal::draining());
        }
        if self.partition.high_watermark() > next {
            return Ok(());
        }
        loop {
            tokio::select! {
                moved = self.high_watermark.wait_for(|end| *end > next) => return match moved {
                    Ok(_) => Ok(()),
                    Err(_) => Err(Refusal::gone()),
                },
                () = self.drain.clone().begun() => return Err(Refusal::draining()),
                () = self.pass.news() => self.pass.check(Action::Consume, &self.topic)?,
            }
        }
    }

    async fn read_records(&self, bytes_max: usize) -> Result<pb::FetchResponse, Refusal> {
        let left = self.end.map_or(u64::MAX, |end| end.0 - self.next.0);
        let count = self.wanted.unwrap_or(u64::MAX).min(RESPONSE_RECORDS_MAX).min(left) as usize;
        let found = self.partition.read_records(self.next, count, bytes_max).await?;
        let mut response = self.nothing();
        if let (Some((first, _)), Some((last, _))) = (found.first(), found.last()) {
            response.base_offset = first.0;
            response.next_offset = last.next().0;
        }
        let records = found.into_iter().map(|(offset, record)| record_to_duramen(offset, record));
        response.records = records.collect();
        Ok(response)
    }

    async fn read_batches(&self, bytes_max: usize) -> Result<pb::FetchResponse, Refusal> {
        let chunk = self.partition.read_batches(self.next, bytes_max).await?;
        let mut response = self.nothing();
        if chunk.records > 0 {
            response.base_offset = chunk.base.0;
            response.next_offset = chunk.next.0;
            response.batches = chunk.batches;
        }
        Ok(response)
    }
}
