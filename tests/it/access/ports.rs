// Every method of every port: nobody passes without a name, nobody without a right, and who has it does.

use super::raw::OPEN_TO_THE_KNOWN;
use super::{Issuer, raw};
use crate::harness::binary;
use bytes::Bytes;
use duramen::testing::{TestNode, block_on};
use duramen::wire::pb::duramen::v1::ProduceResponse;
use prost::Message;
use std::net::SocketAddr;
use tonic::Code;
use tonic::transport::Channel;

/// A message that names the topic `log` in its first field, where that is a text.
fn message(path: &str) -> Bytes {
    let names_topic = path.starts_with("/duramen.v1.Log/") && !path.ends_with("Metadata")
        || path.starts_with("/duramen.v1.Admin/") && path.ends_with("Topic");
    // Of one's own: nothing is to be lost where it passes.
    if names_topic { Bytes::from_static(b"\x0a\x05other") } else { Bytes::new() }
}

fn outcome(node: &TestNode, path: &str, token: Option<&str>) -> Option<Code> {
    let channel = raw::channel(node.rpc_addr());
    refusal(channel, path, token).map(|(code, _)| code)
}

/// How a call is refused over a connection.
pub fn refusal(
    channel: impl Future<Output = Channel>,
    path: &str,
    token: Option<&str>,
) -> Option<(Code, String)> {
    let metadata: Vec<_> =
        token.iter().map(|token| ("authorization", format!("Bearer {token}"))).collect();
    let called = block_on(async {
        let call = raw::call(channel.await, path, &metadata, message(path));
        // Some streams say nothing until there is something.
        tokio::time::timeout(std::time::Duration::from_secs(2), call).await
    });
    match called {
        // A stream of requests goes on when one of them is refused.
        Ok(Ok(Some(answer))) if path == "/duramen.v1.Log/Produce" => {
            let error = ProduceResponse::decode(answer).unwrap().error;
            error.map(|error| (Code::from(error.code), error.message))
        }
        called => {
            let refused = called.ok().and_then(|answered| answered.err());
            refused.map(|status| (status.code(), status.message().to_owned()))
        }
    }
}

#[test]
fn no_method_lets_anybody_pass_who_may_not() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "");
    let (root, canary) = (issuer.token("root"), issuer.token("canary"));
    for (at, path) in raw::methods().into_iter().enumerate() {
        let is_of_nodes = path.starts_with("/duramen.v1.Peer/");
        if !is_of_nodes {
            assert_eq!(outcome(&node, &path, None), Some(Code::Unauthenticated), "{path}");
        }
        let expected = (!OPEN_TO_THE_KNOWN.contains(&&*path)).then_some(Code::PermissionDenied);
        assert_eq!(outcome(&node, &path, Some(&canary)), expected, "{path}");
        let damaged = format!("{}x", &canary[..canary.len() - 9]);
        // Only so many: then nobody is listened to any more.
        if at < 10 {
            let told = outcome(&node, &path, Some(&damaged));
            assert_eq!(told, Some(Code::Unauthenticated), "{path}");
        }
        // The control. What it asks for makes no sense, and that is what it is told.
        if !is_of_nodes && !path.ends_with("LeaveNode") {
            let told = outcome(&node, &path, Some(&root));
            let refused = [Some(Code::PermissionDenied), Some(Code::Unauthenticated)];
            assert!(!refused.contains(&told), "{path}: {told:?}");
        }
    }
    assert_eq!(outcome(&node, "/grpc.health.v1.Health/Check", None), None);
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(outcome(&node, reflection, None), Some(Code::Unauthenticated));
    assert_eq!(outcome(&node, "/made.up.Service/Method", None), Some(Code::Unauthenticated));
}

fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> (u16, String) {
    let header = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    binary::http_with(&address.to_string(), method, path, &header, body)
}

#[test]
fn the_http_port_asks_as_well() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(
        node.rpc_addr(),
        "p, writer, log, produce\np, reader, log, consume\np, watcher, *, observe",
    );
    let address = node.http_addr();
    let record = r#"{"records":[{"value":"aGk="}]}"#;
    let book = r#"{"record":{"value":"aGk="}}"#;
    let calls = [
        ("POST", "/", book, "writer"),
        ("GET", "/", r#"{"offset":0}"#, "reader"),
        ("POST", "/v1/topics/log/records", record, "writer"),
        ("GET", "/v1/topics/log/records", "", "reader"),
        ("GET", "/metrics", "", "watcher"),
        ("GET", "/observe/tree", "", "watcher"),
        ("GET", "/observe/explain", "", "watcher"),
    ];
    let names = ["writer", "reader", "watcher", "canary"];
    for (method, path, body, entitled) in calls {
        let (status, text) = http(address, method, path, None, body);
        assert_eq!(status, 401, "{method} {path}: {text}");
        assert_eq!(http(address, method, path, Some("nonsense"), body).0, 401, "{method} {path}");
        for name in names {
            let (status, text) = http(address, method, path, Some(&issuer.token(name)), body);
            let expected = if name == entitled { 200 } else { 403 };
            assert_eq!(status, expected, "{name} {method} {path}: {text}");
        }
    }
    let (_, text) = http(address, "POST", "/", Some(&issuer.token("canary")), book);
    assert_eq!(text.trim(), "canary not permitted to produce to *");
    for path in ["/livez", "/readyz"] {
        assert_eq!(http(address, "GET", path, None, "").0, 200, "{path}");
    }
}

#[test]
fn who_fails_to_authenticate_again_and_again_is_no_longer_listened_to() {
    let issuer = Issuer::new();
    let good = issuer.token("root");
    for scheme in ["Bearer", "Basic"] {
        let node = TestNode::builder().settings(issuer.trusted()).start();
        issuer.enforce(node.rpc_addr(), "");
        assert_eq!(http(node.http_addr(), "GET", "/metrics", Some(&good), "").0, 200);
        let answers: Vec<u16> = (0..60)
            .map(|i| {
                let bad = format!("authorization: {scheme} {}.{i}\r\n", &good[..good.len() - 20]);
                binary::http_with(&node.http_addr().to_string(), "GET", "/metrics", &bad, "").0
            })
            .collect();
        assert!(answers[..20].iter().all(|status| *status == 401), "{scheme}: {answers:?}");
        assert!(answers.contains(&429), "{scheme}: {answers:?}");
        // A token that was good is still: its bearer is not locked out by a neighbour.
        assert_eq!(http(node.http_addr(), "GET", "/metrics", Some(&good), "").0, 200);
    }
}
