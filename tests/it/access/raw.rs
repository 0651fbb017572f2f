// Calls of any method by its path, with bytes for messages: what a client may send that knows no rules.

use bytes::{Buf, BufMut, Bytes};
use duramen::guards::tls::ClientTls;
use duramen::wire::dial;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

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
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(tokio_stream::once(message));
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let path = path.parse().unwrap();
    let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
    answers.message().await
}
