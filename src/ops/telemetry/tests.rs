//! What the exporter promises: it never waits for anybody, and what is lost is counted.

use super::*;
use crate::model::SystemClock;
use crate::observe::SpanKind;
use slog::o;

fn span() -> SpanRecord {
    SpanRecord {
        name: "queue",
        kind: SpanKind::Internal,
        trace_id: 1,
        span_id: 2,
        parent_id: 3,
        start_ns: 4,
        end_ns: 5,
        attributes: vec![("duramen.bytes", 6.into())],
        error: None,
    }
}

fn start(options: &TelemetryOptions) -> (Telemetry, Arc<Metrics>) {
    let counts = Arc::<Metrics>::default();
    let logger = Logger::root(slog::Discard, o!());
    let clock = Arc::new(SystemClock::new());
    (Telemetry::start(options, Arc::clone(&counts), clock, logger).unwrap(), counts)
}

fn nowhere() -> TelemetryOptions {
    TelemetryOptions {
        otlp_endpoint: None,
        debug_dir: None,
        metrics_interval: Duration::from_secs(3600),
        instance: "a-node".into(),
    }
}

#[tokio::test]
async fn while_the_collector_is_away_every_span_is_dropped_and_counted() {
    // A port that nobody listens on: it was free, and is bound again by nobody.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = TelemetryOptions { otlp_endpoint: Some(format!("http://{free}")), ..nowhere() };
    let (telemetry, counts) = start(&options);
    let submitted = 2 * QUEUE_MAX as u64;
    for _ in 0..submitted {
        telemetry.sink().submit(span());
    }
    telemetry.shutdown(Duration::from_secs(30)).await;
    assert_eq!((counts.spans_dropped.get(), counts.spans_exported.get()), (submitted, 0));
    assert!(counts.export_failures.get() > 0);
}

#[tokio::test]
async fn files_hold_each_span_and_the_metrics_of_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let debug_dir = Some(directory.path().join("new"));
    let (telemetry, counts) = start(&TelemetryOptions { debug_dir, ..nowhere() });
    telemetry.measure(Arc::clone(&counts) as Arc<dyn Measure>);
    telemetry.sink().submit(span());
    telemetry.shutdown(Duration::from_secs(30)).await;
    assert_eq!(counts.spans_exported.get(), 1);
    let content = |prefix: &str| {
        let mut files = std::fs::read_dir(directory.path().join("new")).unwrap();
        let file = files.find_map(|file| {
            let path = file.unwrap().path();
            path.file_name()?.to_str()?.starts_with(prefix).then_some(path)
        });
        #[allow(clippy::disallowed_methods, reason = "the test reads what was written")]
        let text = std::fs::read_to_string(file.unwrap()).unwrap();
        let last = text.lines().last().unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&last).unwrap()
    };
    let traces = content("traces-");
    assert_eq!(
        (&traces["name"], &traces["parent_id"]),
        (&"queue".into(), &format!("{:016x}", 3).into())
    );
    assert_eq!(traces["attributes"]["duramen.bytes"], 6);
    assert!(!content("metrics-")["metrics"].as_array().unwrap().is_empty());
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let debug_dir = Some(PathBuf::from("/proc/nowhere"));
    let options = TelemetryOptions { debug_dir, ..nowhere() };
    let logger = Logger::root(slog::Discard, o!());
    let started = Telemetry::start(&options, Arc::default(), Arc::new(SystemClock::new()), logger);
    assert!(started.unwrap_err().to_string().contains("/proc/nowhere"));
}
