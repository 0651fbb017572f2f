// What was permitted once and is not any more: requests that are not whole when the right goes, streams of
// tokens whose key goes, peers that lose the right to be one.

use super::{FOLLOW, Issuer, batch, code, raw};
use bytes::Bytes;
use duramen::access::{KeyKind, Secret};
use duramen::testing::{TestNode, block_on, until};
use duramen::wire::client::{Answer, Target};
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::duramen::v1::change_access_request::Change;
use prost::Message;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// How long what should come at once is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}"))]
}

#[test]
fn a_call_whose_message_comes_late_is_judged_when_it_has_come() {
    const PATHS: [&str; 10] = [
        "/duramen.v1.Admin/ClusterStatus",
        "/duramen.v1.Admin/GetAccess",
        "/duramen.v1.Admin/TestAccess",
        "/duramen.v1.Admin/ChangeAccess",
        "/duramen.v1.Observe/Tree",
        "/duramen.v1.Observe/Tap",
        "/duramen.v1.Observe/Explain",
        "/duramen.v1.Observe/Command",
        "/duramen.v1.Observe/GetLogLevels",
        "/duramen.v1.Observe/SetLogLevels",
    ];
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, mallory, *, *");
    let token = issuer.token("mallory");
    let channel = block_on(raw::channel(node.rpc_addr()));
    // Two of each: one that is finished while the right is there, which shows that the other was let in.
    let hold = |path: &'static str| {
        let (finish, messages) = mpsc::channel::<Bytes>(1);
        let (channel, token) = (channel.clone(), bearer(&token));
        let call = std::thread::spawn(move || {
            block_on(async {
                let answers =
                    raw::stream(channel, path, &token, ReceiverStream::new(messages)).await;
                match answers {
                    // A tap tells its warnings first.
                    Ok(mut answers) => answers.message().await.map(drop),
                    Err(status) => Err(status),
                }
            })
        });
        (path, finish, call)
    };
    let held: Vec<_> = PATHS.into_iter().map(hold).collect();
    let controls: Vec<_> = PATHS.into_iter().map(hold).collect();
    let finished =
        |(path, finish, call): (&'static str, mpsc::Sender<Bytes>, std::thread::JoinHandle<_>)| {
            // A pattern of everything for whom it is one, and of no meaning to the others.
            let message = if path.ends_with("Tap") { &b"\x0a\x02**"[..] } else { b"" };
            block_on(finish.send(Bytes::from_static(message))).unwrap();
            drop(finish);
            let outcome: Result<(), tonic::Status> = call.join().unwrap();
            (path, outcome.err().map(|status| status.code()))
        };
    for (path, code) in controls.into_iter().map(finished) {
        assert_ne!(code, Some(Code::PermissionDenied), "{path}");
    }
    issuer.change(node.rpc_addr(), Change::Remove("p, mallory, *, *".into()));
    for (path, code) in held.into_iter().map(finished) {
        assert_eq!(code, Some(Code::PermissionDenied), "{path}");
    }
}

/// The head of a request, whose body may come; and all that is answered to it.
fn begun(address: std::net::SocketAddr, target: &str, token: &str, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         expect: 100-continue\r\ncontent-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        told.push(byte[0]);
    }
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("HTTP/1.1 100"), "the node wants the body: {told}");
    stream
}

