//! Spans and metrics on their way out: to an OpenTelemetry collector (OTLP over gRPC), or to files
//! for a look at both without one.
//!
//! One thread does all of it, and there is none while nothing is to be exported. Spans reach it
//! through a bounded queue; what does not fit, and what nobody takes, is dropped and counted.

mod files;
mod otlp;
pub mod process;

#[cfg(test)]
mod tests;

use crate::model::Clock;
use crate::observe::metrics::{Measure, Metrics};
use crate::observe::{SpanRecord, SpanSink};
use files::Files;
use otlp::Collector;
use slog::{Logger, debug, warn};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};

/// Spans that may wait for the exporter.
const QUEUE_MAX: usize = 4096;
/// Spans in one export.
const BATCH_MAX: usize = 512;
/// How long a span waits for others to be exported with it.
const BATCH_WAIT: Duration = Duration::from_millis(200);
/// An export that takes longer is given up.
const EXPORT_MAX: Duration = Duration::from_secs(5);

/// Where to, and as whom.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    /// A collector, `http://host:port`.
    pub otlp_endpoint: Option<String>,
    /// A directory for files; made if it is not there.
    pub debug_dir: Option<PathBuf>,
    /// Time between two exports of all metrics.
    pub metrics_interval: Duration,
    /// `service.instance.id`.
    pub instance: String,
}

impl TelemetryOptions {
    /// Whether anything is to be exported.
    pub fn is_wanted(&self) -> bool {
        self.otlp_endpoint.is_some() || self.debug_dir.is_some()
    }
}

