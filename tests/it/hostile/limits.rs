// What is too large, too much or out of range: refused with a word of what to do, counted, and no loss
// to others.

use super::{Unread, framed, metric, resident, start, until};
use crate::harness::PATIENCE;
use crate::harness::binary::{Binary, http, http_with, run};
use bytes::Bytes;
use duramen::cluster::{Catalogue, Command, NodeSelf, RejectionKind, TopicSettings};
use duramen::model::TopicName;
use duramen::testing::block_on;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::duramen::v1::admin_client::AdminClient;
use duramen::wire::pb::duramen::v1::log_client::LogClient;
use duramen::wire::pb::log::v1 as book;
use pb::fetch_request::Position;
use serde_json::Value;
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const SMALL: &str = "[log]\nrecord_bytes_max = \"4KiB\"\nbatch_bytes_max = \"64KiB\"\n\
    [rpc]\nmessage_bytes_max = \"256KiB\"\n[http]\nbody_bytes_max = \"128KiB\"\n";

async fn channel(node: &Binary) -> Channel {
    Channel::from_shared(format!("http://{}", node.rpc)).unwrap().connect().await.unwrap()
}

fn record(bytes: usize) -> pb::Record {
    pb::Record { value: Some(vec![b'x'; bytes].into()), ..pb::Record::default() }
}

fn records(records: Vec<pb::Record>) -> pb::ProduceRequest {
    pb::ProduceRequest { topic: "log".into(), records, ..pb::ProduceRequest::default() }
}

async fn produce(node: &Binary, request: pb::ProduceRequest) -> Result<u32, Status> {
    let mut client = LogClient::new(channel(node).await).max_decoding_message_size(64 << 20);
    client.produce_once(request).await.map(|answer| answer.into_inner().record_count)
}

/// Code, reason for programs, message.
fn told(refused: Result<impl std::fmt::Debug, Status>) -> (Code, String, String) {
    let status = refused.expect_err("it is refused");
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    (status.code(), reason.unwrap_or_default(), status.message().to_owned())
}

fn assert_serves(node: &Binary) {
    assert_eq!(block_on(produce(node, records(vec![record(1)]))).unwrap(), 1);
}

#[test]
fn what_is_too_large_is_refused_by_the_limit_that_it_breaks() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), SMALL);
    let before = metric(&node, "duramen_requests_total{method=\"produce_once\"");
    let header = pb::Header { key: "h".into(), value: Some(vec![0; 5_000].into()) };
    let with_header = pb::Record { headers: vec![header], ..record(1) };
    let batch = pb::ProduceRequest { batch: vec![0; 80 << 10].into(), ..records(Vec::new()) };
    for (what, request, code, setting) in [
        ("record", records(vec![record(5_000)]), Code::InvalidArgument, "log.record_bytes_max"),
        ("header", records(vec![with_header]), Code::InvalidArgument, "log.record_bytes_max"),
        ("records", records(vec![record(4_000); 20]), Code::InvalidArgument, "log.batch_bytes_max"),
        ("batch", batch, Code::InvalidArgument, "log.batch_bytes_max"),
        (
            "message",
            records(vec![record(4_000); 80]),
            Code::ResourceExhausted,
            "rpc.message_bytes_max",
        ),
    ] {
        let (told, reason, message) = told(block_on(produce(&node, request)));
        assert_eq!((told, reason.as_str()), (code, "TOO_LARGE"), "{what}: {message}");
        assert!(message.contains(setting), "{what}: {message}");
    }
    let counted = metric(&node, "duramen_requests_total{method=\"produce_once\"") - before;
    assert_eq!(counted, 5.0, "each is counted");
    let large =
        |bytes: usize| format!(r#"{{"records":[{{"value":"{}"}}]}}"#, "QUFB".repeat(bytes / 3));
    for (bytes, setting) in [(6_000, "log.record_bytes_max"), (200 << 10, "http.body_bytes_max")] {
        let (status, text) = node.http("POST", "/v1/topics/log/records", &large(bytes));
        assert_eq!(status, 413, "{text}");
        assert!(text.contains(setting), "{text}");
    }
    // Of the book no method takes more than its own server does.
    let value = vec![0; 5 << 20];
    let small = record(4_000);
    let record = book::Record { value: value.into(), ..book::Record::default() };
    let request = book::ProduceRequest { record: Some(record) };
    let refused = block_on(async {
        let mut client = book::log_client::LogClient::new(channel(&node).await);
        client.produce(request).await
    });
    assert_eq!(told(refused).0, Code::ResourceExhausted);
    // The control: what is within the limits.
    assert_eq!(block_on(produce(&node, records(vec![small; 10]))).unwrap(), 10);
    assert_eq!(node.high_watermark(), 10, "of all the others nothing was stored");
}

