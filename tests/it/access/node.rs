// A node alone: open streams, files, restarts, what is noted.

use super::{FOLLOW, Issuer, batch, code};
use crate::harness::binary;
use change::Change;
use duramen::access::AuditEntry;
use duramen::ops::audit;
use duramen::testing::{TestNode, block_on, until};
use duramen::wire::client::Target;
use duramen::wire::pb::duramen::v1::{TestAccessRequest, change_access_request as change};
use duramen::wire::pb::log::v1 as book;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Code;

fn log() -> Target {
    Target::topic("log")
}

#[test]
fn a_right_that_is_taken_ends_open_streams_also_those_that_wait() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, alice, log, produce\np, alice, log, consume");
    let mut alice = issuer.client(node.rpc_addr(), "alice");
    let (mut sink, mut acks) = block_on(alice.produce_stream(log(), 4)).unwrap();
    block_on(sink.send(batch("one"))).unwrap();
    assert!(matches!(block_on(acks.next()), Ok(Some(duramen::wire::client::Answer::Ack(_)))));
    let mut reading = block_on(alice.fetch(&log(), FOLLOW)).unwrap();
    assert_eq!(block_on(reading.next()).unwrap().unwrap().next.0, 1);
    // It waits at the end of the log from here on, and nothing is appended.
    let waiting = std::thread::spawn(move || block_on(reading.next()));
    issuer.change(node.rpc_addr(), Change::Load("p, root, *, *\n".into()));
    let ended = waiting.join().unwrap();
    assert_eq!(code(&ended), Some(Code::PermissionDenied), "{ended:?}");
    block_on(sink.send(batch("two"))).unwrap();
    match block_on(acks.next()) {
        Ok(Some(duramen::wire::client::Answer::Refused { refusal, .. })) => {
            assert_eq!(refusal.code, Code::PermissionDenied);
            assert!(refusal.definite);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(node.values().unwrap().len(), 1);
}

#[test]
fn a_token_ends_what_it_began() {
    let issuer = Issuer::new();
    let node = TestNode::builder()
        .settings(|settings| {
            issuer.trusted()(settings);
            settings.access.token_leeway = Duration::ZERO;
        })
        .start();
    issuer.enforce(node.rpc_addr(), "p, alice, log, consume");
    let token = issuer.token_for("alice", Duration::from_secs(3));
    let options = duramen::wire::client::ClientOptions {
        token: duramen::wire::client::Bearer::new(&token).unwrap(),
        ..Default::default()
    };
    let address = node.rpc_addr().to_string();
    let ended = block_on(async {
        let mut client = duramen::wire::client::Client::connect(&address, options).await?;
        client.fetch(&log(), FOLLOW).await?.next().await
    });
    assert_eq!(code(&ended), Some(Code::Unauthenticated), "{ended:?}");
}

/// A client of the book's own interface, with a token.
fn book_calls(node: &TestNode, token: &str) -> [Result<(), tonic::Status>; 3] {
    let mut bearer = duramen::wire::client::Bearer::new(token).unwrap();
    let address = format!("http://{}", node.rpc_addr());
    block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await;
        let mut client =
            book::log_client::LogClient::with_interceptor(channel.unwrap(), move |request| {
                tonic::service::Interceptor::call(&mut bearer, request)
            });
        let record = Some(book::Record { value: "x".into(), ..Default::default() });
        let produce = book::ProduceRequest { record };
        let produced = client.produce(produce.clone()).await.map(drop);
        let consumed = client.consume(book::ConsumeRequest { offset: 0 }).await.map(drop);
        let streamed = async {
            let stream = client.produce_stream(tokio_stream::once(produce)).await?;
            stream.into_inner().message().await.map(drop)
        };
        [produced, consumed, streamed.await]
    })
}

