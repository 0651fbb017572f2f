//! `/metrics` of a live node against the catalogue, the documentation and the dashboard.

use crate::harness::binary::{Binary, http, run};
use crate::harness::{PATIENCE, on_a_system, settings, silent, until};
use duramen::actors::partition::{PartitionApi, PartitionState, ProduceError};
use duramen::model::{Record, Timestamp};
use duramen::node::Node;
use duramen::observe::metrics::catalogue::{CATALOGUE, Family, Kind, markdown};
use duramen::supervision::{ActorPath, Fault};
use prometheus_parse::{Scrape, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Set to anything, it writes the documentation anew.
const REWRITE: &str = "DURAMEN_REWRITE_DOCS";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn scrape(addr: &str) -> (String, Scrape) {
    let (status, text) = http(addr, "GET", "/metrics", "");
    assert_eq!(status, 200);
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let parsed = Scrape::parse(lines).expect("Prometheus' text format");
    (text, parsed)
}

/// Names of families, as the exposition declares them.
fn families(text: &str) -> BTreeSet<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

/// The sum over all series of a metric with these labels.
fn sum(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = scrape.samples.iter().filter(|sample| {
        sample.metric == name
            && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
    });
    let values = samples.map(|sample| match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        Value::Histogram(buckets) => buckets.iter().map(|b| b.count).fold(0.0, f64::max),
        Value::Summary(_) => panic!("{name} is a summary"),
    });
    values.sum()
}

#[test]
fn what_a_live_node_shows_is_the_catalogue_and_counts_what_clients_did() {
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(directory.path());
    let (_, before) = scrape(&node.http);
    let produced = run(&["produce", "--batch", "1", "--rpc-addr", &node.rpc], b"a\nb\nc\n");
    assert!(produced.status.success(), "{produced:?}");
    let (status, _) = node.http("POST", "/v1/topics/log/records", "{\"records\":[{}]}");
    assert_eq!(status, 200);
    let (status, _) = node.http("POST", "/v1/topics/log/records", "nonsense");
    assert_eq!(status, 400);

    let (text, after) = scrape(&node.http);
    // This node has no peers to count for, copies nothing, and has no certificate.
    let of_peers = |family: &Family| {
        family.labels.contains(&"node")
            || family.name.starts_with("duramen_mirror_")
            || family.name.starts_with("duramen_tls_certificate_")
    };
    let shown = || CATALOGUE.iter().filter(|family| !of_peers(family));
    let catalogue: BTreeSet<&str> = shown().map(|family| family.name).collect();
    assert_eq!(families(&text), catalogue);
    for family in shown() {
        let kind = format!("# TYPE {} {}\n", family.name, family.kind.name());
        let help = format!("# HELP {} {}\n", family.name, family.help);
        assert!(text.contains(&kind) && text.contains(&help), "{}", family.name);
    }
    let grew =
        |name, labels: &[(&str, &str)]| sum(&after, name, labels) - sum(&before, name, labels);
    let request = |method, outcome| {
        grew("duramen_requests_total", &[("method", method), ("outcome", outcome)])
    };
    assert_eq!(request("produce", "ok"), 3.0);
    assert_eq!((request("append", "ok"), request("append", "invalid")), (1.0, 1.0));
    assert_eq!(grew("duramen_request_duration_seconds", &[("method", "produce")]), 3.0);
    assert_eq!(grew("duramen_log_appended_records_total", &[]), 4.0);
    assert_eq!(grew("duramen_log_end_offset", &[("topic", "log")]), 4.0);
    let flushes = grew("duramen_flush_duration_seconds", &[]);
    assert!((1.0..=4.0).contains(&flushes), "{flushes} flushes");
    // The controller's group proposes as well.
    let proposed =
        grew("duramen_actor_messages_total", &[("actor", "raft"), ("message", "Propose")]);
    assert!((4.0..=8.0).contains(&proposed), "{proposed} proposals");
    assert!(grew("duramen_network_received_bytes_total", &[("protocol", "grpc")]) > 100.0);
    assert!(grew("duramen_network_sent_bytes_total", &[("protocol", "http")]) > 1000.0);
    assert_eq!(sum(&after, "duramen_partition_state", &[("state", "serving")]), 1.0);
    assert!(sum(&after, "process_resident_memory_bytes", &[]) > f64::from(1 << 20));
    assert_eq!(sum(&after, "duramen_connections_open", &[("protocol", "http")]), 1.0);
}