#[test]
fn a_head_by_http_has_so_many_bytes_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let begin = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ";
    let within = format!("{begin}{}\r\n\r\n", "v".repeat(32 << 10));
    // Exactly the limit, and no end yet: what a server has not read resets the answer before it.
    let beyond = format!("{begin}{}", "v".repeat((64 << 10) - begin.len()));
    for (head, status) in [(within, "HTTP/1.1 200"), (beyond, "HTTP/1.1 431")] {
        let mut client = std::net::TcpStream::connect(&node.http).unwrap();
        client.set_read_timeout(Some(super::PATIENCE)).unwrap();
        client.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), status, "{} bytes", head.len());
    }
}

#[test]
fn a_request_of_a_hundred_thousand_records_is_one_request() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let before = resident(node.pid());
    let count = 100_000;
    assert_eq!(block_on(produce(&node, records(vec![record(1); count]))).unwrap(), 100_000);
    let one = r#"{"value":"eA=="}"#;
    let body = format!(r#"{{"records":[{}]}}"#, vec![one; count].join(","));
    let (status, text) = node.http("POST", "/v1/topics/log/records", &body);
    assert_eq!(status, 200, "{text}");
    // Answers are bounded whatever is asked for.
    let (_, text) =
        node.http("GET", &format!("/v1/topics/log/records?max_records={}", u64::MAX), "");
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["records"].as_array().unwrap().len(), 10_000);
    let grown = resident(node.pid()).saturating_sub(before);
    assert!(grown < 256 << 20, "{} MiB more", grown >> 20);
    assert_eq!(node.high_watermark(), 200_000);
}

#[test]
fn no_offset_time_or_partition_is_too_odd_to_be_answered() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "[rpc]\nrequest_deadline = \"3s\"\n");
    block_on(produce(&node, records(vec![record(1); 3]))).unwrap();
    let ask = |position, partition| {
        block_on(async {
            let mut client = LogClient::new(channel(&node).await);
            let request = pb::FetchRequest {
                topic: "log".into(),
                partition,
                position: Some(position),
                max_bytes: u32::MAX,
                max_records: u64::MAX,
                ..pb::FetchRequest::default()
            };
            client.fetch_once(request).await.map(|found| found.into_inner().records.len())
        })
    };
    for offset in [4, 1 << 40, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX] {
        let (code, reason, message) = told(ask(Position::Offset(offset), 0));
        assert_eq!((code, reason.as_str()), (Code::OutOfRange, "OUT_OF_RANGE"), "{message}");
        assert!(message.contains('3'), "it says where the log ends: {message}");
        let path = format!("/v1/topics/log/records?offset={offset}");
        assert_eq!(node.http("GET", &path, "").0, 404, "{offset}");
        let mut consumed = block_on(async {
            let mut client = book::log_client::LogClient::new(channel(&node).await);
            client.consume(book::ConsumeRequest { offset }).await
        });
        assert!(consumed.as_mut().is_err_and(|status| status.message().contains("out of range")));
    }
    let odd = super::until("the node knows all topics", || {
        let (code, ..) = told(ask(Position::Start(true), u32::MAX));
        (code != Code::Unavailable).then_some(code)
    });
    assert_eq!(odd, Code::NotFound);
    for (position, found) in [
        (Position::BeforeEnd(u64::MAX), 3),
        (Position::TimestampMs(i64::MIN), 3),
        (Position::TimestampMs(i64::MAX), 0),
        (Position::Offset(3), 0),
    ] {
        let answer = ask(position, 0);
        // At the end it waits for the time that it has.
        let is_patient =
            found == 0 && answer.as_ref().is_err_and(|s| s.code() == Code::DeadlineExceeded);
        assert!(
            is_patient || answer.as_ref().is_ok_and(|n| *n == found),
            "{position:?}: {answer:?}"
        );
    }
    for query in [
        "offset=-1",
        "offset=18446744073709551616",
        "offset=1e3",
        "time=x",
        "max_records=-1",
        "partition=-1",
    ] {
        let (status, text) = node.http("GET", &format!("/v1/topics/log/records?{query}"), "");
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (status, body["error"]["code"].as_str()),
            (400, Some("invalid")),
            "{query}: {text}"
        );
    }
    // Nobody waits longer than the node lets anybody.
    let path = format!("/v1/topics/log/records?offset=3&wait_ms={}", u64::MAX);
    assert_eq!(node.http("GET", &path, "").0, 200);
    assert_serves(&node);
}

