// Calls of any method by its path, with bytes for messages: what a client may send that knows no rules.

use bytes::{Buf, BufMut, Bytes};
use duramen::guards::tls::ClientTls;
use duramen::wire::dial;
use duramen::wire::pb::DESCRIPTORS;
use duramen::wire::pb::duramen::v1 as pb;
use prost::Message;
use tokio_stream::Stream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// What whoever is known may ask for, as in the book: of topics they are shown none.
pub const OPEN_TO_THE_KNOWN: [&str; 3] =
    ["/log.v1.Log/GetServers", "/duramen.v1.Log/Metadata", "/duramen.v1.Admin/ListTopics"];

/// Changes that are refused and in the controller's log all the same: so many of them, and so long,
/// that the catalogue is written down anew.
pub fn refused_topics() -> Vec<pb::CreateTopicRequest> {
    let request = |number: usize| {
        let bytes = if number < 12 { 3_000 } else { 1 };
        let settings = (0..32).map(|number| (format!("ballast-{number}"), "9".repeat(bytes)));
        pb::CreateTopicRequest {
            name: "refused".into(),
            partitions: 1,
            replication_factor: 1,
            settings: Some(pb::TopicSettings { values: settings.collect() }),
        }
    };
    (0..110).map(request).collect()
}

/// All methods of the port's own services.
pub fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut found = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let (package, service, method) = (file.package(), service.name(), method.name());
                found.push(format!("/{package}.{service}/{method}"));
            }
        }
    }
    assert!(found.len() > 25, "{found:?}");
    found
}

#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

pub async fn channel(address: std::net::SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Within TLS, showing what that has.
pub async fn secured(address: std::net::SocketAddr, tls: &ClientTls) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    dial::connect(endpoint, &address.to_string(), Some(tls)).await.unwrap()
}

/// Calls a method with one message; gives back the first answer, or why there is none.
pub async fn call(
    channel: Channel,
    path: &str,
    metadata: &[(&'static str, String)],
    message: Bytes,
) -> Result<Option<Bytes>, Status> {
    open(channel, path, metadata, message).await?.message().await
}

/// The same, up to where the node takes the call: what it answers is to be read.
pub async fn open(
    channel: Channel,
    path: &str,
    metadata: &[(&'static str, String)],
    message: Bytes,
) -> Result<Streaming<Bytes>, Status> {
    stream(channel, path, metadata, tokio_stream::once(message)).await
}

/// The same with messages that come when they come.
pub async fn stream(
    channel: Channel,
    path: &str,
    metadata: &[(&'static str, String)],
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(messages);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let path = path.parse().unwrap();
    Ok(grpc.streaming(request, path, Raw).await?.into_inner())
}