#[test]
fn labels_are_those_of_the_catalogue_and_name_kinds_of_actors_only() {
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(directory.path());
    let (_, scrape) = scrape(&node.http);
    assert!(scrape.samples.len() > 100);
    for sample in &scrape.samples {
        // The parser takes the parts of a histogram for samples of their own.
        let part = ["_sum", "_count"].iter().find_map(|end| sample.metric.strip_suffix(end));
        let family = CATALOGUE.iter().find(|family| {
            family.name == sample.metric
                || family.kind == Kind::Histogram && Some(family.name) == part
        });
        let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
        let family = family.unwrap_or_else(|| panic!("{} is a family", sample.metric));
        assert_eq!(labels, family.labels.iter().copied().collect(), "{}", family.name);
        let actor = sample.labels.get("actor").unwrap_or_default();
        let kinds = [
            "",
            "log",
            "raft",
            "flush",
            "grpc",
            "http",
            "housekeeping",
            "planter",
            "access",
            "audit",
            "catalogue",
            "formation",
            "gossip",
        ];
        assert!(kinds.contains(&actor), "{} of actor {actor}", family.name);
    }
}

#[test]
fn the_documentation_is_made_from_the_catalogue() {
    let path = in_repository("docs/metrics.md");
    let made = format!(
        "# Metrics\n\n\
         A node shows these at `GET /metrics` on its HTTP port (Prometheus' text format), and sends\n\
         the same to an OpenTelemetry collector where `telemetry.otlp_endpoint` names one. Units are\n\
         UCUM's: `s` seconds, `By` bytes, `{{record}}` a count of records. Counters begin at 0 when the\n\
         node starts. `actor` is the kind of an actor, the last step of its path.\n\n\
         The dashboard in `deploy/grafana/duramen.json` shows them.\n\n\
         {}",
        markdown()
    );
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, made, "stale: {REWRITE}=1 cargo test --test it telemetry::metrics");
}

#[test]
fn a_crash_is_counted_by_kind_of_actor_and_reason_and_refusals_by_their_reason() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Node::start(&settings(directory.path()), silent()).unwrap();
        node.ready().await;
        let addr = node.http_addr().to_string();
        let read = move || {
            let addr = addr.clone();
            tokio::task::spawn_blocking(move || scrape(&addr).1)
        };
        let before = read().await.unwrap();
        let crash = [("actor", "raft"), ("reason", "panic")];
        assert_eq!(sum(&before, "duramen_actor_exits_total", &crash), 0.0);
        let raft = ActorPath::from("node/partitions/log/0/raft");
        node.tree().inject(&raft, Fault::Panic("on purpose".into())).await.unwrap();
        let refused = async || {
            let proposed = node.log().propose_records(vec![Record::of_value("x", Timestamp(1))]);
            matches!(proposed, Err(ProduceError::Restarting { .. }))
        };
        let deadline = Instant::now() + PATIENCE;
        while !refused().await {
            assert!(Instant::now() < deadline, "the partition is never between two lives");
            tokio::task::yield_now().await;
        }
        let serves_again = || {
            let status = node.log().describe();
            status.restarts == 1 && status.state == PartitionState::Serving
        };
        until("it serves again", serves_again).await;
        let after = read().await.unwrap();
        assert_eq!(sum(&after, "duramen_actor_exits_total", &crash), 1.0);
        for actor in ["raft", "log"] {
            let restarts = sum(&after, "duramen_actor_restarts_total", &[("actor", actor)]);
            assert_eq!(restarts, 1.0, "{actor}");
        }
        let restarting = [("reason", "restarting")];
        assert_eq!(sum(&before, "duramen_refused_requests_total", &restarting), 0.0);
        assert!(sum(&after, "duramen_refused_requests_total", &restarting) >= 1.0);
        node.shutdown(Duration::from_secs(5)).await;
    });
}

/// Words of an expression that look like metrics of the node.
fn metrics_named(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("duramen_") || word.starts_with("process_")).collect()
}

fn expressions<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&name.as_str()) => {
                        found.push(text);
                    }
                    _ => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| expressions(item, found));
        }
        _ => {}
    }
}

fn unknown_metrics(dashboard: &str) -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let named: Vec<&str> = found.into_iter().flat_map(metrics_named).collect();
    assert!(named.len() > 10, "a dashboard over {} metrics", named.len());
    let is_known = |name: &&str| {
        let bare = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        CATALOGUE.iter().any(|family| family.name == *name || Some(family.name) == bare)
    };
    named.into_iter().filter(|name| !is_known(name)).map(str::to_owned).collect()
}

#[test]
fn the_dashboard_names_only_metrics_that_are_there() {
    let text = std::fs::read_to_string(in_repository("deploy/grafana/duramen.json")).unwrap();
    assert_eq!(unknown_metrics(&text), Vec::<String>::new());
    let wrong = text.replace("duramen_requests_total", "duramen_request_total");
    assert!(unknown_metrics(&wrong).contains(&"duramen_request_total".to_owned()));
}
