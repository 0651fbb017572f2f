//! A stream of reads: stored batches, checked to lie one behind the other.

use super::{Client, ClientError, Target};
use crate::model::{Offset, Timestamp};
use crate::wire::pb::duramen::v1 as pb;
use bytes::Bytes;
use pb::fetch_request::Position as WirePosition;
use tonic::Streaming;

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The oldest record.
    Start,
    /// Behind the newest record.
    End,
    /// This offset.
    Offset(Offset),
    /// So many records before the end, or the start where there are fewer.
    BeforeEnd(u64),
    /// The first record at or after this time.
    Time(Timestamp),
}

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// Where to begin; the first batch may begin before it.
    pub position: Position,
    /// Largest chunk (unit: bytes); 0: the node's default.
    pub chunk_bytes_max: u32,
    /// End after so many records, or a few more, for batches are whole; `None`: no limit.
    pub records_max: Option<u64>,
    /// Wait at the log's end for more.
    pub follow: bool,
    /// What a reader may count on to see.
    pub consistency: Consistency,
}

/// What a reader may count on to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// What the answering replica knows to be committed; a follower may lag a moment behind.
    #[default]
    Committed,
    /// All that was acknowledged before it asked.
    Linearizable,
}

/// Whole record batches as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The offset of the first record in it.
    pub base: Offset,
    /// Where the next chunk begins.
    pub next: Offset,
    /// One past the newest committed record.
    pub high_watermark: Offset,
    /// The batches, one after another. Their checksums are the caller's to verify.
    pub batches: Bytes,
}

/// Chunks in the order of the log.
#[derive(Debug)]
pub struct Chunks {
    address: String,
    responses: Streaming<pb::FetchResponse>,
    next: Option<Offset>,
}

pub(super) async fn open(
    client: &mut Client,
    target: &Target,
    options: FetchOptions,
) -> Result<Chunks, ClientError> {
    let request = pb::FetchRequest {
        topic: target.topic.clone(),
        partition: target.partition,
        consistency: match options.consistency {
            Consistency::Committed => pb::Consistency::Committed,
            Consistency::Linearizable => pb::Consistency::Linearizable,
        }
        .into(),
        position: Some(match options.position {
            Position::Start => WirePosition::Start(true),
            Position::End => WirePosition::End(true),
            Position::Offset(offset) => WirePosition::Offset(offset.0),
            Position::BeforeEnd(count) => WirePosition::BeforeEnd(count),
            Position::Time(at) => WirePosition::TimestampMs(at.0),
        }),
        max_bytes: options.chunk_bytes_max,
        max_records: options.records_max.unwrap_or(0),
        follow: options.follow,
        format: pb::FetchFormat::Batches.into(),
    };
    let address = client.address.clone();
    let request = client.request(request);
    let opened = client.grpc.fetch(request).await;
    let responses = opened.map_err(|status| ClientError::of(status, &address))?.into_inner();
    Ok(Chunks { address, responses, next: None })
}

impl Chunks {
    /// The next chunk; `None` at the end of a read that has one.
    ///
    /// # Errors
    /// The read was refused or cut off, or the chunks do not join.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ClientError> {
        loop {
            let received = self.responses.message().await;
            let response = received.map_err(|status| ClientError::of(status, &self.address))?;
            let Some(response) = response else { return Ok(None) };
            if response.batches.is_empty() {
                continue;
            }
            let chunk = Chunk {
                base: Offset(response.base_offset),
                next: Offset(response.next_offset),
                high_watermark: Offset(response.high_watermark),
                batches: response.batches,
            };
            let joins = self.next.is_none_or(|next| next == chunk.base);
            if !joins || chunk.next <= chunk.base {
                let what = format!(
                    "records {}..{} came where {:?} was due",
                    chunk.base, chunk.next, self.next
                );
                return Err(ClientError::Protocol { what });
            }
            self.next = Some(chunk.next);
            return Ok(Some(chunk));
        }
    }
}
