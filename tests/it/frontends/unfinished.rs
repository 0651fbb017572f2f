//! Requests that are begun and not finished: what they hold is bounded on the whole port, and nobody
//! else waits for them.

use super::http_server::{HttpServer, read_answer};
use super::server::Server;
use crate::harness::binary::{Binary, signal_to};
use bytes::Bytes;
use duramen::frontends::grpc::RpcLimits;
use duramen::frontends::http::HttpLimits;
use duramen::frontends::intake::Intake;
use futures_channel::mpsc::{UnboundedSender, unbounded};
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::TcpStream as StdStream;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const MIB: usize = 1 << 20;

/// A call with a message that is announced as 4 MiB; gives back its `grpc-status` in the end.
async fn begun(server: &Server, bytes: usize) -> (UnboundedSender<Bytes>, JoinHandle<String>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (body, pieces) = unbounded::<Bytes>();
    let pieces = pieces.map(|piece| Ok::<_, std::io::Error>(Frame::data(piece)));
    let request =
        hyper::Request::post(format!("http://{}/duramen.v1.Log/ProduceOnce", server.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(StreamBody::new(pieces))
            .unwrap();
    let announced = [&[0][..], &(4 * MIB as u32).to_be_bytes()].concat();
    body.unbounded_send(announced.into()).unwrap();
    body.unbounded_send(vec![0; bytes].into()).unwrap();
    let status = tokio::spawn(async move {
        let reply = sender.send_request(request).await.unwrap();
        let head = reply.headers().get("grpc-status").cloned();
        let trailers = reply.into_body().collect().await.unwrap().trailers().cloned();
        let status = head.or_else(|| trailers?.get("grpc-status").cloned());
        status.unwrap().to_str().unwrap().to_owned()
    });
    (body, status)
}

#[tokio::test]
async fn messages_that_are_not_whole_hold_so_much_and_the_oldest_gives_way() {
    // Room for twice the largest message of either interface: 8 MiB.
    let limits = RpcLimits {
        message_bytes_max: 4 * MIB,
        intake: Intake::new(8 * MIB),
        ..RpcLimits::default()
    };
    let server = Server::start_with(limits).await;
    let (_oldest_body, oldest) = begun(&server, 3 * MIB).await;
    let (body, second) = begun(&server, 3 * MIB).await;
    super::server::until("both have come", || received(&server) >= 6 * MIB as u64).await;
    let (_third_body, third) = begun(&server, 3 * MIB).await;
    assert_eq!(oldest.await.unwrap(), "8", "it gave way: RESOURCE_EXHAUSTED");
    assert!(!second.is_finished() && !third.is_finished(), "there is room for two");
    // What was not given up is read to its end, and judged by what it holds.
    body.unbounded_send(vec![0; MIB].into()).unwrap();
    drop(body);
    assert_ne!(second.await.unwrap(), "8");
}

fn received(server: &Server) -> u64 {
    server.metrics.received(duramen::observe::metrics::Protocol::Grpc).get()
}

#[tokio::test]
async fn bodies_that_are_not_whole_hold_so_much_and_the_oldest_gives_way() {
    let limits = HttpLimits {
        body_bytes_max: 100_000,
        intake: Intake::new(200_000),
        ..HttpLimits::default()
    };
    let server = HttpServer::start_with(limits).await;
    let begun = || async {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n\
            content-length: 90001\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // From here on the body is read.
        let mut told = [0; 25];
        stream.read_exact(&mut told).await.unwrap();
        assert!(told.starts_with(b"HTTP/1.1 100"));
        stream.write_all(&[b' '; 90_000]).await.unwrap();
        stream
    };
    let oldest = begun().await;
    let mut second = begun().await;
    let _third = begun().await;
    assert_eq!(read_answer(oldest).await.status, 429);
    // What was not given up is read to its end, and judged by what it holds.
    second.write_all(b" ").await.unwrap();
    assert_eq!(read_answer(second).await.status, 400);
}

#[test]
fn a_burst_of_connections_waits_and_none_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let node = Binary::start(dir.path());
    // A node that does not accept for a while: the system keeps for it what comes.
    signal_to(node.pid(), "STOP");
    for address in [&node.rpc, &node.http] {
        let address = address.parse().unwrap();
        // What is dropped would come again after a second, and then be dropped again.
        let connect = || StdStream::connect_timeout(&address, Duration::from_millis(900));
        let waiting: Vec<_> = (0..400).map(|_| connect()).collect();
        let dropped = waiting.iter().filter(|connected| connected.is_err()).count();
        assert_eq!(dropped, 0, "of 400 connections to {address}");
    }
    signal_to(node.pid(), "CONT");
}