fn create(name: &str, partitions: u32) -> Command {
    let name = TopicName::new(name).unwrap();
    let settings = TopicSettings::default();
    Command::CreateTopic { name, partitions, replication_factor: 1, settings }
}

#[test]
fn a_catalogue_takes_ten_thousand_partitions_and_not_one_more_however_often_it_is_asked() {
    let node = NodeSelf {
        uuid: "u".into(),
        name: "n".into(),
        rpc_addr: "127.0.0.1:1".into(),
        gossip_addr: String::new(),
        labels: std::collections::BTreeMap::new(),
        version: "1".into(),
        protocol_min: 1,
        protocol_max: 2,
    };
    let mut catalogue = Catalogue::default();
    catalogue.apply(&Command::Found { cluster_id: "c".into(), node }).unwrap();
    catalogue.apply(&create("all-but-one", 9_998)).unwrap();
    catalogue.apply(&create("the-last", 1)).unwrap();
    let full = catalogue.clone();
    for number in 0..1_000_000 {
        let refused = catalogue.apply(&create(&format!("t{number}"), 1)).unwrap_err();
        assert_eq!(refused.kind, RejectionKind::Invalid);
        assert!(refused.message.contains("duramen topic delete"), "{refused:?}");
    }
    assert_eq!(catalogue, full);
    let name = TopicName::new("the-last").unwrap();
    catalogue.apply(&Command::DeleteTopic { name }).unwrap();
    catalogue.apply(&create("another", 1)).unwrap();
}

#[test]
fn requests_for_more_partitions_than_there_can_be_cost_the_cluster_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let proposed =
        || metric(&node, "duramen_actor_messages_total{actor=\"raft\",message=\"Propose\"");
    assert_serves(&node);
    let entries = || std::fs::read_dir(directory.path().join("data/partitions")).unwrap().count();
    let (before, entries_before) = (proposed(), entries());
    let ask = async |client: &mut AdminClient<Channel>, name: String, partitions: u32| {
        let request = pb::CreateTopicRequest { name, partitions, ..Default::default() };
        client.create_topic(request).await.map(|_| ())
    };
    block_on(async {
        let mut client = AdminClient::new(channel(&node).await);
        for partitions in [10_000, 100_000, 1_000_000, u32::MAX] {
            let (code, _, message) = told(ask(&mut client, "large".into(), partitions).await);
            assert_eq!(code, Code::InvalidArgument, "{message}");
            assert!(message.contains("at most 10000"), "{message}");
        }
        let loops = (0..8).map(|number| {
            let mut client = client.clone();
            async move {
                for i in 0..200 {
                    let refused = ask(&mut client, format!("t-{number}-{i}"), 100_000).await;
                    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
                }
            }
        });
        futures_util::future::join_all(loops).await;
        let request =
            pb::AlterTopicRequest { name: "log".into(), partitions: 100_000, ..Default::default() };
        assert_eq!(told(client.alter_topic(request).await).0, Code::InvalidArgument);
    });
    assert!(proposed() - before < 100.0, "refused before it is a record of the controller's log");
    assert_eq!(entries(), entries_before);
    let refused = "duramen_requests_total{method=\"create_topic\",outcome=\"invalid\"";
    assert_eq!(metric(&node, refused), 1_604.0);
    // The control.
    block_on(async {
        let mut client = AdminClient::new(channel(&node).await);
        ask(&mut client, "small".into(), 2).await.unwrap();
    });
    assert!(proposed() > before);
}

