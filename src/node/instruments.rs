//! What everyone in a node who measures is handed, with an exporter where the settings want one.

use crate::model::Clock;
use crate::observe::{Instruments, Tracer};
use crate::ops::data_dir::DataDir;
use crate::ops::settings::Settings;
use crate::ops::telemetry::{Telemetry, TelemetryError, TelemetryOptions};
use slog::{Logger, o};
use std::sync::Arc;

/// Without a wish for telemetry there is neither a thread nor a queue for it.
pub(super) fn make(
    settings: &Settings,
    data_dir: &DataDir,
    clock: &Arc<dyn Clock>,
    logger: &Logger,
) -> Result<(Instruments, Option<Telemetry>), TelemetryError> {
    let wanted = &settings.telemetry;
    let options = TelemetryOptions {
        otlp_endpoint: wanted.otlp_endpoint.as_ref().map(|url| url.as_str().to_owned()),
        debug_dir: wanted.debug_dir.clone(),
        metrics_interval: wanted.metrics_interval,
        instance: data_dir.node_id().to_owned(),
    };
    let metrics = Arc::default();
    let clock = Arc::clone(clock);
    if !options.is_wanted() {
        return Ok((Instruments { metrics, tracer: Arc::new(Tracer::off(clock)) }, None));
    }
    let exporter_logger = logger.new(o!("actor" => "node/telemetry"));
    let telemetry =
        Telemetry::start(&options, Arc::clone(&metrics), Arc::clone(&clock), exporter_logger)?;
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let tracer = Tracer::new(telemetry.sink(), wanted.traces_ratio, seed, clock);
    Ok((Instruments { metrics, tracer: Arc::new(tracer) }, Some(telemetry)))
}