#[test]
fn a_body_that_comes_late_is_judged_when_it_has_come() {
    let requests = [
        ("/v1/topics/log/records", r#"{"records":[{"value":"late"}]}"#),
        ("/", r#"{"record":{"value":"bGF0ZQ=="}}"#),
    ];
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, mallory, log, produce");
    let token = issuer.token("mallory");
    let begin =
        || requests.map(|(target, body)| begun(node.http_addr(), target, &token, body.len()));
    let finish = |streams: [TcpStream; 2]| {
        let mut statuses = Vec::new();
        for (mut stream, (_, body)) in streams.into_iter().zip(requests) {
            stream.write_all(body.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            statuses.push(answer.split(' ').nth(1).unwrap().to_owned());
        }
        statuses
    };
    let (control, held) = (begin(), begin());
    assert_eq!(finish(control), ["200", "200"]);
    issuer.change(node.rpc_addr(), Change::Remove("p, mallory, log, produce".into()));
    assert_eq!(finish(held), ["403", "403"]);
    assert_eq!(node.values().unwrap().len(), 2, "what was refused is not stored");
}

#[test]
fn streams_of_a_token_end_when_its_key_is_taken_out() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, alice, log, *");
    let log = Target::topic("log");
    let mut alice = issuer.client(node.rpc_addr(), "alice");
    let (mut sink, mut acks) = block_on(alice.produce_stream(log.clone(), 4)).unwrap();
    block_on(sink.send(batch("one"))).unwrap();
    assert!(matches!(block_on(acks.next()), Ok(Some(Answer::Ack(_)))));
    let mut reading = block_on(alice.fetch(&log, FOLLOW)).unwrap();
    assert_eq!(block_on(reading.next()).unwrap().unwrap().next.0, 1);
    let waiting = std::thread::spawn(move || {
        block_on(async move { tokio::time::timeout(PATIENCE, reading.next()).await })
    });
    // Another key of the same name.
    let another = Secret::generate(KeyKind::EdDsa, "k1").unwrap();
    let next = issuer.keys_file().with_extension("next");
    std::fs::write(&next, another.for_nodes()).unwrap();
    std::fs::rename(next, issuer.keys_file()).unwrap();
    let ended = waiting.join().unwrap().expect("it is told");
    assert_eq!(code(&ended), Some(Code::Unauthenticated), "{ended:?}");
    block_on(sink.send(batch("two"))).unwrap();
    match block_on(acks.next()) {
        Ok(Some(Answer::Refused { refusal, .. })) => {
            assert_eq!(refusal.code, Code::Unauthenticated);
            assert!(refusal.message.contains("not trusted any more"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(node.values().unwrap().len(), 1);
}

#[test]
fn streams_of_a_token_go_on_when_another_key_comes_beside_its_own() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, alice, log, *");
    let mut alice = issuer.client(node.rpc_addr(), "alice");
    let (mut sink, mut acks) = block_on(alice.produce_stream(Target::topic("log"), 4)).unwrap();
    let another = Secret::generate(KeyKind::EdDsa, "k2").unwrap();
    let key = |set: &str| {
        let set: serde_json::Value = serde_json::from_str(set).unwrap();
        set["keys"][0].clone()
    };
    let before = std::fs::read_to_string(issuer.keys_file()).unwrap();
    let both = serde_json::json!({ "keys": [key(&before), key(&another.for_nodes())] });
    std::fs::write(issuer.keys_file(), both.to_string()).unwrap();
    let issued = {
        use duramen::access::{TokenTerms, new_token};
        use duramen::model::{Clock, SystemClock};
        let (now, hour) = (SystemClock::new().wall(), Duration::from_secs(3600));
        new_token(&another, "alice", &TokenTerms::default(), now, hour).unwrap()
    };
    until("the new key counts", || {
        let described = block_on(async {
            let channel = raw::channel(node.rpc_addr()).await;
            let message = Bytes::from_static(b"\x0a\x03log");
            raw::call(channel, "/duramen.v1.Log/Describe", &bearer(&issued), message).await
        });
        described.is_ok()
    });
    block_on(sink.send(batch("one"))).unwrap();
    let answer = block_on(acks.next());
    assert!(matches!(answer, Ok(Some(Answer::Ack(_)))), "{answer:?}");
}

#[test]
fn a_peer_that_may_be_none_any_more_is_cut_off() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, bob, *, peer");
    let catalogue = node.cluster().control.catalogue();
    let (number, known) = catalogue.nodes.first_key_value().unwrap();
    let introduction = pb::Introduction {
        cluster_id: catalogue.cluster_id.clone(),
        node: number.0,
        uuid: known.uuid.clone(),
        to: number.0,
        to_uuid: known.uuid.clone(),
        protocol_min: 1,
        protocol_max: 9,
        version: "0".into(),
    };
    let frame = pb::PeerFrame { introduction: Some(introduction), ..Default::default() };
    let (frames, messages) = mpsc::channel::<Bytes>(1);
    block_on(frames.send(frame.encode_to_vec().into())).unwrap();
    let channel = block_on(raw::channel(node.rpc_addr()));
    let mut notices = block_on(raw::stream(
        channel,
        "/duramen.v1.Peer/Exchange",
        &bearer(&issuer.token("bob")),
        ReceiverStream::new(messages),
    ))
    .unwrap();
    block_on(frames.send(Bytes::new())).unwrap();
    assert!(block_on(notices.message()).unwrap().is_some(), "frames are taken");
    issuer.change(node.rpc_addr(), Change::Remove("p, bob, *, peer".into()));
    let told = async {
        loop {
            match notices.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    };
    let ended = block_on(async { tokio::time::timeout(PATIENCE, told).await });
    let ended = ended.expect("it is told");
    assert_eq!(ended.unwrap_err().code(), Code::PermissionDenied);
}

#[test]
fn a_name_that_no_topic_has_is_not_repeated() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, alice, log, *");
    let mut alice = issuer.client(node.rpc_addr(), "alice");
    let long = Target::topic("long-".repeat(200_000));
    let refused = block_on(alice.produce_once(&long, batch("x")));
    assert_eq!(code(&refused), Some(Code::PermissionDenied));
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("to long-long-") && told.len() < 1_000, "{} bytes", told.len());
}

#[test]
fn nobody_writes_the_audit_log_of_a_cluster_through_a_node_that_asks_nobody() {
    let node = TestNode::start();
    let address = node.rpc_addr().to_string();
    let refused = block_on(async {
        let mut client =
            duramen::wire::client::Client::connect(&address, Default::default()).await?;
        client.produce_once(&Target::topic("_audit"), batch("x")).await
    });
    assert_eq!(code(&refused), Some(Code::PermissionDenied), "{refused:?}");
    let body = r#"{"records":[{"value":"x"}]}"#;
    let http = node.http_addr().to_string();
    let (status, told) =
        crate::harness::binary::http(&http, "POST", "/v1/topics/_audit/records", body);
    assert_eq!(status, 403, "{told}");
    assert!(told.contains("written by nodes only"), "{told}");
}
