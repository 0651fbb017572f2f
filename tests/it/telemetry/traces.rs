//! Traces, from a client to the flush; and what becomes of them when nobody takes them.

use super::collector::Collector;
use crate::harness::binary::{self, Binary, EXE, signal_to};
use crate::harness::{PATIENCE, client, on_a_system, one_record, settings, silent};
use duramen::node::Node;
use duramen::observe::metrics::catalogue::CATALOGUE;
use duramen::ops::settings::{Settings, fields};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tonic::Request;

const TRACE_ID: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn exporting_to(endpoint: &str, directory: &Path) -> Settings {
    let mut settings = settings(directory);
    let field = fields::find("telemetry.otlp_endpoint").unwrap();
    assert!((field.set)(&mut settings, endpoint));
    settings.telemetry.traces_ratio = 0.0;
    settings.telemetry.metrics_interval = Duration::from_millis(100);
    settings
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    let [span] = found[..] else { panic!("one span {name}, not {} of {spans:#?}", found.len()) };
    span
}

#[test]
fn one_trace_spans_client_front_end_log_and_flush() {
    let collector = Collector::start();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("node.toml");
    let section = format!("[telemetry]\notlp_endpoint = \"{}\"\n", collector.endpoint);
    std::fs::write(&config, section).unwrap();
    let data_dir = directory.path().join("data");
    let node = Binary::start_with(&data_dir, &["--config", config.to_str().unwrap()]);
    let lines = directory.path().join("lines");
    std::fs::write(&lines, "a line\n").unwrap();
    let produced = Command::new(EXE)
        .args(["produce", "--rpc-addr", &node.rpc, "-f"])
        .arg(&lines)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .output()
        .unwrap();
    assert!(produced.status.success(), "{produced:?}");
    // Stopped in order, the node has exported all that it had.
    assert!(node.stop("TERM").success());

    let all = collector.spans();
    let root = one(&all, "duramen produce");
    assert!(root.parent_span_id.is_empty());
    // Beside the request the client asks where things are.
    let is_of_it =
        |span: &&Span| span.trace_id == root.trace_id && !span.name.ends_with("/Metadata");
    let spans: Vec<Span> = all.iter().filter(is_of_it).cloned().collect();
    let request = one(&spans, "duramen.v1.Log/Produce");
    let append = one(&spans, "append");
    assert_eq!(request.parent_span_id, root.span_id);
    for name in ["queue", "append", "commit"] {
        assert_eq!(one(&spans, name).parent_span_id, request.span_id, "{name}");
    }
    assert_eq!(one(&spans, "flush").parent_span_id, append.span_id);
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| &span.span_id[..]).collect();
    assert_eq!((ids.len(), spans.len()), (6, 6), "{spans:#?}");
    for span in &spans {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano && span.status.is_none());
    }
    let within = |inner: &Span, outer: &Span| {
        outer.start_time_unix_nano <= inner.start_time_unix_nano
            && inner.end_time_unix_nano <= outer.end_time_unix_nano
    };
    assert!(within(one(&spans, "flush"), append) && within(append, request));
    let attributes = &one(&spans, "flush").attributes;
    let keys: BTreeSet<&str> = attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, BTreeSet::from(["duramen.bytes", "duramen.durability", "duramen.records"]));
}

#[test]
fn requests_that_share_a_flush_each_have_it_in_their_trace() {
    let collector = Collector::start();
    let directory = tempfile::tempdir().unwrap();
    let settings = exporting_to(&collector.endpoint, directory.path());
    on_a_system(async {
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        let client = client(&node).await;
        let calls = (0..8).map(|_| {
            let mut client = client.clone();
            let mut request = Request::new(one_record("x"));
            request.metadata_mut().insert("traceparent", SAMPLED.parse().unwrap());
            async move { client.produce_once(request).await.unwrap() }
        });
        futures_util::future::join_all(calls).await;
        node.shutdown(Duration::from_secs(5)).await;
    });
    let spans = collector.spans();
    let flushes: BTreeSet<&[u8]> =
        named(&spans, "flush").iter().map(|span| &span.parent_span_id[..]).collect();
    let appends: BTreeSet<&[u8]> =
        named(&spans, "append").iter().map(|span| &span.span_id[..]).collect();
    assert_eq!((appends.len(), flushes), (8, appends));
}

#[test]
fn the_caller_decides_whether_a_call_is_traced() {
    let collector = Collector::start();
    let directory = tempfile::tempdir().unwrap();
    let settings = exporting_to(&collector.endpoint, directory.path());
    on_a_system(async {
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        let mut client = client(&node).await;
        for (count, traceparent) in [(3, NOT_SAMPLED), (2, "nonsense"), (1, SAMPLED)] {
            for _ in 0..count {
                let mut request = Request::new(one_record("x"));
                request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
                client.produce_once(request).await.unwrap();
            }
        }
        post_with(node.http_addr(), SAMPLED).await;
        node.shutdown(Duration::from_secs(5)).await;
    });
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace_id == TRACE_ID.to_be_bytes()), "{spans:#?}");
    let caller = 0xb7ad_6b71_6920_3331_u64.to_be_bytes();
    for name in ["duramen.v1.Log/ProduceOnce", "POST /v1/topics/{topic}/records"] {
        assert_eq!(one(&spans, name).parent_span_id, caller, "{name}");
    }
    assert_eq!((named(&spans, "flush").len(), spans.len()), (2, 10));
    // This node has no peers to count for, copies nothing, and has no certificate.
    let shown = CATALOGUE.iter().filter(|family| {
        !family.labels.contains(&"node")
            && !family.name.starts_with("duramen_mirror_")
            && !family.name.starts_with("duramen_tls_certificate_")
    });
    let catalogue: BTreeSet<String> = shown.map(|family| family.name.to_owned()).collect();
    assert_eq!(collector.metrics(), catalogue, "the collector gets all metrics, too");
}

