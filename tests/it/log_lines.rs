// What a node logs, message by message, and how that is changed while it runs.

use crate::harness::binary::{Binary, run, signal_to};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

const LOG: &str = "node/partitions/log/0/log";
const CANARY: &str = "user-bytes-that-nobody-else-may-see";

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains(CANARY), "what users store is not logged");
    // The last may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait_for(file: &Path, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(line) = lines(file).into_iter().find(|line| is_it(line)) {
            return line;
        }
        assert!(Instant::now() < deadline, "no line: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn actor(line: &Value) -> &str {
    line["actor"].as_str().unwrap_or_default()
}

fn produce(node: &Binary) {
    let output = run(&["produce", "log", "--rpc-addr", &node.rpc], CANARY.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn levels_hold_for_actors_messages_and_libraries_and_change_with_sighup() {
    let directory = tempfile::tempdir().unwrap();
    let (config, log) = (directory.path().join("node.toml"), directory.path().join("log"));
    let spec = |spec: &str| {
        std::fs::write(&config, format!("[logger]\nspec = \"{spec}\"\nformat = \"json\"\n"))
            .unwrap();
    };
    spec("info,partitions/*/log:trace,*/Report:off");
    let flags = ["--config", config.to_str().unwrap()];
    let data_dir = directory.path().join("data");
    let node = Binary::start_logging_to(&data_dir, &flags, File::create(&log).unwrap());

    produce(&node);
    // A client's mistakes are told without what it sent, whichever door they come by.
    let body = format!(r#"{{"records":[{{"{CANARY}":1}}]}}"#);
    let query = format!("/v1/topics/log/records?{CANARY}=1");
    let offset = format!(r#"{{"record":{{"offset":"{CANARY}"}}}}"#);
    for (method, path, body) in
        [("POST", "/v1/topics/log/records", &*body), ("POST", "/", &*offset), ("GET", &*query, "")]
    {
        let (status, told) = node.http(method, path, body);
        assert!(status == 400 && told.contains(CANARY), "the client is told all: {told}");
    }
    wait_for(&log, "the mistake", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("no such request (line 1"))
    });
    let mut stream = TcpStream::connect(&node.http).unwrap();
    stream.write_all(format!("{CANARY}\r\n\r\n").as_bytes()).unwrap();
    let mistake = "it does not speak HTTP/1.1";
    let deadline = Instant::now() + Duration::from_secs(20);
    let told = loop {
        let (_, told) = node.http("GET", "/observe/explain", "");
        if told.contains(mistake) {
            break told;
        }
        assert!(Instant::now() < deadline, "not noted: {told}");
    };
    assert!(told.contains("bad_client") && !told.contains(CANARY), "{told}");

    let append = wait_for(&log, "an append", |line| line["message"] == "Append");
    assert_eq!((actor(&append), &append["level"]), (LOG, &"trace".into()));
    assert_eq!((&append["msg"], &append["outcome"]), (&"message".into(), &"done".into()));
    for field in ["id", "cause", "elapsed_us"] {
        assert!(append[field].is_u64(), "{field} of {append}");
    }
    assert!(append["shown"].as_str().unwrap().starts_with("Append("), "{append}");
    let all = lines(&log);
    assert!(!all.iter().any(|line| line["message"] == "Report"), "its own level is off");
    assert!(!all.iter().any(|line| line["message"] == "Propose"), "of another actor");
    assert!(!all.iter().any(|line| actor(line).starts_with("library/")), "they are not named");

    spec("info,*/Propose:trace,library/h2:debug");
    signal_to(node.pid(), "HUP");
    wait_for(&log, "the reload", |line| line["taken_over"] == "logger.spec");
    produce(&node);
    let line = wait_for(&log, "a library's", |line| actor(line).starts_with("library/h2/"));
    assert_eq!(line["level"], "debug");
    // The controller's group has proposals of its own.
    wait_for(&log, "the proposal", |line| {
        line["message"] == "Propose" && actor(line) == "node/partitions/log/0/raft"
    });

    spec("info");
    signal_to(node.pid(), "HUP");
    let reloads = |line: &&Value| line["taken_over"] == "logger.spec";
    let deadline = Instant::now() + Duration::from_secs(20);
    while lines(&log).iter().filter(reloads).count() < 2 {
        assert!(Instant::now() < deadline, "no second reload");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The logger's thread is behind the others, not before them: what it had then is written first.
    let before = lines(&log).len();
    produce(&node);
    assert_eq!(node.stop("TERM").code(), Some(0));
    let after = lines(&log);
    let detailed = |line: &&Value| line["level"] == "trace" || line["level"] == "debug";
    assert_eq!(after[before..].iter().filter(detailed).count(), 0, "{:#?}", &after[before..]);
}
