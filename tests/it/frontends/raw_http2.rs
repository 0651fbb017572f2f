//! A gRPC call as bytes on an HTTP/2 connection: shows statuses that client libraries would hide.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// What came back.
pub struct RawReply {
    /// True when the status came instead of messages, in the headers.
    pub trailers_only: bool,
    /// The headers or trailers that hold the status.
    pub status: HeaderMap,
    /// The body's bytes: length-prefixed messages.
    pub body: Bytes,
}

/// Sends one message to a method and collects the whole answer.
pub async fn call(address: SocketAddr, path: &str, message: &impl Message) -> RawReply {
    call_within(address, path, message, "1M").await
}

/// As [`call`], with a `grpc-timeout` that the client itself does not act on.
pub async fn call_within(
    address: SocketAddr,
    path: &str,
    message: &impl Message,
    timeout: &str,
) -> RawReply {
    let message = message.encode_to_vec();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let request = hyper::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(Full::new(framed.freeze()))
        .unwrap();
    let reply = sender.send_request(request).await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "application/grpc");
    let headers = reply.headers().clone();
    let collected = reply.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    driving.abort();
    let body = collected.to_bytes();
    RawReply { trailers_only: trailers.is_none(), status: trailers.unwrap_or(headers), body }
}