async fn post_with(addr: std::net::SocketAddr, traceparent: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let body = "{\"records\":[{}]}";
    let request = format!(
        "POST /v1/topics/log/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         traceparent: {traceparent}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = exporting_to(&format!("http://{free}"), directory.path());
    on_a_system(async {
        let node = Node::start(&settings, silent()).unwrap();
        node.ready().await;
        let mut client = client(&node).await;
        for _ in 0..20 {
            let mut request = Request::new(one_record("x"));
            request.metadata_mut().insert("traceparent", SAMPLED.parse().unwrap());
            client.produce_once(request).await.unwrap();
        }
        let addr = node.http_addr().to_string();
        let dropped = move || {
            let (_, text) = binary::http(&addr, "GET", "/metrics", "");
            let line = "duramen_telemetry_dropped_spans_total ";
            let value = text.lines().find_map(|found| found.strip_prefix(line)).unwrap();
            value.parse::<f64>().unwrap()
        };
        // Five spans each. Asked from another thread: the HTTP front end lives on this one.
        let deadline = Instant::now() + PATIENCE;
        let counted = tokio::task::spawn_blocking(move || {
            while dropped() < 100.0 {
                assert!(Instant::now() < deadline, "{} spans dropped", dropped());
                std::thread::sleep(Duration::from_millis(20));
            }
            dropped()
        });
        assert_eq!(counted.await.unwrap(), 100.0);
        node.shutdown(Duration::from_secs(5)).await;
    });
}

#[test]
fn a_client_whose_collector_is_away_says_so_and_appends_all_the_same() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(&directory.path().join("data"));
    let lines = directory.path().join("lines");
    std::fs::write(&lines, "a line\n").unwrap();
    let produced = Command::new(EXE)
        .args(["produce", "--rpc-addr", &node.rpc, "-f"])
        .arg(&lines)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{free}"))
        .output()
        .unwrap();
    assert!(produced.status.success() && node.high_watermark() == 1);
    let told = String::from_utf8_lossy(&produced.stderr);
    assert!(told.contains("the trace was not exported"), "{told}");
}

#[test]
fn a_node_without_telemetry_has_no_thread_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = Binary::start(&directory.path().join("binary"));
    assert!(!threads(node.pid()).contains("duramen-telemet"), "{:?}", threads(node.pid()));
    let debugged = directory.path().join("debugged");
    let files = directory.path().join("files");
    std::fs::write(
        directory.path().join("node.toml"),
        format!("[telemetry]\ndebug_dir = \"{}\"\n", files.display()),
    )
    .unwrap();
    let config = directory.path().join("node.toml");
    let node = Binary::start_with(&debugged, &["--config", config.to_str().unwrap()]);
    assert!(threads(node.pid()).contains("duramen-telemet"), "{:?}", threads(node.pid()));
}

/// Names of a process's threads, as far as the system keeps them.
fn threads(pid: u32) -> BTreeSet<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    names.map(|name| name.unwrap().trim().to_owned()).collect()
}

#[test]
fn the_debug_flag_leaves_files_of_metrics_and_traces_with_content() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let data_dir = directory.path().join("data");
    let mut server = binary::serve(&data_dir, &["--debug"])
        .env("TMPDIR", &temporary)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ports = data_dir.join("ports.json");
    let deadline = Instant::now() + PATIENCE;
    let rpc = loop {
        let text = std::fs::read_to_string(&ports).unwrap_or_default();
        if let Ok(ports) = serde_json::from_str::<serde_json::Value>(&text) {
            break ports["rpc"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "the node was not ready in time");
        std::thread::sleep(Duration::from_millis(2));
    };
    let produced = binary::run(&["produce", "--rpc-addr", &rpc], b"a secret\n");
    assert!(produced.status.success());
    signal_to(server.id(), "TERM");
    assert!(server.wait().unwrap().success());
    let content = |prefix: &str| -> String {
        let files = std::fs::read_dir(&temporary).unwrap().map(|file| file.unwrap().path());
        let mut ours = files.filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(prefix) && name.ends_with(".log")
        });
        let text = std::fs::read_to_string(ours.next().expect(prefix)).unwrap();
        assert!(ours.next().is_none());
        text
    };
    let (metrics, traces) = (content("metrics-"), content("traces-"));
    assert!(metrics.contains("duramen_log_appended_records_total"), "{metrics}");
    for name in ["duramen.v1.Log/Produce", "queue", "append", "flush", "commit"] {
        assert!(traces.contains(&format!("\"name\":\"{name}\"")), "{name} is not in {traces}");
    }
    for line in metrics.lines().chain(traces.lines()) {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    assert!(!traces.contains("secret") && !metrics.contains("secret"));
}
