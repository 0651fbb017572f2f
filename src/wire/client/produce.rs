//! A stream of appends: requests go out without waiting for answers, up to a bound.

use super::{Client, ClientError, LeaderHint, Refusal, Target};
use crate::model::{Durability, Offset, Timestamp};
use crate::wire::convert::durability_from_wire;
use crate::wire::pb::duramen::v1 as pb;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The request's.
    pub correlation_id: u64,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// How many records it held.
    pub record_count: u32,
    /// The largest timestamp among them, as stored.
    pub timestamp: Timestamp,
    /// How safe they were when the node answered.
    pub durability: Durability,
}

/// The node's answer to one request of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is stored.
    Ack(Ack),
    /// It is not, or it is unknown; the stream goes on.
    Refused {
        /// The request's.
        correlation_id: u64,
        /// Why, and what is known.
        refusal: Refusal,
    },
}

impl Answer {
    pub(super) fn read(response: pb::ProduceResponse) -> Result<Self, ClientError> {
        let correlation_id = response.correlation_id;
        if let Some(error) = response.error {
            let retry_after = u64::from(error.retry_after_ms);
            let refusal = Refusal {
                code: Code::from(error.code),
                message: error.message,
                retry_after: (retry_after > 0).then(|| Duration::from_millis(retry_after)),
                definite: error.definite,
                leader: LeaderHint::read(error.leader),
            };
            return Ok(Self::Refused { correlation_id, refusal });
        }
        let durability = durability_from_wire(response.durability).ok_or_else(|| {
            let what = format!("an acknowledgement of durability {}", response.durability);
            ClientError::Protocol { what }
        })?;
        Ok(Self::Ack(Ack {
            correlation_id,
            base_offset: Offset(response.base_offset),
            record_count: response.record_count,
            timestamp: Timestamp(response.timestamp_ms),
            durability,
        }))
    }
}

/// The half of a stream that appends.
#[derive(Debug)]
pub struct ProducerSink {
    target: Target,
    address: String,
    requests: mpsc::Sender<pb::ProduceRequest>,
    room: Arc<Semaphore>,
    next_id: u64,
    no_forward: bool,
}

/// The half of a stream that answers, in the order of the requests.
#[derive(Debug)]
pub struct Acks {
    address: String,
    responses: Streaming<pb::ProduceResponse>,
    room: Arc<Semaphore>,
    next_id: u64,
}

pub(super) async fn open(
    client: &mut Client,
    target: Target,
    outstanding_max: usize,
) -> Result<(ProducerSink, Acks), ClientError> {
    assert!(outstanding_max > 0, "a stream without room carries nothing");
    // As wide as the bound, so that a sink with room never waits for the network.
    let (requests, outgoing) = mpsc::channel(outstanding_max);
    let address = client.address.clone();
    let outgoing = client.request(ReceiverStream::new(outgoing));
    let opened = client.grpc.produce(outgoing).await;
    let responses = opened.map_err(|status| ClientError::of(status, &address))?.into_inner();
    let room = Arc::new(Semaphore::new(outstanding_max));
    let sink = ProducerSink {
        target,
        address: address.clone(),
        requests,
        room: room.clone(),
        next_id: 0,
        no_forward: false,
    };
    Ok((sink, Acks { address, responses, room, next_id: 0 }))
}

impl ProducerSink {
    /// Asks a node that does not lead to refuse, in place of passing requests on.
    #[must_use]
    pub fn no_forward(self, no_forward: bool) -> Self {
        Self { no_forward, ..self }
    }

    /// Sends whole encoded batches as one request, once there is room for it, and returns its
    /// correlation id: 0, 1, 2 … Dropping the future before it ends sends nothing.
    ///
    /// # Errors
    /// [`ClientError::Lost`]: the stream is over; [`Acks::next`] tells why.
    pub async fn send(&mut self, batches: Bytes) -> Result<u64, ClientError> {
        let permit = self.room.acquire().await.map_err(|_| self.over())?;
        let request = pb::ProduceRequest {
            topic: self.target.topic.clone(),
            partition: self.target.partition,
            correlation_id: self.next_id,
            records: Vec::new(),
            batch: batches,
            no_forward: self.no_forward,
            on_behalf_of: String::new(),
        };
        self.requests.send(request).await.map_err(|_| self.over())?;
        // Given back when the answer arrives.
        permit.forget();
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    fn over(&self) -> ClientError {
        let source = "the stream of appends has ended".into();
        ClientError::Lost { address: self.address.clone(), source }
    }
}

impl Acks {
    /// The next answer; `None` when the sink is dropped and every request answered.
    ///
    /// # Errors
    /// The stream is over: what has not been answered is unknown.
    pub async fn next(&mut self) -> Result<Option<Answer>, ClientError> {
        let answer = self.read().await;
        match &answer {
            Ok(Some(_)) => self.room.add_permits(1),
            // Whoever waits for room would wait for ever.
            Ok(None) | Err(_) => self.room.close(),
        }
        answer
    }

    async fn read(&mut self) -> Result<Option<Answer>, ClientError> {
        let received = self.responses.message().await;
        let response = received.map_err(|status| ClientError::of(status, &self.address))?;
        let Some(response) = response else { return Ok(None) };
        if response.correlation_id != self.next_id {
            let what = format!(
                "request {} was answered in place of {}",
                response.correlation_id, self.next_id
            );
            return Err(ClientError::Protocol { what });
        }
        self.next_id += 1;
        Answer::read(response).map(Some)
    }
}
