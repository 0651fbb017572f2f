// A crash leaves a report beside the data that tells what happened, holds nothing of a user's, and
// does not fill the disk.

use crate::harness::binary::run;
use crate::harness::{Lines, client, on_a_system, one_record, settings, silent, until};
use duramen::actors::partition::PartitionState;
use duramen::model::SystemClock;
use duramen::node::{Node, Surroundings};
use duramen::observe::{CrashSink, Hub, HubLimits, Mishap};
use duramen::ops::crash::{self, CrashStore};
use duramen::ops::logger;
use duramen::ops::settings::{LogFormat, Settings};
use duramen::supervision::{
    ActorPath, Backoff, ChildSpec, Environment, Exhausted, Fault, Intensity, Place, State,
    Strategy, Supervisor, SupervisorSpec,
};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const RAFT: &str = "node/partitions/log/0/raft";
const CANARY: &str = "user-bytes-that-nobody-else-may-see";

fn plan(node: &Node, path: &str, message: Option<&str>, mishap: Mishap) {
    let recorders = node.hub().recorders();
    let recorder = recorders.iter().find(|recorder| &**recorder.path_text() == path);
    recorder.unwrap_or_else(|| panic!("no recorder of {path}")).plan(message, mishap, 1);
}

/// The reports of a directory, the oldest first.
fn reports(data_dir: &Path) -> Vec<Value> {
    let directory = crash::directory(data_dir);
    let listed = crash::list(&directory).unwrap();
    let read = |name: &str| crash::read(&directory, name).unwrap();
    listed.iter().map(|listed| serde_json::from_str(&read(&listed.name)).unwrap()).collect()
}

async fn written(node: &Node, count: usize) {
    until("the reports are written", || {
        node.crashes().is_idle() && node.crashes().counts().written >= count as u64
    })
    .await;
}