#[test]
fn the_books_files_decide_in_the_books_words_and_are_read_again_when_they_change() {
    const MODEL: &str = "[request_definition]\nr = sub, obj, act\n[policy_definition]\n\
        p = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\n\
        m = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n";
    const POLICY: &str = "p, root, *, produce\np, root, *, consume\n";
    let issuer = Issuer::new();
    let files = tempfile::tempdir().unwrap();
    let (model, policy) = (files.path().join("model.conf"), files.path().join("policy.csv"));
    std::fs::write(&model, MODEL).unwrap();
    std::fs::write(&policy, POLICY).unwrap();
    let node = TestNode::builder()
        .settings(|settings| {
            settings.access.token_keys_file = Some(issuer.keys_file());
            settings.access.model_file = Some(model.clone());
            settings.access.policy_file = Some(policy.clone());
        })
        .start();
    let (root, nobody) = (issuer.token("root"), issuer.token("nobody"));
    assert!(book_calls(&node, &root).iter().all(Result::is_ok));
    let refused = book_calls(&node, &nobody).map(|outcome| outcome.unwrap_err());
    let words = ["produce", "consume", "produce"];
    for (status, action) in refused.iter().zip(words) {
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), format!("nobody not permitted to {action} to *"));
    }
    let stored = node.values().unwrap().len();
    assert_eq!(stored, 2, "what was refused is not stored");
    let becomes = |what: &str, text: &str, is_permitted: bool| {
        std::fs::write(&policy, text).unwrap();
        until(what, || book_calls(&node, &root).iter().all(|call| call.is_ok() == is_permitted));
    };
    becomes("a policy that is cut off denies", "p, root, *", false);
    let told = book_calls(&node, &root)[0].clone().unwrap_err();
    assert!(told.message().contains("policy cannot be used"), "{}", told.message());
    becomes("and one that is whole permits again", POLICY, true);
    becomes("an empty one denies", "", false);
    becomes("the control", POLICY, true);
    std::fs::remove_file(&policy).unwrap();
    until("a missing one denies", || book_calls(&node, &root).iter().all(Result::is_err));
}

/// Somebody without rights who tries without end, and what it got.
struct Canary {
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
    got: Arc<Mutex<Vec<String>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Canary {
    fn start(issuer: &Arc<Issuer>, address: Arc<Mutex<std::net::SocketAddr>>) -> Self {
        let (stop, tried) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let got = Arc::<Mutex<Vec<String>>>::default();
        let thread = {
            let (issuer, stop, tried, got) =
                (Arc::clone(issuer), Arc::clone(&stop), Arc::clone(&tried), Arc::clone(&got));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let at = *address.lock().unwrap();
                    let outcome = block_on(async {
                        let mut client = issuer.connect(at, "canary").await?;
                        client.produce_once(&log(), batch("canary")).await
                    });
                    if let Ok(ack) = outcome {
                        got.lock().unwrap().push(format!("{ack:?} at {at}"));
                    }
                    tried.fetch_add(1, Ordering::AcqRel);
                }
            })
        };
        Self { stop, tried, got, thread: Some(thread) }
    }

    fn await_tries(&self, more: u64) {
        let goal = self.tried.load(Ordering::Acquire) + more;
        until("the canary has tried", || self.tried.load(Ordering::Acquire) >= goal);
    }

    fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

#[test]
fn a_canary_gets_nothing_while_the_node_crashes_and_starts_again() {
    let issuer = Arc::new(Issuer::new());
    let mut node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, alice, log, *");
    let address = Arc::new(Mutex::new(node.rpc_addr()));
    let canary = Canary::start(&issuer, Arc::clone(&address));
    for _ in 0..3 {
        canary.await_tries(3);
        node = node.crash().start();
        *address.lock().unwrap() = node.rpc_addr();
        canary.await_tries(3);
        // Who has the right gets it back: the canary is not refused because nothing works.
        let mut alice = issuer.client(node.rpc_addr(), "alice");
        until("alice may again", || block_on(alice.produce_once(&log(), batch("alice"))).is_ok());
    }
    let canary_got = canary.finish();
    assert!(canary_got.is_empty(), "{canary_got:?}");
    assert!(node.values().unwrap().iter().all(|value| value == b"alice"));
    // The control: given the right, the same canary succeeds.
    issuer.change(node.rpc_addr(), Change::Add("p, canary, log, produce".into()));
    let control = Canary::start(&issuer, address);
    until("the canary succeeds", || !control.got.lock().unwrap().is_empty());
    control.finish();
}

#[test]
fn what_was_denied_and_what_was_done_is_noted_and_a_change_of_it_shows() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    issuer.enforce(node.rpc_addr(), "p, alice, log, consume");
    let mut alice = issuer.client(node.rpc_addr(), "alice");
    for _ in 0..50 {
        let refused = block_on(alice.produce_once(&log(), batch("x")));
        assert_eq!(code(&refused), Some(Code::PermissionDenied));
    }
    let stopped = node.stop();
    let place = stopped.data_dir().join(audit::DIRECTORY);
    let mut entries: Vec<AuditEntry> = Vec::new();
    audit::read(&place, |entry| entries.push(entry)).unwrap();
    let acts: Vec<_> = entries.iter().filter(|entry| entry.kind == "act").collect();
    assert!(acts.iter().all(|entry| entry.subject.as_deref() == Some("root")), "{acts:?}");
    assert!(acts.iter().any(|entry| entry.what.contains("Switch") && entry.outcome == "done"));
    let denied: Vec<_> = entries.iter().filter(|entry| entry.kind == "denied").collect();
    assert_eq!(denied.iter().map(|entry| entry.times).sum::<u64>(), 50);
    assert!(denied.iter().all(|entry| entry.subject.as_deref() == Some("alice")));
    assert!(denied.iter().all(|entry| entry.what == "produce log"));
    let directory = stopped.data_dir().display().to_string();
    let verify = || binary::run(&["audit", "verify", "--data-dir", &directory], b"");
    assert!(verify().status.success());
    let tail = binary::run(&["audit", "tail", "--data-dir", &directory], b"");
    assert!(String::from_utf8_lossy(&tail.stdout).contains("alice not permitted to produce"));
    let file = place.join("current.jsonl");
    let changed = std::fs::read_to_string(&file).unwrap().replacen("alice", "bob", 1);
    std::fs::write(&file, changed).unwrap();
    assert_eq!(verify().status.code(), Some(74));
}

