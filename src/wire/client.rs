//! The client library: what the command line, the benchmark and other programs use to speak
//! `duramen.v1` with a node.
//!
//! It moves whole encoded record batches (Kafka's layout, magic 2) as they are; encoding and
//! decoding are the caller's, so that a byte is copied as seldom as can be.

mod admin;
mod bearer;
mod cluster;
mod error;
mod fetch;
mod observe;
mod produce;

#[cfg(test)]
mod tests;

pub use admin::Admin;
pub use bearer::Bearer;
pub use cluster::{
    ClusterChunks, ClusterClient, ClusterOptions, ClusterProducer, Delivered, Place,
    ProducerOptions, Receipt, WayTold, partition_of_key,
};
pub use error::{ClientError, LeaderHint, Refusal};
pub use fetch::{Chunk, Chunks, Consistency, FetchOptions, Position};
pub use observe::{Observer, Tapped};
pub use produce::{Ack, Acks, Answer, ProducerSink};

use super::dial;
use super::pb::duramen::v1::log_client::LogClient;
use super::pb::duramen::v1::{
    DescribeRequest, DescribeResponse, MetadataRequest, MetadataResponse, ProduceRequest,
};
pub use super::turned_away::TurnedAway;
use crate::guards::tls::ClientTls;
use bearer::Bearing;
use bytes::Bytes;
use std::time::Duration;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

/// Room for one stream's data on its way (unit: bytes).
const STREAM_WINDOW: u32 = 4 << 20;
/// Room for one connection's data on its way (unit: bytes).
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest HTTP/2 frame read (unit: bytes).
const FRAME_BYTES_MAX: u32 = 256 << 10;

/// How a client connects.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientOptions {
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// Largest message read or sent (unit: bytes); at least what the server sends.
    pub message_bytes_max: usize,
    /// What connections are secured with; `None`: nothing.
    pub tls: Option<ClientTls>,
    /// Shown with each call.
    pub token: Bearer,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            message_bytes_max: 64 << 20,
            tls: None,
            token: Bearer::default(),
        }
    }
}

/// Which log is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
}

impl Target {
    /// Partition 0 of a topic.
    pub fn topic(name: impl Into<String>) -> Self {
        Self { topic: name.into(), partition: 0 }
    }
}

/// A connection to a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    channel: Bearing,
    message_bytes_max: usize,
    grpc: LogClient<Bearing>,
    /// Sent with each request.
    traceparent: Option<AsciiMetadataValue>,
}

/// With room for large messages on their way to this client.
pub(crate) fn roomy(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .tcp_nodelay(true)
}

impl Client {
    /// Connects to `address`, `host:port`.
    ///
    /// # Errors
    /// [`ClientError::Address`], or [`ClientError::Unavailable`] when nothing answers there.
    pub async fn connect(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| ClientError::Address { address: address.into() })?
            .connect_timeout(options.connect_timeout);
        let channel = dial::connect(roomy(endpoint), address, options.tls.as_ref()).await;
        let channel = channel
            .map_err(|source| ClientError::Unavailable { address: address.into(), source })?;
        let channel = InterceptedService::new(channel, options.token);
        let grpc = LogClient::new(channel.clone())
            .max_decoding_message_size(options.message_bytes_max)
            .max_encoding_message_size(options.message_bytes_max);
        let message_bytes_max = options.message_bytes_max;
        Ok(Self { address: address.into(), channel, message_bytes_max, grpc, traceparent: None })
    }

    /// Makes what it asks from now on part of a trace (W3C Trace Context, `traceparent`). Text that
    /// no header can hold is left out.
    #[must_use]
    pub fn traced(mut self, traceparent: &str) -> Self {
        self.traceparent = traceparent.parse().ok();
        self
    }

    /// A request as it is sent.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(traceparent) = &self.traceparent {
            request.metadata_mut().insert("traceparent", traceparent.clone());
        }
        request
    }

    /// Where the node is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens a stream of appends on which at most `outstanding_max` requests are unanswered. Both
    /// halves must be driven: a sink whose answers nobody reads waits for ever.
    ///
    /// # Errors
    /// The stream could not be opened.
    pub async fn produce_stream(
        &mut self,
        target: Target,
        outstanding_max: usize,
    ) -> Result<(ProducerSink, Acks), ClientError> {
        produce::open(self, target, outstanding_max).await
    }

    /// Appends whole encoded batches in one call.
    ///
    /// # Errors
    /// [`ClientError::Refused`], where nothing or an unknown part was stored (see
    /// [`Refusal::definite`]); [`ClientError::Lost`], where it is unknown.
    pub async fn produce_once(
        &mut self,
        target: &Target,
        batches: Bytes,
    ) -> Result<Ack, ClientError> {
        let request = ProduceRequest {
            topic: target.topic.clone(),
            partition: target.partition,
            correlation_id: 1,
            records: Vec::new(),
            batch: batches,
            no_forward: false,
            on_behalf_of: String::new(),
        };
        let request = self.request(request);
        let answered = self.grpc.produce_once(request).await;
        let response = answered.map_err(|status| ClientError::of(status, &self.address))?;
        match Answer::read(response.into_inner())? {
            Answer::Ack(ack) => Ok(ack),
            Answer::Refused { refusal, .. } => Err(ClientError::Refused(refusal)),
        }
    }

    /// Reads whole batches.
    ///
    /// # Errors
    /// The read was refused, as for an offset that is not there, or the node is gone.
    pub async fn fetch(
        &mut self,
        target: &Target,
        options: FetchOptions,
    ) -> Result<Chunks, ClientError> {
        fetch::open(self, target, options).await
    }

    /// Asks where topics and their leaders are; no names: all topics.
    ///
    /// # Errors
    /// The node cannot tell now, or is gone.
    pub async fn metadata(&mut self, topics: Vec<String>) -> Result<MetadataResponse, ClientError> {
        let request = self.request(MetadataRequest { topics });
        let answered = self.grpc.metadata(request).await;
        let response = answered.map_err(|status| ClientError::of(status, &self.address))?;
        Ok(response.into_inner())
    }

    /// Asks for the state of a topic's partitions.
    ///
    /// # Errors
    /// There is no such topic, or the node is gone.
    pub async fn describe(&mut self, topic: &str) -> Result<DescribeResponse, ClientError> {
        let request = self.request(DescribeRequest { topic: topic.into() });
        let answered = self.grpc.describe(request).await;
        let response = answered.map_err(|status| ClientError::of(status, &self.address))?;
        Ok(response.into_inner())
    }
}