fn cli(arguments: &[&str], data_dir: &Path) -> String {
    let data_dir = data_dir.to_str().unwrap();
    let output = run(&[arguments, &["--data-dir", data_dir]].concat(), b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_panic_in_a_handler_is_told_with_the_messages_before_it_and_without_a_users_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (lines, data_dir) = (Lines::default(), directory.path());
    let (logger, handle) = logger::start_on(
        lines.clone(),
        LogFormat::Json,
        "trace".parse().unwrap(),
        Arc::new(SystemClock::new()),
    );
    on_a_system(async {
        let surroundings =
            Surroundings { log_control: Some(handle.control()), ..Surroundings::of(logger) };
        let node = Node::start_with(&settings(data_dir), surroundings).unwrap();
        assert_eq!(node.ready().await, PartitionState::Serving);
        let mut client = client(&node).await;
        for _ in 0..5 {
            client.produce_once(one_record(CANARY)).await.unwrap();
        }
        assert!(!crash::directory(data_dir).exists(), "nothing has crashed");
        assert_eq!(cli(&["crash", "list"], data_dir), "{\"reports\":[]}\n");

        plan(&node, RAFT, Some("Pump"), Mishap::Panic("injected".into()));
        client.produce_once(one_record(CANARY)).await.unwrap_err();
        written(&node, 1).await;

        let listed: Value = serde_json::from_str(&cli(&["crash", "list"], data_dir)).unwrap();
        assert_eq!(listed["reports"].as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed["reports"][0]["path"], RAFT);
        node.shutdown(Duration::from_secs(2)).await;
    });
    drop(handle);

    // The node is gone; the report is not.
    let report: Value = serde_json::from_str(&cli(&["crash", "show"], data_dir)).unwrap();
    assert_eq!((&report["path"], &report["generation"]), (&RAFT.into(), &1.into()));
    assert_eq!((&report["event"], &report["reason"]["kind"]), (&"exit".into(), &"panic".into()));
    assert!(report["reason"]["text"].as_str().unwrap().ends_with("injected"), "{report}");
    let location = report["reason"]["location"].as_str().unwrap();
    assert!(location.contains("supervision/envelope.rs:"), "{location}");
    let frames = report["reason"]["backtrace"].as_array().unwrap();
    let ours = |frame: &&Value| frame["function"].as_str().unwrap().contains("duramen::");
    assert!(frames.iter().any(|frame| ours(&frame)), "{frames:#?}");
    assert_eq!(report["in_hand"]["message"], "Pump");
    assert!(report["in_flight"].as_u64().unwrap() >= 1, "the record that was being produced");
    assert_eq!(report["exits"].as_array().unwrap().last().unwrap()["kind"], "panic");
    let paths: Vec<_> =
        report["recorders"].as_array().unwrap().iter().map(|r| &r["path"]).collect();
    let worker = "node/partitions/log/0/log/flush";
    assert_eq!(paths[0], RAFT, "its own messages come first");
    assert!(paths.iter().any(|path| **path == worker), "its fault domain's too: {paths:?}");
    let flush = report["recorders"].as_array().unwrap().iter().find(|r| r["path"] == worker);
    for waits in [&report["recorders"][0]["wait"], &flush.unwrap()["wait"]] {
        assert!(waits["for"].is_string() && waits["since_ns"].is_u64(), "{waits}");
    }
    let messages = report["recorders"][0]["messages"].as_array().unwrap();
    let last = messages.last().unwrap();
    assert_eq!((&last["message"], &last["outcome"]), (&"Pump".into(), &"panicked".into()));
    assert_eq!(last["id"], report["in_hand"]["id"]);
    let proposals = messages.iter().filter(|message| message["message"] == "Propose");
    let answered = proposals.filter(|proposal| proposal["answer"] == "ok").count();
    assert_eq!(answered, 5, "what went well before it: {messages:#?}");
    assert_eq!(report["config"]["log.durability"], "fsync");
    assert_eq!(report["build"]["version"], env!("CARGO_PKG_VERSION"));

    let lines = lines.text();
    assert!(lines.contains("\"message\":\"Append\""), "the most detailed level was on");
    assert!(lines.contains("a crash report was written"), "{lines}");
    for text in [&lines, &report.to_string()] {
        assert!(!text.contains(CANARY));
        assert!(!text.contains(&format!("{:?}", CANARY.as_bytes())[1..60]), "nor as numbers");
    }
    assert!(stores(data_dir, CANARY), "the search would have found it: it is in the log");
}

/// Whether a file of the log holds this.
fn stores(data_dir: &Path, text: &str) -> bool {
    let log = std::fs::read_dir(data_dir.join("partitions/log/0")).unwrap();
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    log.map(|entry| entry.unwrap().path()).any(|path| path.is_file() && holds(&path))
}

#[test]
fn a_quarantine_has_a_report_with_the_exits_that_led_to_it() {
    on_a_system(async {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.supervision.restarts_max = 0;
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        node.tree().inject(&RAFT.into(), Fault::Panic("too much".into())).await.unwrap();
        written(&node, 2).await;
        let reports = reports(directory.path());
        let of = |event| reports.iter().find(|report| report["event"] == event).unwrap();
        let quarantine = of("quarantine");
        assert_eq!(quarantine["path"], "node/partitions/log/0");
        assert!(quarantine["reason"]["text"].as_str().unwrap().contains("too much"));
        let exits = quarantine["exits"].as_array().unwrap();
        assert!(exits.iter().any(|exit| exit["path"] == RAFT && exit["kind"] == "panic"));
        assert_eq!(of("exit")["path"], RAFT);
        node.shutdown(settings.shutdown.grace).await;
    });
}

#[test]
fn a_panic_of_a_worker_is_told_in_its_actors_report_with_the_way_there() {
    on_a_system(async {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        let worker = "node/partitions/log/0/log/flush";
        let mut client = client(&node).await;
        // From here on only clients have something written.
        client.produce_once(one_record("first")).await.unwrap();
        plan(&node, worker, Some("Write"), Mishap::Panic("injected".into()));
        client.produce_once(one_record("x")).await.unwrap_err();
        written(&node, 1).await;
        let reports = reports(directory.path());
        assert_eq!((reports.len(), &reports[0]["path"]), (1, &"node/partitions/log/0/log".into()));
        let reason = &reports[0]["reason"];
        assert!(reason["text"].as_str().unwrap().ends_with("flush thread: injected"), "{reason}");
        assert!(reason["location"].as_str().unwrap().contains("actors/log/jobs.rs"), "{reason}");
        assert!(reason["backtrace"].as_array().unwrap().len() > 1);
        let recorders = reports[0]["recorders"].as_array().unwrap();
        let flush = recorders.iter().find(|recorder| recorder["path"] == worker).unwrap();
        let last = flush["messages"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["message"], &last["outcome"]), (&"Write".into(), &"panicked".into()));
        node.shutdown(settings.shutdown.grace).await;
    });
}