#[test]
fn nobody_is_locked_out_by_mistake_and_what_would_be_decided_can_be_asked() {
    let issuer = Issuer::new();
    let node = TestNode::builder().settings(issuer.trusted()).start();
    let mut root = issuer.admin(node.rpc_addr());
    let switch =
        duramen::wire::pb::duramen::v1::ChangeAccessRequest { change: Some(Change::Switch(true)) };
    let refused = block_on(root.change_access(switch.clone()));
    assert_eq!(code(&refused), Some(Code::FailedPrecondition), "{refused:?}");
    issuer.change(node.rpc_addr(), Change::Add("p, role:ops, *, *\ng, olga, role:ops".into()));
    block_on(root.change_access(switch)).unwrap();
    let mut olga = issuer.client(node.rpc_addr(), "olga").admin();
    let asked = |subject: &str, action: &str| TestAccessRequest {
        subject: subject.into(),
        action: action.into(),
        object: "log".into(),
    };
    let olgas = block_on(olga.test_access(asked("olga", "produce"))).unwrap();
    assert!(olgas.permitted && olgas.passes, "{olgas:?}");
    assert_eq!(olgas.rules, ["p, role:ops, *, *, allow"]);
    let bobs = block_on(olga.test_access(asked("bob", "produce"))).unwrap();
    assert!(!bobs.permitted && !bobs.passes && bobs.rules.is_empty());
    assert_eq!(bobs.refusal, "bob not permitted to produce to log");
}

#[test]
fn access_control_is_looked_after_from_the_command_line() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let keys = issuer.keys_file().display().to_string();
    let node = binary::Binary::start_with(directory.path(), &["--token-keys-file", &keys]);
    let token = directory.path().join("root.token");
    std::fs::write(&token, issuer.token("root")).unwrap();
    let token = token.display().to_string();
    let acl = |words: &[&str]| {
        let mut all = vec!["acl"];
        all.extend(words);
        all.extend(["--addr", &node.rpc, "--token-file", &token, "--table"]);
        let output = binary::run(&all, b"");
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code().unwrap(), told.concat())
    };
    let (status, told) = acl(&["on"]);
    assert_eq!(status, 1, "nobody is an administrator");
    assert!(told.contains("give somebody admin first") && !told.contains("try:"), "{told}");
    let (status, told) = acl(&["remove", "alice", "log", "produce"]);
    assert_eq!(status, 64, "there is no such rule");
    assert!(told.contains("try:   `duramen acl list` shows what it holds"), "{told}");
    std::fs::write(directory.path().join("p.csv"), "p, root, *, *\np, a\n").unwrap();
    let (status, told) = acl(&["load", &directory.path().join("p.csv").display().to_string()]);
    assert_eq!(status, 64);
    assert!(told.contains("line 2") && !told.contains("acl add"), "{told}");
    assert_eq!(acl(&["add", "root", "*", "*"]).0, 0);
    let (status, text) = acl(&["on"]);
    assert_eq!((status, text.contains("in force")), (0, true), "{text}");
    assert_eq!(acl(&["add", "alice", "orders-*", "produce,consume"]).0, 0);
    assert_eq!(acl(&["test", "alice", "produce", "orders-1"]).0, 0);
    assert_eq!(acl(&["test", "alice", "produce", "log"]).0, 77);
    let (_, text) = acl(&["explain", "alice", "produce", "orders-1"]);
    assert!(text.contains("p, alice, orders-*, produce, allow"), "{text}");
    assert!(acl(&["list"]).1.contains("p, root, *, *, allow"));
    let without = binary::run(&["acl", "list", "--addr", &node.rpc], b"");
    assert_eq!(without.status.code(), Some(77), "{without:?}");
    assert_eq!(acl(&["remove", "alice", "orders-*", "produce"]).0, 0);
    assert_eq!(acl(&["test", "alice", "produce", "orders-1"]).0, 77);
    assert_eq!(acl(&["off"]).0, 0);
    let without = binary::run(&["acl", "list", "--addr", &node.rpc], b"");
    assert!(without.status.success());
}