#[test]
fn of_what_is_half_way_in_the_oldest_gives_way_and_others_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let small = "[log]\nrecord_bytes_max = \"256KiB\"\nbatch_bytes_max = \"440KiB\"\n\
        [rpc]\nmessage_bytes_max = \"512KiB\"\n[http]\nbody_bytes_max = \"512KiB\"\n\
        [admission]\nincoming_bytes_max = \"1MiB\"\n";
    let node = start(directory.path(), small);
    let message = framed(&records(vec![record(200 << 10)]));
    let gave_way = |port: &str| {
        let labels = format!("{{protocol=\"{port}\",reason=\"bytes\"");
        metric(&node, &format!("duramen_incoming_refused_total{labels}"))
    };
    let incoming = || metric(&node, "duramen_incoming_bytes");
    // The oldest, by HTTP: a fifth of a mebibyte.
    let mut oldest = std::net::TcpStream::connect(&node.http).unwrap();
    let head = "POST /v1/topics/log/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-length: 300000\r\n\r\n";
    oldest.write_all(head.as_bytes()).unwrap();
    oldest.write_all(&[b' '; 200_000]).unwrap();
    until("it is half-way in", || (incoming() == 200_000.0).then_some(()));
    let mut held: Vec<Unread> = Vec::new();
    for at in 1..=4 {
        let mut client = Unread::connect(&node.rpc);
        client.begin(1, "/duramen.v1.Log/ProduceOnce");
        client.data(1, &message[..message.len() - 1], false);
        held.push(client);
        let wanted = (200_000 + at * (message.len() - 1)) as f64;
        until("it is half-way in", || (incoming() == wanted).then_some(()));
    }
    assert_eq!((gave_way("http"), gave_way("grpc")), (0.0, 0.0));
    // One more, which is served; who was first has given way, and is told.
    let mut late = Unread::connect(&node.rpc);
    late.begin(1, "/duramen.v1.Log/ProduceOnce");
    late.data(1, &message[..message.len() - 1], false);
    until("the oldest gave way", || (gave_way("http") == 1.0).then_some(()));
    let mut answer = String::new();
    oldest.set_read_timeout(Some(super::PATIENCE)).unwrap();
    // It may be reset behind the answer, as what it sent was not read.
    let _ = oldest.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    for part in ["\"overloaded\"", "admission.incoming_bytes_max", "\"retry_after_ms\":1000"] {
        assert!(answer.contains(part), "{answer}");
    }
    // Whole requests are served, and who is half-way in goes on.
    assert_serves(&node);
    for client in held.iter_mut().chain([&mut late]) {
        client.data(1, &message[message.len() - 1..], true);
    }
    until("all are in", || (node.high_watermark() == 6).then_some(()));
    assert_eq!((incoming(), gave_way("grpc")), (0.0, 0.0));
}