#[test]
fn a_hang_is_told_with_the_message_that_hangs_and_bystanders_have_no_report() {
    on_a_system(async {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.supervision.hang_after = Duration::from_millis(200);
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        plan(&node, RAFT, Some("Pump"), Mishap::Delay(Duration::from_secs(5)));
        let mut client = client(&node).await;
        // Its connection is on the thread that is given up.
        client.produce_once(one_record("x")).await.unwrap_err();
        written(&node, 1).await;
        until("the partition serves again", || {
            let status = node.tree().status();
            status.find(&ActorPath::from(RAFT)).unwrap().state == State::Running
        })
        .await;
        let reports = reports(directory.path());
        let hung: Vec<_> = reports.iter().map(|report| &report["reason"]["kind"]).collect();
        assert_eq!(hung, ["hung"], "not the others of the thread");
        assert_eq!(
            (&reports[0]["path"], &reports[0]["in_hand"]["message"]),
            (&RAFT.into(), &"Pump".into())
        );
        let messages = reports[0]["recorders"][0]["messages"].as_array().unwrap();
        assert_eq!(messages.last().unwrap()["outcome"], "handling");
        node.shutdown(settings.shutdown.grace).await;
    });
}

struct Idle;

impl actix::Actor for Idle {
    type Context = actix::Context<Self>;
}

#[test]
fn a_storm_of_crashes_leaves_few_reports_and_each_crash_is_counted() {
    const CRASHES: u64 = 300;
    on_a_system(async {
        let directory = tempfile::tempdir().unwrap();
        let mut settings: Settings = settings(directory.path());
        settings.crash.reports_max = 2;
        let store = CrashStore::new(&settings, silent());
        let environment = Environment {
            clock: Arc::new(SystemClock::new()),
            seed: 1,
            logger: silent(),
            hub: Hub::new(silent(), None, HubLimits::default()),
            crashes: Some(Arc::clone(&store) as Arc<dyn CrashSink>),
        };
        let spec = SupervisorSpec {
            intensity: Intensity { restarts_max: 1_000_000, window: Duration::from_secs(60) },
            ..SupervisorSpec::new("root", Strategy::OneForOne, Exhausted::Escalate)
        };
        let root = Supervisor::new(spec, environment);
        let backoff = Backoff { min: Duration::ZERO, max: Duration::ZERO, jitter: 0.0 };
        let spec = ChildSpec { backoff, ..ChildSpec::new("idle") };
        let idle = root.child(spec, Place::Control, |_, _| Idle);
        let tree = root.start();
        tree.ready().await.unwrap();
        let life = || {
            let status = tree.status();
            let place = status.find(idle.path()).unwrap();
            (place.state == State::Running).then_some(place.generation)
        };
        for crash in 1..=CRASHES {
            until("it lives", || life() == Some(crash)).await;
            tree.inject(idle.path(), Fault::Panic("storm".into())).await.unwrap();
        }
        until("it lives again", || life() == Some(CRASHES + 1)).await;
        until("all is written", || store.is_idle()).await;
        let counts = store.counts();
        assert_eq!(counts.written + counts.suppressed, CRASHES, "{counts:?}");
        assert!((1..=CRASHES / 2).contains(&counts.written), "{counts:?}");
        assert!(reports(directory.path()).len() <= 2);
        tree.shutdown().await.unwrap();
    });
}
