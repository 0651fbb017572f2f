//! OTLP over gRPC: spans and metrics as a collector takes them.

use crate::observe::metrics::catalogue::{Family, Kind};
use crate::observe::metrics::{Sample, Snapshot, Value};
use crate::observe::{Attribute, SpanKind, SpanRecord};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use std::time::Duration;
use tokio::time::timeout;

/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

/// Why a collector did not take what it was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectorError {
    #[error("no connection to {endpoint}: {cause}")]
    Away { endpoint: String, cause: String },
    #[error("{endpoint} refused: {cause}")]
    Refused { endpoint: String, cause: String },
    #[error("{endpoint} did not answer within {after:?}")]
    Late { endpoint: String, after: Duration },
}

pub(super) struct Collector {
    endpoint: String,
    resource: Resource,
    /// Since when counters count.
    start_ns: u64,
}

impl Collector {
    pub fn new(endpoint: &str, instance: &str, start_ns: u64) -> Self {
        let attributes = [
            ("service.name", "duramen"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", instance),
        ];
        let attributes = attributes.map(|(name, value)| text(name, value)).to_vec();
        let resource = Resource { attributes, ..Resource::default() };
        Self { endpoint: endpoint.to_owned(), resource, start_ns }
    }

    /// Exports spans.
    pub async fn spans(
        &self,
        spans: Vec<SpanRecord>,
        at_most: Duration,
    ) -> Result<(), CollectorError> {
        let scope_spans = ScopeSpans {
            scope: Some(scope()),
            spans: spans.into_iter().map(to_span).collect(),
            ..ScopeSpans::default()
        };
        let resource_spans = vec![ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }];
        let exporting = async {
            let connected = TraceServiceClient::connect(self.endpoint.clone()).await;
            let mut client = connected.map_err(|error| self.away(&error))?;
            let exported = client.export(ExportTraceServiceRequest { resource_spans }).await;
            exported.map(drop).map_err(|status| self.refused(status.message()))
        };
        timeout(at_most, exporting).await.unwrap_or_else(|_| Err(self.late(at_most)))
    }

    /// Exports all metrics.
    pub async fn metrics(
        &self,
        snapshot: &Snapshot,
        now_ns: u64,
        at_most: Duration,
    ) -> Result<(), CollectorError> {
        let times = (self.start_ns, now_ns);
        let metrics = snapshot.families().map(|(family, found)| to_metric(family, &found, times));
        let scope_metrics = ScopeMetrics {
            scope: Some(scope()),
            metrics: metrics.collect(),
            ..ScopeMetrics::default()
        };
        let resource_metrics = vec![ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        }];
        let exporting = async {
            let connected = MetricsServiceClient::connect(self.endpoint.clone()).await;
            let mut client = connected.map_err(|error| self.away(&error))?;
            let exported = client.export(ExportMetricsServiceRequest { resource_metrics }).await;
            exported.map(drop).map_err(|status| self.refused(status.message()))
        };
        timeout(at_most, exporting).await.unwrap_or_else(|_| Err(self.late(at_most)))
    }

    fn away(&self, error: &dyn std::error::Error) -> CollectorError {
        let cause = crate::model::with_causes(error);
        CollectorError::Away { endpoint: self.endpoint.clone(), cause }
    }

    fn refused(&self, cause: &str) -> CollectorError {
        CollectorError::Refused { endpoint: self.endpoint.clone(), cause: cause.to_owned() }
    }

    fn late(&self, after: Duration) -> CollectorError {
        CollectorError::Late { endpoint: self.endpoint.clone(), after }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "duramen".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, any_value::Value::StringValue(value.to_owned()))
}

fn attribute(name: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: name.to_owned(), value, ..KeyValue::default() }
}

fn to_span(record: SpanRecord) -> Span {
    let SpanRecord { name, kind, trace_id, span_id, parent_id, start_ns, end_ns, .. } = record;
    let kind = match kind {
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Internal => span::SpanKind::Internal,
    };
    let attributes = record.attributes.into_iter().map(|(name, value)| match value {
        Attribute::Text(value) => text(name, &value),
        Attribute::Number(value) => attribute(name, any_value::Value::IntValue(value)),
    });
    let parent_span_id = if parent_id == 0 { Vec::new() } else { parent_id.to_be_bytes().to_vec() };
    Span {
        trace_id: trace_id.to_be_bytes().to_vec(),
        span_id: span_id.to_be_bytes().to_vec(),
        parent_span_id,
        name: name.to_owned(),
        kind: kind as i32,
        start_time_unix_nano: start_ns,
        end_time_unix_nano: end_ns,
        attributes: attributes.collect(),
        status: record.error.map(|message| Status { message: message.into_owned(), code: ERROR }),
        ..Span::default()
    }
}

fn to_metric(family: &Family, samples: &[&Sample], times: (u64, u64)) -> Metric {
    let temporality = AggregationTemporality::Cumulative as i32;
    let numbers = || samples.iter().filter_map(|sample| number(family, sample, times)).collect();
    let data = match family.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: samples
                .iter()
                .filter_map(|sample| distribution(family, sample, times))
                .collect(),
            aggregation_temporality: temporality,
        }),
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: family.unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn labels(family: &Family, sample: &Sample) -> Vec<KeyValue> {
    family.labels.iter().zip(&sample.labels).map(|(name, value)| text(name, value)).collect()
}

fn number(family: &Family, sample: &Sample, times: (u64, u64)) -> Option<NumberDataPoint> {
    let Value::Number(value) = &sample.value else { return None };
    Some(NumberDataPoint {
        attributes: labels(family, sample),
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        value: Some(Number::AsDouble(*value)),
        ..NumberDataPoint::default()
    })
}

fn distribution(family: &Family, sample: &Sample, times: (u64, u64)) -> Option<HistogramDataPoint> {
    let Value::Distribution(found) = &sample.value else { return None };
    Some(HistogramDataPoint {
        attributes: labels(family, sample),
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        count: found.count(),
        sum: Some(found.sum),
        bucket_counts: found.counts.clone(),
        explicit_bounds: found.bounds.clone(),
        ..HistogramDataPoint::default()
    })
}
