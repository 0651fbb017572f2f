//! `/v1/topics/{topic}/records`: append with POST, read with GET.

use super::body;
use super::error::HttpError;
use super::json::{InRecord, OutRecord};
use super::serve::App;
use crate::access::Action;
use crate::actors::partition::{PartitionApi, ProduceError};
use crate::actors::topics::TopicsApi;
use crate::frontends::access::Asker;
use crate::frontends::route::{ToAppend, catch_up};
use crate::frontends::unsent::Taker;
use crate::model::{Offset, Timestamp};
use crate::observe::Call;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A body of POST.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    #[serde(deserialize_with = "bounded")]
    pub(super) records: Vec<InRecord>,
}

/// Records of one request: three bytes of a body can be one, and a hundred in memory.
const RECORDS_MAX: usize = 100_000;

fn bounded<'de, D: Deserializer<'de>>(decoder: D) -> Result<Vec<InRecord>, D::Error> {
    struct Records;
    impl<'de> Visitor<'de> for Records {
        type Value = Vec<InRecord>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of records")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut records = Vec::new();
            while let Some(record) = list.next_element()? {
                if records.len() == RECORDS_MAX {
                    let message = format!("more than {RECORDS_MAX} records; send fewer at once");
                    return Err(A::Error::custom(message));
                }
                records.push(record);
            }
            Ok(records)
        }
    }
    decoder.deserialize_seq(Records)
}

/// The query of POST.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendTo {
    #[serde(default)]
    partition: u32,
    /// False: refuse where this node does not lead, in place of passing the request on.
    forward: Option<bool>,
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
    #[serde(default)]
    partition: u32,
    offset: Option<u64>,
    /// Milliseconds since 1970 UTC: the first record at or after it.
    time: Option<i64>,
    max_records: Option<usize>,
    max_bytes: Option<usize>,
    wait_ms: Option<u64>,
    /// `committed` or `linearizable`.
    consistency: Option<String>,
}

/// The answer to GET.
#[derive(Debug, Serialize)]
pub struct Found {
    records: Vec<OutRecord>,
    next_offset: u64,
    high_watermark: u64,
}

/// Appends the records of one request; answers when they are as safe as `durability` says.
pub async fn append<T: TopicsApi>(
    State(app): State<Arc<App<T>>>,
    Path(topic): Path<String>,
    Extension(call): Extension<Call>,
    asker: Option<Extension<Asker>>,
    query: Result<Query<AppendTo>, QueryRejection>,
    body: Body,
) -> Result<Json<Appended>, HttpError> {
    let asker = asker.map_or_else(|| Asker::of(&http::Extensions::new()), |Extension(asker)| asker);
    asker.check(Action::Produce, &topic)?;
    // Before the body is read: a request that nobody takes is refused early.
    let Query(AppendTo { partition, forward }) = query.map_err(|error| HttpError::query(&error))?;
    app.route.topics.partition(&topic, partition)?;
    let limits = &app.limits;
    let body = body::read(body, limits).await?;
    // Again: how long the body takes is up to whoever sends it.
    asker.check(Action::Produce, &topic)?;
    let request: Append =
        serde_json::from_slice(&body).map_err(|error| HttpError::malformed(&error))?;
    // Not held while the records wait for their acknowledgement.
    drop(body);
    if request.records.is_empty() {
        return Err(HttpError::invalid("the request holds no records"));
    }
    let arrival = app.clock.wall();
    let records = request.records.into_iter().map(|record| record.into_record(arrival)).collect();
    let pending = {
        let _for_it = app.calls.enter(call);
        let forward_for = forward.unwrap_or(true).then_some(asker.name());
        app.route.append(&topic, partition, ToAppend::Records(records), forward_for)?
    };
    let acknowledged = tokio::time::timeout(limits.request_deadline, pending).await;
    let ack = acknowledged.unwrap_or(Err(ProduceError::Deadline));
    let ack = ack.map_err(|error| app.route.with_address(error))?;
    Ok(Json(Appended {
        base_offset: ack.base_offset.0,
        count: ack.records,
        timestamp_ms: ack.timestamp.0,
        durability: ack.durability.name(),
    }))
}

/// Reads from an offset, a time or the start; waits for records at the end when asked to.
pub async fn read<T: TopicsApi>(
    State(app): State<Arc<App<T>>>,
    Path(topic): Path<String>,
    asker: Option<Extension<Asker>>,
    Extension(taker): Extension<Taker>,
    query: Result<Query<Read>, QueryRejection>,
) -> Result<Response, HttpError> {
    let asker = asker.map_or_else(|| Asker::of(&http::Extensions::new()), |Extension(asker)| asker);
    asker.check(Action::Consume, &topic)?;
    let asked = query.as_ref().map_or(0, |Query(query)| query.partition);
    let partition = &app.route.readable(&topic, asked)?;
    let Query(query) = query.map_err(|error| HttpError::query(&error))?;
    let limits = &app.limits;
    partition.readable()?;
    match query.consistency.as_deref() {
        None | Some("committed") => {}
        Some("linearizable") => catch_up(partition, limits.request_deadline).await?,
        Some(_) => {
            let message = "the consistency is committed (the default) or linearizable";
            return Err(HttpError::invalid(message));
        }
    }
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
        wait_at_end(&app, partition, from, time).await;
    }
    // Again: it may have waited for long.
    asker.check(Action::Consume, &topic)?;
    let room = app.unsent.promise_some(&taker, bytes);
    let found = partition.read_records(from, records, room.bytes).await?;
    let next = found.last().map_or(from, |(offset, _)| offset.next());
    let records = found.into_iter().map(|(offset, record)| OutRecord::new(offset, record));
    let found = Found {
        records: records.collect(),
        next_offset: next.0,
        high_watermark: partition.high_watermark().0,
    };
    let answer = serde_json::to_vec(&found).expect("texts and numbers are JSON");
    let answer = app.unsent.counted(answer.into(), &taker);
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
}

/// Waits until there is a record at `from`, the time is up, or the node stops. A place beyond the
/// end is not waited for: reading it is an error at once.
async fn wait_at_end<T: TopicsApi>(
    app: &App<T>,
    partition: &T::Partition,
    from: Offset,
    time: Duration,
) {
    if partition.high_watermark() != from {
        return;
    }
    let mut watermark = partition.watch();
    let waiting = async {
        tokio::select! {
            _ = watermark.wait_for(|end| *end > from) => {}
            () = app.drain.clone().begun() => {}
        }
    };
    // Time being up is no error: the answer is then an empty one.
    let _ = tokio::time::timeout(time, waiting).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_more_records_than_a_request_may_have_is_refused() {
        let body = |count: usize| format!(r#"{{"records":[{}]}}"#, vec!["{}"; count].join(","));
        let read = |count| serde_json::from_str::<Append>(&body(count));
        assert_eq!(read(RECORDS_MAX).unwrap().records.len(), RECORDS_MAX);
        let refused = read(RECORDS_MAX + 1).unwrap_err().to_string();
        assert!(refused.contains("send fewer at once"), "{refused}");
    }
}
