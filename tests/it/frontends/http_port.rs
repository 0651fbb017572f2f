//! The HTTP port itself: health, limits, and how it ends.

use super::http_server::{HttpServer, read_answer};
use super::server::until;
use duramen::actors::readiness::Condition;
use duramen::frontends::http::HttpLimits;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_well_node_is_alive_and_ready() {
    let server = HttpServer::start().await;
    server.readiness.report("partitions/log/0", Condition::Ready, "");
    for path in ["/livez", "/readyz"] {
        let answer = server.send("GET", path, "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        let answer = server.send("HEAD", path, "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
    let answer = server.send("GET", "/readyz?verbose", "").await;
    assert_eq!(answer.body, "[+] partitions/log/0 ok\nnode node-under-test ok\n");
}

#[tokio::test]
async fn a_degraded_node_stays_ready_and_says_why_and_a_broken_part_makes_it_unready() {
    let server = HttpServer::start().await;
    server.readiness.report("partitions/log/0", Condition::Degraded, "fdatasync failed");
    let answer = server.send("GET", "/readyz", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    let answer = server.send("GET", "/readyz?verbose=1", "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("[~] partitions/log/0 degraded: fdatasync failed\n"));
    server.readiness.report("grpc", Condition::NotReady, "restarting");
    let answer = server.send("GET", "/readyz", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "not ready\n"));
    assert_eq!(server.send("GET", "/livez", "").await.status, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_or_not_its_length_is_announced() {
    let limits = HttpLimits { body_bytes_max: 64, ..HttpLimits::default() };
    let server = HttpServer::start_with(limits).await;
    let large = "x".repeat(65);
    let chunked = format!(
        "POST /v1/topics/log/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n41\r\n{large}\r\n0\r\n\r\n"
    );
    for answer in [
        server.send("POST", "/v1/topics/log/records", &large).await,
        server.send_bytes(chunked.as_bytes()).await,
    ] {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.json()["error"]["code"], "too_large");
    }
    assert_eq!(server.send("POST", "/", &large).await.status, 413);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let limits =
        HttpLimits { request_deadline: Duration::from_millis(30), ..HttpLimits::default() };
    let server = HttpServer::start_with(limits).await;
    let begun = b"POST /v1/topics/log/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-length: 10\r\n\r\n{";
    let answer = server.send_bytes(begun).await;
    assert_eq!(answer.status, 408);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let header_read_max = Duration::from_millis(300);
    let server =
        HttpServer::start_with(HttpLimits { header_read_max, ..HttpLimits::default() }).await;
    let connect = async || TcpStream::connect(server.address).await.unwrap();
    let (mut silent, _other) = (connect().await, connect().await);
    until("both are open", || server.counters.open() == 2).await;
    silent.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    until("the silent ones are gone", || server.counters.open() == 0).await;
    assert_eq!(server.send("GET", "/livez", "").await.status, 200);
}

#[tokio::test]
async fn connections_are_bounded_and_those_without_requests_give_way() {
    let limits = HttpLimits { connections_max: 2, ..HttpLimits::default() };
    let server = Arc::new(HttpServer::start_with(limits).await);
    let connect = async || TcpStream::connect(server.address).await.unwrap();
    let mut silent = [connect().await, connect().await];
    until("both are open", || server.counters.open() == 2).await;
    server.partition.hold();
    let append = || {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let body = r#"{"records":[{"value":"a"}]}"#;
            server.send("POST", "/v1/topics/log/records", body).await
        })
    };
    let appending = [append(), append()];
    until("both are proposed", || server.partition.proposals() == 2).await;
    for silent in &mut silent {
        assert!(matches!(silent.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    }
    assert_eq!((server.counters.refused(), server.counters.crowded.get()), (0, 2));
    let closed = connect().await.read(&mut [0; 8]).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!(server.counters.refused(), 1);
    while server.partition.release() {}
    for appending in appending {
        assert_eq!(appending.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_drain_lets_a_request_finish_ends_a_wait_and_takes_no_more() {
    let server = Arc::new(HttpServer::start().await);
    server.partition.hold();
    let kept = TcpStream::connect(server.address).await.unwrap();
    let poster = Arc::clone(&server);
    let posting = tokio::spawn(async move {
        let body = r#"{"records":[{"value":"a"}]}"#;
        poster.send("POST", "/v1/topics/log/records", body).await
    });
    until("it is proposed", || server.partition.proposals() == 1).await;
    let reader = Arc::clone(&server);
    let waiting = tokio::spawn(async move {
        reader.send("GET", "/v1/topics/log/records?offset=1&wait_ms=25000", "").await
    });
    until("the reader is connected", || server.counters.open() == 3).await;
    server.drain.begin();
    assert_eq!(waiting.await.unwrap().status, 200);
    assert!(!server.serving.is_finished(), "a request is still under way");
    assert!(server.partition.release());
    assert_eq!(posting.await.unwrap().status, 200);
    drop(kept);
    until("the port has ended", || server.serving.is_finished()).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_node_that_drains_is_not_ready() {
    let server = HttpServer::start().await;
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    kept.write_all(b"GET /readyz?verbose HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    until("it is connected", || server.counters.open() == 1).await;
    server.drain.begin();
    kept.write_all(b"connection: close\r\n\r\n").await.unwrap();
    let answer = read_answer(kept).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("the node is stopping"), "{}", answer.body);
}
