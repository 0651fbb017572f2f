// Seeing inside: each command against a real node under load, and what a tap may never do: hold
// anybody up.

use crate::harness::binary::{Binary, EXE, run};
use crate::harness::{PATIENCE, client, on_a_system, one_record, settings, silent, until};
use duramen::actors::observer::Action;
use duramen::node::Node;
use duramen::observe::Mishap;
use duramen::wire::client::{Client, ClientOptions};
use duramen::wire::pb::duramen::v1::log_client::LogClient;
use duramen::wire::pb::duramen::v1::{ProduceRequest, TapRequest};
use serde_json::Value;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

/// Producers that append a line now and then until they are dropped.
struct Load {
    stop: Arc<AtomicBool>,
    feeders: Vec<JoinHandle<()>>,
    producers: Vec<Child>,
}

impl Load {
    fn on(node: &Binary, producers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut feeders, mut children) = (Vec::new(), Vec::new());
        for _ in 0..producers {
            let mut child = Command::new(EXE)
                .args(["produce", "log", "--rpc-addr", &node.rpc])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let stop = Arc::clone(&stop);
            feeders.push(std::thread::spawn(move || {
                // Its pace only makes the load a light one: nothing waits for it.
                while !stop.load(Ordering::Relaxed) && stdin.write_all(b"a line\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }));
            children.push(child);
        }
        Self { stop, feeders, producers: children }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for feeder in self.feeders.drain(..) {
            let _ = feeder.join();
        }
        for mut child in self.producers.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command against a node.
fn ask(node: &Binary, arguments: &[&str]) -> Output {
    run(&[arguments, &["--rpc-addr", &node.rpc]].concat(), b"")
}

fn told(node: &Binary, arguments: &[&str]) -> String {
    let output = ask(node, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(node: &Binary, arguments: &[&str]) -> Value {
    serde_json::from_str(&told(node, arguments)).unwrap()
}

fn refused(node: &Binary, arguments: &[&str]) -> (Option<i32>, String) {
    let output = ask(node, arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn place<'a>(tree: &'a Value, path: &str) -> &'a Value {
    let places = tree["places"].as_array().unwrap();
    places.iter().find(|place| place["path"] == path).unwrap_or_else(|| panic!("no {path}: {tree}"))
}

const RAFT: &str = "node/partitions/log/0/raft";
const FLUSH: &str = "node/partitions/log/0/log/flush";

#[test]
fn every_command_shows_a_node_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(directory.path());
    let _load = Load::on(&node, 3);

    // The tree, with what its actors and their workers do.
    let deadline = Instant::now() + PATIENCE;
    let tree = loop {
        let tree = json(&node, &["ps"]);
        if place(&tree, FLUSH)["handled"].as_u64().unwrap() > 20 {
            break tree;
        }
        assert!(Instant::now() < deadline, "nothing is ever flushed: {tree}");
    };
    assert_eq!(
        (&place(&tree, "node")["kind"], &place(&tree, FLUSH)["kind"]),
        (&Value::from("supervisor"), &Value::from("worker"))
    );
    assert_eq!(place(&tree, RAFT)["state"], "running");
    assert!(place(&tree, RAFT)["slowest"]["took_us"].is_u64(), "{tree}");
    let part = json(&node, &["ps", "partitions/*/0/log"]);
    assert_eq!(part["places"].as_array().unwrap().len(), 2, "the log and its flush: {part}");
    let table = told(&node, &["ps", "--table"]);
    assert!(table.contains("\n        flush  ") && table.contains("MSG/S"), "{table}");

    // Twice the busiest, and then it ends.
    let looks = told(&node, &["top", "--count", "2", "--interval", "100ms", "--table"]);
    assert_eq!(looks.matches("PLACE").count(), 2, "{looks}");
    assert!(!looks.contains('\x1b'), "no terminal, no colours");
    let looks = told(&node, &["top", "-n", "2", "-i", "50ms"]);
    let times: Vec<i64> = looks
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["time_ms"].as_i64().unwrap())
        .collect();
    assert!(times.len() == 2 && times[0] <= times[1], "{times:?}");

    // Messages, one a line, of those actors and types only.
    let lines =
        told(&node, &["tap", "log/0", "--message", "Append", "--message", "Write", "-n", "20"]);
    let envelopes: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(envelopes.len(), 20);
    for envelope in &envelopes {
        assert!(["Append", "Write"].contains(&envelope["message"].as_str().unwrap()));
        assert!(envelope["cause"].as_u64().unwrap() > 0, "somebody's doing: {envelope}");
        assert!(!envelope.to_string().contains("a line"), "never a payload: {envelope}");
    }
    let slow =
        told(&node, &["tap", RAFT, "-m", "Propose", "--slower-than", "1us", "-n", "3", "--table"]);
    assert_eq!(slow.lines().count(), 3, "{slow}");

    // One request from its arrival to its answer.
    let diagram = told(&node, &["tap", "log/0", "--sequence"]);
    assert!(diagram.starts_with("sequenceDiagram\n"), "{diagram}");
    let steps = [
        "->>raft: Propose",
        "raft->>raft: Pump",
        "raft->>log: Append",
        "log->>flush: Write",
        "flush->>log: Report",
        "log->>raft: Persisted",
        ": ok after ",
    ];
    let places: Vec<Option<usize>> = steps.iter().map(|step| diagram.rfind(step)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {diagram}");

    for subject in
        [&["explain", "node"][..], &["explain", "partition"], &["explain", "actor", "flush"]]
    {
        let why = json(&node, subject);
        assert!(why["sentence"].as_str().is_some_and(|text| !text.is_empty()), "{why}");
    }
    let (status, body) = node.http("GET", "/observe/tree?pattern=raft", "");
    let over_http: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &over_http["places"][0]["path"]), (200, &Value::from(RAFT)));
    let (status, body) = node.http("GET", "/observe/explain?partition=log/0", "");
    assert!(status == 200 && body.contains("\"sentence\""), "{status} {body}");
}

#[test]
fn a_partition_is_taken_out_of_service_and_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(directory.path());
    let acted = json(&node, &["actor", "quarantine", "raft", "--reason", "to look at it"]);
    assert_eq!(acted["path"], RAFT);
    let affected = acted["affected"].as_array().unwrap();
    assert_eq!(affected.len(), 2, "log and raft are one domain: {acted}");
    assert!(acted["next"].as_str().unwrap().contains("duramen actor release"), "{acted}");

    let output = run(&["produce", "log", "--rpc-addr", &node.rpc], b"refused\n");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("to look at it") && error.contains("duramen actor release"), "{error}");
    assert_eq!(place(&json(&node, &["ps"]), RAFT)["reason"], "to look at it");
    let why = json(&node, &["explain", "partition", "log/0"]);
    assert!(why.to_string().contains("to look at it"), "{why}");
    let (code, error) = refused(&node, &["actor", "restart", "raft"]);
    assert!(code == Some(1) && error.contains("brings it back"), "{error}");

    // Housekeeping depends on nobody, and nobody on it.
    let acted = json(&node, &["actor", "restart", "node/housekeeping"]);
    assert_eq!(acted["affected"].as_array().unwrap().len(), 1, "{acted}");
    assert!(acted["next"].as_str().unwrap().contains("it stops and starts again;"), "{acted}");

    told(&node, &["actor", "release", "raft"]);
    let deadline = Instant::now() + PATIENCE;
    while place(&json(&node, &["ps"]), RAFT)["state"] != "running"
        || node.describe()["state"] != "serving"
    {
        assert!(Instant::now() < deadline, "it does not come back");
    }
    let output = run(&["produce", "log", "--rpc-addr", &node.rpc], b"taken\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(node.high_watermark(), 1, "what was refused is not there");

    // The way in is not to be closed from inside.
    for path in ["grpc", "frontends", "node"] {
        let (code, error) = refused(&node, &["actor", "quarantine", path]);
        assert!(code == Some(1) && error.contains("restart it"), "{path}: {error}");
    }
}

#[test]
fn log_levels_are_shown_and_changed_while_the_node_runs() {
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(directory.path());
    assert_eq!(json(&node, &["log", "show"])["spec"], "info");
    let changed = json(&node, &["log", "set", "warn,*/Append:trace"]);
    assert_eq!(
        (&changed["spec"], &changed["before"]),
        (&Value::from("warning,*/Append:trace"), &Value::from("info"))
    );
    assert_eq!(json(&node, &["log", "show"])["spec"], "warning,*/Append:trace");
    let (code, error) = refused(&node, &["log", "set", "loud"]);
    assert!(code == Some(2) && error.contains("levels are trace"), "{error}");
}

#[test]
fn what_is_not_there_is_told_with_what_may_be_meant() {
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(directory.path());
    let long = "x".repeat(5000);
    let cases: [(&[&str], i32, &str); 11] = [
        (&["ps", "partitions/log/7"], 64, "did you mean node/partitions/log/0"),
        (&["tap", "log/0/rafd"], 64, "did you mean node/partitions/log/0/raft?"),
        (&["tap", "//"], 64, "the pattern is empty"),
        (&["explain", "actor", "frontends/grcp"], 64, "did you mean node/frontends/grpc?"),
        (&["explain", "partition", "orders/0"], 64, "there is no partitions/orders/0"),
        (&["explain", "partition", "log/0/raft"], 64, "did you mean node/partitions/log/0?"),
        (&["explain", "actor", &long], 64, "takes 5000 bytes"),
        (&["actor", "restart", "flush"], 1, "act on the actor"),
        (&["actor", "release", "raft"], 1, "it is running"),
        (&["tap", "raft", "--sequence", "--message", "Append"], 2, "cannot be used with"),
        (&["top", "--interval", "1"], 2, "500ms or 2s"),
    ];
    for (arguments, code, text) in cases {
        let (ended, error) = refused(&node, arguments);
        assert!(ended == Some(code) && error.contains(text), "{arguments:?}: {ended:?} {error}");
    }
    let (status, body) = node.http("GET", "/observe/explain?actor=nobody", "");
    assert!(status == 404 && body.contains("unknown_place"), "{status} {body}");
    for query in ["explain?actor", "explain?partition", "tree?pattern"] {
        let (status, body) = node.http("GET", &format!("/observe/{query}={long}"), "");
        assert!(status == 400 && body.contains("takes 5000 bytes"), "{query}: {status} {body}");
    }
    let slashed = json(&node, &["explain", "partition", "log/0/"]);
    assert_eq!(slashed["subject"], json(&node, &["explain", "partition", "log/0"])["subject"]);
    let (status, _) = node.http("GET", "/observe/tree?patern=raft", "");
    assert_eq!(status, 400);
    let address = node.rpc.clone();
    node.kill();
    let output = run(&["ps", "--rpc-addr", &address], b"");
    assert_eq!(output.status.code(), Some(69));
}

#[test]
fn a_tap_that_nobody_reads_holds_nobody_up() {
    const RECORDS: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let open = || async {
            let client = Client::connect(&node.rpc, ClientOptions::default()).await.unwrap();
            let pattern = "**".into();
            let request = TapRequest { pattern, queue_len: 64, ..TapRequest::default() };
            client.observer().tap(request).await.unwrap()
        };
        let (unread, mut read) = (open().await, open().await);
        let first = read.next().await.unwrap().expect("a tap says that it is open");
        assert!(first.envelopes.is_empty() && first.warnings.is_empty());
        let tree = json(&node, &["ps"]);
        assert_eq!((&tree["taps"], &tree["tap_dropped"]), (&Value::from(2), &Value::from(0)));

        // One record a request: as many messages as there can be.
        let mut log = LogClient::connect(format!("http://{}", node.rpc)).await.unwrap();
        let requests = tokio_stream::iter((0..RECORDS).map(|number| {
            let record = one_record(number.to_string());
            ProduceRequest { correlation_id: number, ..record }
        }));
        let mut answers = log.produce(requests).await.unwrap().into_inner();
        let mut next = 0;
        while let Some(answer) = answers.next().await {
            let answer = answer.unwrap();
            assert_eq!((answer.base_offset, answer.error), (next, None));
            next += 1;
        }
        assert_eq!(next, RECORDS, "all are acknowledged");
        let seen = read.next().await.unwrap().expect("the tap that is read goes on");
        assert!(!seen.envelopes.is_empty());
        let tree = json(&node, &["ps"]);
        assert!(tree["tap_dropped"].as_u64().unwrap() > 0, "what did not fit is counted: {tree}");
        drop((unread, read));
    });
    drop(runtime);
    let deadline = Instant::now() + PATIENCE;
    while json(&node, &["ps"])["taps"] != 0 {
        assert!(Instant::now() < deadline, "a tap outlives its client");
    }
    // With a tap open a node still ends in order.
    let mut tapping = Command::new(EXE)
        .args(["tap", "**", "--rpc-addr", &node.rpc])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while json(&node, &["ps"])["taps"] != 1 {
        assert!(Instant::now() < deadline, "the tap is never open");
    }
    assert_eq!(node.stop("TERM").code(), Some(0));
    assert!(!tapping.wait().unwrap().success(), "it is told that the node stops");
}

#[test]
fn the_inside_is_seen_while_the_shard_hangs() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let mut settings = settings(directory.path());
        settings.supervision.hang_after = PATIENCE;
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        let mut log = client(&node).await;
        log.produce_once(one_record("before")).await.unwrap();
        let recorders = node.hub().recorders();
        let raft = recorders.iter().find(|recorder| &**recorder.path_text() == RAFT).unwrap();
        raft.plan(Some("Propose"), Mishap::Delay(Duration::from_secs(2)), 1);
        let asked = actix_rt::spawn(async move { log.produce_once(one_record("slow")).await });
        until("its handler runs", || raft.reading().handling.is_some()).await;

        let body = get(node.http_addr(), "/observe/tree?pattern=raft").await;
        let tree: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(place(&tree, RAFT)["handling"]["message"], "Propose", "{tree}");
        assert!(raft.reading().handling.is_some(), "the answer came while it hung");
        assert!(node.observer().tree(None).is_ok());
        asked.await.unwrap().unwrap();

        // The same seam, without a network.
        let acted = node.observer().act(Action::Restart, "raft".into(), "a test".into()).await;
        assert_eq!(acted.unwrap().path, RAFT);
        node.shutdown(Duration::from_secs(5)).await;
    });
}

async fn get(addr: std::net::SocketAddr, target: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").expect("a whole answer").1.to_owned()
}
