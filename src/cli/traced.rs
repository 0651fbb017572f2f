//! The span of a client command, where the environment names a collector: the root of the traces
//! that its requests leave on nodes.

use crate::cli::Failure;
use crate::model::Clock;
use crate::observe::{Attribute, TraceContext, Tracer};
use crate::ops::telemetry::{Telemetry, TelemetryOptions};
use slog::{Logger, o};
use std::sync::Arc;
use std::time::Duration;

/// OpenTelemetry's own name for where a collector is.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// How long a command waits for its collector at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Traced {
    telemetry: Telemetry,
    tracer: Tracer,
    place: TraceContext,
    since: Duration,
}

impl Traced {
    /// Begins a span; `None` where nobody wants it.
    pub fn begin(clock: &Arc<dyn Clock>) -> Option<Self> {
        let endpoint = std::env::var(ENDPOINT_VARIABLE).ok().filter(|text| !text.is_empty())?;
        let options = TelemetryOptions {
            otlp_endpoint: Some(endpoint),
            debug_dir: None,
            metrics_interval: Duration::from_secs(3600),
            instance: "cli".into(),
        };
        let logger = Logger::root(slog::Discard, o!());
        let started = Telemetry::start(&options, Arc::default(), Arc::clone(clock), logger);
        let telemetry = match started {
            Ok(telemetry) => telemetry,
            Err(error) => {
                eprintln!("warning: nothing is traced: {error}");
                return None;
            }
        };
        let tracer = Tracer::new(telemetry.sink(), 1.0, seed(), Arc::clone(clock));
        let place = tracer.root()?;
        let since = tracer.now();
        Some(Self { telemetry, tracer, place, since })
    }

    /// What is sent with requests.
    pub fn traceparent(&self) -> String {
        self.place.to_string()
    }

    /// Ends the span, and waits a moment for it to be exported.
    pub async fn end(
        self,
        name: &'static str,
        attributes: Vec<(&'static str, Attribute)>,
        failure: Option<&Failure>,
    ) {
        let error = failure.map(|failure| failure.error.clone().into());
        self.tracer.client(name, self.place, self.since, attributes, error);
        self.telemetry.shutdown(FAREWELL).await;
    }
}

fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}
