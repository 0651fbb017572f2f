//! The gRPC port itself: health, reflection, limits, and how it ends.

use super::server::{Server, until};
use duramen::actors::readiness::Condition;
use duramen::frontends::grpc::RpcLimits;
use duramen::wire::pb::duramen::v1 as pb;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test]
async fn health_knows_the_node_and_both_services_and_follows_their_readiness() {
    let server = Server::start().await;
    server.readiness.report("partitions/log/0", Condition::Degraded, "it is quarantined");
    let mut client = HealthClient::new(server.channel().await);
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "log.v1.Log", "duramen.v1.Log"] {
        let told = client.check(request(service)).await.unwrap().into_inner().status();
        assert_eq!(told, ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(client.check(request("orders")).await.unwrap_err().code(), Code::NotFound);
    let mut watching = client.watch(request("duramen.v1.Log")).await.unwrap().into_inner();
    let told = watching.message().await.unwrap().unwrap().status();
    assert_eq!(told, ServingStatus::Serving);
    server.readiness.report("partitions/log/0", Condition::NotReady, "it is being recovered");
    let told = watching.message().await.unwrap().unwrap().status();
    assert_eq!(told, ServingStatus::NotServing);
}

#[tokio::test]
async fn a_connection_that_has_said_nothing_does_not_hold_a_drain() {
    let server = Server::start().await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    until("it is open", || server.counters.open() == 1).await;
    server.drain.begin();
    let closed = silent.read(&mut [0; 8]).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    let ended = tokio::time::timeout(Duration::from_secs(5), server.serving).await;
    ended.expect("long before the grace time is over").unwrap().unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Server::start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let responses = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let response = responses.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = response.message_response else {
        panic!("services are listed")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["log.v1.Log", "duramen.v1.Log", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name} is among {names:?}");
    }
}

#[tokio::test]
async fn an_unknown_service_or_method_is_unimplemented() {
    let server = Server::start().await;
    for path in ["/no.such.Service/Method", "/duramen.v1.Log/Explode", "/nothing"] {
        let reply = super::raw_http2::call(server.address, path, &()).await;
        assert_eq!(reply.status["grpc-status"], "12", "{path}");
    }
}

#[tokio::test]
async fn a_client_that_speaks_http_1_is_told_that_this_is_the_wrong_port() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert!(body.contains("gRPC"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let limits = RpcLimits { handshake_max: Duration::from_millis(30), ..RpcLimits::default() };
    let server = Server::start_with(limits).await;
    for begun in [&b""[..], b"PRI * HT"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let closed = stream.read(&mut [0; 8]).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    until("both are forgotten", || server.counters.open() == 0).await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_counted_and_the_others_go_on() {
    let server = Server::start_with(RpcLimits { connections_max: 2, ..RpcLimits::default() }).await;
    let mut first = server.duramen().await;
    let mut second = server.duramen().await;
    for used in [&mut first, &mut second] {
        used.describe(describe()).await.unwrap();
    }
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let closed = third.read(&mut [0; 8]).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!((server.counters.open(), server.counters.refused()), (2, 1));
    first.describe(describe()).await.unwrap();
    drop(second);
    until("a place is free", || server.counters.open() == 1).await;
    server.duramen().await.describe(describe()).await.unwrap();
}

#[tokio::test]
async fn connections_without_calls_hold_no_place_that_a_client_needs() {
    let server = Server::start_with(RpcLimits { connections_max: 4, ..RpcLimits::default() }).await;
    let mut first = server.duramen().await;
    first.describe(describe()).await.unwrap();
    let mut strangers = Vec::new();
    for word in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].repeat(10) {
        let mut stranger = TcpStream::connect(server.address).await.unwrap();
        stranger.write_all(word).await.unwrap();
        strangers.push(stranger);
    }
    // Whoever only looks whether the node is there needs no connection either.
    let mut probe = HealthClient::new(server.channel().await);
    let mut watched = probe.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watched.message().await.unwrap().unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.duramen().await;
        client.describe(describe()).await.unwrap();
        clients.push(client);
    }
    for stranger in &mut strangers {
        let mut rest = Vec::new();
        // What was not read resets the connection.
        let _ = stranger.read_to_end(&mut rest).await;
    }
    assert!(watched.message().await.is_err(), "the probe gave way");
    first.describe(describe()).await.unwrap();
    assert_eq!((server.counters.refused(), server.counters.open()), (0, 4));
    assert_eq!(server.counters.crowded.get(), 21);
}

fn describe() -> pb::DescribeRequest {
    pb::DescribeRequest { topic: "log".into() }
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_ends_endless_streams_and_then_the_port() {
    let server = Server::start().await;
    server.partition.hold();
    let mut client = server.duramen().await;
    let record = pb::Record { value: Some("x".into()), ..Default::default() };
    let request =
        pb::ProduceRequest { topic: "log".into(), records: vec![record], ..Default::default() };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(request).await.unwrap();
    let mut acks = client.produce(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let follow = pb::FetchRequest { topic: "log".into(), follow: true, ..Default::default() };
    let mut following = client.fetch(follow).await.unwrap().into_inner();
    assert!(following.next().await.unwrap().is_ok(), "the record can be read");
    until("a request waits for its answer", || server.partition.proposals() == 1).await;

    server.drain.begin();
    assert_eq!(following.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(!server.serving.is_finished(), "a request is still under way");
    assert!(server.partition.release());
    assert!(acks.message().await.unwrap().unwrap().error.is_none());
    assert_eq!(acks.message().await.unwrap_err().code(), Code::Unavailable);
    drop((client, sender));
    server.serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn the_grace_time_bounds_a_drain() {
    let limits = RpcLimits { grace: Duration::from_millis(30), ..RpcLimits::default() };
    let server = Server::start_with(limits).await;
    server.partition.hold();
    let mut client = server.duramen().await;
    let record = pb::Record { value: Some("x".into()), ..Default::default() };
    let request =
        pb::ProduceRequest { topic: "log".into(), records: vec![record], ..Default::default() };
    let waiting = tokio::spawn(async move { client.produce_once(request).await });
    until("it is proposed", || server.partition.proposals() == 1).await;
    server.drain.begin();
    server.serving.await.unwrap().unwrap();
    assert!(waiting.await.unwrap().is_err(), "it was never acknowledged");
}
