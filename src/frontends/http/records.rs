//! `/v1/topics/{topic}/records`: append with POST, read with GET.

use super::body;
use super::error::HttpError;
use super::json::{InRecord, OutRecord};
use super::serve::App;
use crate::actors::partition::{PartitionApi, ProduceError};
use crate::frontends::topic;
use crate::model::{Offset, Timestamp};
use crate::observe::Call;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A body of POST.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    records: Vec<InRecord>,
}

/// The answer to POST.
#[derive(Debug, Serialize)]
pub struct Appended {
    base_offset: u64,
    count: u32,
    timestamp_ms: i64,
    durability: &'static str,
}

/// The query of GET.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    offset: Option<u64>,
    /// Milliseconds since 1970 UTC: the first record at or after it.
    time: Option<i64>,
    max_records: Option<usize>,
    max_bytes: Option<usize>,
    wait_ms: Option<u64>,
}

/// The answer to GET.
#[derive(Debug, Serialize)]
pub struct Found {
    records: Vec<OutRecord>,
    next_offset: u64,
    high_watermark: u64,
}

/// Appends the records of one request; answers when they are as safe as `durability` says.
pub async fn append<P: PartitionApi>(
    State(app): State<Arc<App<P>>>,
    Path(topic): Path<String>,
    Extension(call): Extension<Call>,
    body: Body,
) -> Result<Json<Appended>, HttpError> {
    topic::check(&topic, 0)?;
    let limits = &app.limits;
    let body = body::read(body, limits.body_bytes_max, limits.request_deadline).await?;
    let request: Append =
        serde_json::from_slice(&body).map_err(|error| HttpError::malformed(&error))?;
    if request.records.is_empty() {
        return Err(HttpError::invalid("the request holds no records"));
    }
    let arrival = app.clock.wall();
    let records = request.records.into_iter().map(|record| record.into_record(arrival)).collect();
    let pending = {
        let _for_it = app.calls.enter(call);
        app.partition.propose_records(records)?
    };
    let acknowledged = tokio::time::timeout(limits.request_deadline, pending).await;
    let ack = acknowledged.unwrap_or(Err(ProduceError::Deadline))?;
    Ok(Json(Appended {
        base_offset: ack.base_offset.0,
        count: ack.records,
        timestamp_ms: ack.timestamp.0,
        durability: ack.durability.name(),
    }))
}

/// Reads from an offset, a time or the start; waits for records at the end when asked to.
pub async fn read<P: PartitionApi>(
    State(app): State<Arc<App<P>>>,
    Path(topic): Path<String>,
    query: Result<Query<Read>, QueryRejection>,
) -> Result<Json<Found>, HttpError> {
    topic::check(&topic, 0)?;
    let Query(query) = query.map_err(|error| HttpError::query(&error))?;
    let (partition, limits) = (&app.partition, &app.limits);
    partition.readable()?;
    let from = match (query.offset, query.time) {
        (Some(_), Some(_)) => {
            return Err(HttpError::invalid("give offset or time, not both"));
        }
        (Some(offset), None) => Offset(offset),
        (None, Some(time)) => partition.find_time(Timestamp(time)).await?,
        (None, None) => partition.start_offset(),
    };
    let records = query.max_records.unwrap_or(limits.records_default).clamp(1, limits.records_max);
    let bytes =
        query.max_bytes.unwrap_or(limits.answer_bytes_default).clamp(1, limits.answer_bytes_max);
    if let Some(wait_ms) = query.wait_ms {
        let time = Duration::from_millis(wait_ms).min(limits.request_deadline);
        wait_at_end(&app, from, time).await;
    }
    let found = partition.read_records(from, records, bytes).await?;
    let next = found.last().map_or(from, |(offset, _)| offset.next());
    let records = found.into_iter().map(|(offset, record)| OutRecord::new(offset, record));
    Ok(Json(Found {
        records: records.collect(),
        next_offset: next.0,
        high_watermark: partition.high_watermark().0,
    }))
}

/// Waits until there is a record at `from`, the time is up, or the node stops. A place beyond the
/// end is not waited for: reading it is an error at once.
async fn wait_at_end<P: PartitionApi>(app: &App<P>, from: Offset, time: Duration) {
    if app.partition.high_watermark() != from {
        return;
    }
    let mut watermark = app.partition.watch();
    let waiting = async {
        tokio::select! {
            _ = watermark.wait_for(|end| *end > from) => {}
            () = app.drain.clone().begun() => {}
        }
    };
    // Time being up is no error: the answer is then an empty one.
    let _ = tokio::time::timeout(time, waiting).await;
}