#[test]
fn fields_of_a_request_that_are_too_long_are_refused_on_both_ports() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "");
    let refused = block_on(async {
        let mut client = LogClient::new(channel(&node).await);
        let mut request = tonic::Request::new(records(vec![record(1)]));
        let value = "v".repeat(32 << 10).parse().unwrap();
        request.metadata_mut().insert("client-id", value);
        client.produce_once(request).await
    });
    assert!(refused.is_err(), "{refused:?}");
    let field = format!("client-id: {}\r\n", "v".repeat(1 << 20));
    let answer = std::panic::catch_unwind(|| http_with(&node.http, "GET", "/livez", &field, ""));
    assert!(answer.is_err() || answer.is_ok_and(|(status, _)| status == 431));
    let (status, _) = http(&node.http, "GET", "/livez", "");
    assert_eq!(status, 200);
    // Of a record they are its content.
    let header = |at: usize| pb::Header {
        key: format!("h{at}"),
        value: Some(Bytes::from_static(b"\x1b[2J\0")),
    };
    let many = pb::Record { headers: (0..10_000).map(header).collect(), ..record(1) };
    assert_eq!(block_on(produce(&node, records(vec![many]))).unwrap(), 1);
    let out = run(&["consume", "log", "--rpc-addr", &node.rpc], b"");
    assert!(out.status.success());
}

#[test]
fn where_all_calls_are_taken_whoever_has_few_is_served_and_whoever_has_many_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "[rpc]\ncalls_max = 40\n");
    let hold = |client: &mut LogClient<Channel>| {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = client.clone();
        async move { client.produce(requests).await.map(|answers| (sender, answers)) }
    };
    block_on(async {
        let mut greedy = LogClient::new(channel(&node).await);
        let mut held = Vec::new();
        let refused = loop {
            match hold(&mut greedy).await {
                Ok(call) => held.push(call),
                Err(refused) => break refused,
            }
        };
        assert_eq!(held.len(), 40);
        assert_eq!(metric(&node, "duramen_calls_open"), 40.0);
        let retry_after = refused.get_error_details().retry_info().unwrap().retry_delay;
        let (code, reason, message) = told(Err::<(), _>(refused));
        assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{message}");
        assert!(message.contains("rpc.calls_max") && retry_after.is_some(), "{message}");
        assert_eq!(metric(&node, "duramen_calls_refused_total"), 1.0);
        // Somebody else gets a few all the same.
        let mut modest = LogClient::new(channel(&node).await);
        let mut own = Vec::new();
        for _ in 0..8 {
            own.push(hold(&mut modest).await.unwrap());
        }
        assert_eq!(hold(&mut modest).await.unwrap_err().code(), Code::ResourceExhausted);
        drop((held, greedy));
        until("they are free again", || (metric(&node, "duramen_calls_open") == 8.0).then_some(()));
        hold(&mut modest).await.unwrap();
    });
    assert_serves(&node);
}

#[test]
fn a_connection_that_nobody_calls_on_ends_and_its_client_comes_again_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let node =
        start(directory.path(), "[rpc]\nidle_timeout = \"1s\"\n[shutdown]\ngrace = \"1s\"\n");
    let open = || metric(&node, "duramen_connections_open{protocol=\"grpc\"");
    let _stranger = Unread::connect(&node.rpc);
    block_on(async {
        let mut calling = LogClient::new(channel(&node).await);
        let mut waiting = LogClient::new(channel(&node).await);
        // The control: a call that waits for what comes is no idleness.
        let follow = pb::FetchRequest {
            topic: "log".into(),
            follow: true,
            position: Some(Position::End(true)),
            ..pb::FetchRequest::default()
        };
        let mut coming = waiting.fetch(follow).await.unwrap().into_inner();
        calling.produce_once(records(vec![record(1)])).await.unwrap();
        assert_eq!(open(), 3.0);
        let begun = Instant::now();
        while open() != 1.0 {
            assert!(begun.elapsed() < PATIENCE, "{} connections are open", open());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        calling.produce_once(records(vec![record(1)])).await.unwrap();
        while coming.message().await.unwrap().unwrap().records.is_empty() {}
    });
}