/// Telemetry cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// No file can be written there.
    #[error(
        "cannot write metrics and traces in {directory}: choose another telemetry.debug_dir, or \
         \"none\""
    )]
    DebugDir {
        /// Where.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No thread can be started.
    #[error("cannot start a thread for telemetry")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running exporter. Dropped, it ends without waiting for anybody.
pub struct Telemetry {
    spans: Arc<SpanQueue>,
    measure: Arc<OnceLock<Arc<dyn Measure>>>,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

impl Telemetry {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`TelemetryError`]. A collector that is not there is no error: it may come.
    pub fn start(
        options: &TelemetryOptions,
        counts: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        logger: Logger,
    ) -> Result<Self, TelemetryError> {
        let files = match &options.debug_dir {
            None => None,
            Some(directory) => Some(Files::create(directory).map_err(|source| {
                TelemetryError::DebugDir { directory: directory.clone(), source }
            })?),
        };
        let collector = options.otlp_endpoint.as_ref().map(|endpoint| {
            Collector::new(endpoint, &options.instance, clock.wall().0.unsigned_abs() * 1_000_000)
        });
        let (spans, queue) = mpsc::channel(QUEUE_MAX);
        let (stop, stopping) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let measure = Arc::<OnceLock<Arc<dyn Measure>>>::default();
        let exporter = Exporter {
            queue,
            files,
            collector,
            counts: Arc::clone(&counts),
            measure: Arc::clone(&measure),
            clock,
            logger,
        };
        let interval = options.metrics_interval;
        let body = move || {
            exporter.run(interval, stopping);
            finished.send_replace(true);
        };
        let thread = std::thread::Builder::new().name("duramen-telemetry".into());
        thread.spawn(body).map_err(|source| TelemetryError::Thread { source })?;
        Ok(Self { spans: Arc::new(SpanQueue { spans, counts }), measure, stop, done })
    }

    /// Where spans go. Does not keep the exporter alive.
    pub fn sink(&self) -> Arc<dyn SpanSink> {
        Arc::clone(&self.spans) as _
    }

    /// Says where the metrics are read. Only the first time counts.
    pub fn measure(&self, measure: Arc<dyn Measure>) {
        self.measure.get_or_init(|| measure);
    }

    /// Exports what waits and all metrics once more, and ends. Waits for it for so long.
    pub async fn shutdown(&self, patience: Duration) {
        self.stop.send_replace(true);
        let mut done = self.done.clone();
        // An error says that the thread is gone, and time being up that it is given up.
        let _ = timeout(patience, done.wait_for(|done| *done)).await;
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// The way to the thread.
struct SpanQueue {
    spans: mpsc::Sender<SpanRecord>,
    counts: Arc<Metrics>,
}

impl SpanSink for SpanQueue {
    fn submit(&self, span: SpanRecord) {
        if self.spans.try_send(span).is_err() {
            self.counts.spans_dropped.one();
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

struct Exporter {
    queue: mpsc::Receiver<SpanRecord>,
    files: Option<Files>,
    collector: Option<Collector>,
    counts: Arc<Metrics>,
    measure: Arc<OnceLock<Arc<dyn Measure>>>,
    clock: Arc<dyn Clock>,
    logger: Logger,
}

impl Exporter {
    fn run(mut self, interval: Duration, stop: watch::Receiver<bool>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve(interval, stop)),
            Err(error) => warn!(self.logger, "no telemetry is exported"; "error" => %error),
        }
    }

    async fn serve(&mut self, interval: Duration, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut stop_of_batch = stop.clone();
        loop {
            tokio::select! {
                // An error says that whoever could stop it is gone: the same.
                _ = stop.wait_for(|stop| *stop) => break,
                _ = ticks.tick() => self.export_metrics().await,
                received = self.queue.recv_many(&mut batch, BATCH_MAX) => {
                    if received == 0 {
                        break;
                    }
                    // Time being up is what ends a batch that is not full.
                    let _ = timeout(BATCH_WAIT, self.fill(&mut batch, &mut stop_of_batch)).await;
                    self.export_spans(&mut batch).await;
                }
            }
        }
        self.queue.close();
        while self.queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.export_spans(&mut batch).await;
        }
        self.export_metrics().await;
    }

    /// Takes spans until the batch is full, or all is to end.
    async fn fill(&mut self, batch: &mut Vec<SpanRecord>, stop: &mut watch::Receiver<bool>) {
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                received = self.queue.recv_many(batch, room) => if received == 0 { return },
            }
        }
    }

    async fn export_spans(&mut self, batch: &mut Vec<SpanRecord>) {
        let spans = std::mem::take(batch);
        let count = spans.len() as u64;
        let mut is_taken = false;
        if let Some(files) = &mut self.files {
            let written = files.spans(&spans);
            is_taken |= self.note("debug file", written);
        }
        if let Some(collector) = &mut self.collector {
            let exported = collector.spans(spans, EXPORT_MAX).await;
            is_taken |= self.note("collector", exported);
        }
        let counter =
            if is_taken { &self.counts.spans_exported } else { &self.counts.spans_dropped };
        counter.add(count);
    }

    async fn export_metrics(&mut self) {
        let Some(measure) = self.measure.get() else { return };
        let snapshot = measure.snapshot();
        let wall_ms = self.clock.wall().0.unsigned_abs();
        if let Some(files) = &mut self.files {
            let written = files.metrics(&snapshot, wall_ms);
            self.note("debug file", written);
        }
        if let Some(collector) = &mut self.collector {
            let exported = collector.metrics(&snapshot, wall_ms * 1_000_000, EXPORT_MAX).await;
            self.note("collector", exported);
        }
    }

    /// Counts a failure; a collector that is away for long must not fill the log.
    fn note<E: fmt::Display>(&self, to: &str, outcome: Result<(), E>) -> bool {
        let Err(error) = outcome else { return true };
        self.counts.export_failures.one();
        let failures = self.counts.export_failures.get();
        if failures.is_power_of_two() {
            warn!(self.logger, "telemetry was not exported"; "to" => to, "failures" => failures,
                "error" => %error);
        } else {
            debug!(self.logger, "telemetry was not exported"; "to" => to, "error" => %error);
        }
        false
    }
}
