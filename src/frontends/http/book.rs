//! The book's first chapter, as its server answers: raw JSON bodies of any content type, also with
//! GET; unknown fields, and what follows the first JSON value, are ignored; errors are plain text.

use super::body;
use super::error::{HttpError, Mistake, without_quotes};
use super::measured;
use super::serve::App;
use crate::access::{Action, Denied};
use crate::actors::partition::{PartitionApi, ReadError};
use crate::actors::topics::TopicsApi;
use crate::frontends::access::Asker;
use crate::frontends::route::{NotRead, NotTaken, ToAppend};
use crate::model::{FIRST_TOPIC, Offset, Record};
use crate::observe::Call;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;

/// One record is given out whatever its size.
const READ_BYTES: usize = 1;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Produce {
    #[serde(alias = "Record")]
    record: Option<InRecord>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InRecord {
    #[serde(alias = "Value", deserialize_with = "base64_or_null")]
    value: Vec<u8>,
    /// Checked as the book's decoder does, then ignored: the server gives offsets.
    #[serde(alias = "Offset")]
    #[allow(dead_code, reason = "it is there to be checked")]
    offset: u64,
}

#[derive(Serialize)]
struct Produced {
    offset: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Consume {
    #[serde(alias = "Offset")]
    offset: u64,
}

#[derive(Serialize)]
struct Consumed {
    record: OutRecord,
}

#[derive(Serialize)]
struct OutRecord {
    value: String,
    offset: u64,
}

/// Serves `/`.
pub async fn handle<T: TopicsApi>(State(app): State<Arc<App<T>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let allowed = matches!(head.method, Method::GET | Method::POST);
    if !allowed {
        let allow = [(header::ALLOW, "GET,POST")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow).into_response();
    }
    let asker = Asker::of(&head.extensions);
    let action = if head.method == Method::POST { Action::Produce } else { Action::Consume };
    if let Err(denied) = asker.check(action, FIRST_TOPIC) {
        return refused(denied);
    }
    let limits = &app.limits;
    let body = match body::read(body, limits).await {
        Ok(body) => body,
        Err(error) => return text(error.status, &error.message),
    };
    // Again: how long the body takes is up to whoever sends it.
    if let Err(denied) = asker.check(action, FIRST_TOPIC) {
        return refused(denied);
    }
    let answered = if head.method == Method::POST {
        let call = head.extensions.get().copied().unwrap_or_default();
        produce(&app, call, &asker, body).await
    } else {
        consume(&app, body).await
    };
    answered.unwrap_or_else(|refused| refused)
}

async fn produce<T: TopicsApi>(
    app: &App<T>,
    call: Call,
    asker: &Asker,
    body: Bytes,
) -> Result<Response, Response> {
    let value = value_in(&body).map_err(bad_request)?;
    let record = Record::of_value(value, app.clock.wall());
    let proposed = {
        let _for_it = app.calls.enter(call);
        app.route.append(FIRST_TOPIC, 0, ToAppend::Records(vec![record]), Some(asker.name()))
    };
    let pending = proposed.map_err(not_stored)?;
    let acknowledged = tokio::time::timeout(app.limits.request_deadline, pending).await;
    let ack = acknowledged
        .map_err(|_| {
            let message = "the deadline passed; the record may be stored";
            text(StatusCode::INTERNAL_SERVER_ERROR, message)
        })?
        .map_err(|error| not_stored(error.into()))?;
    Ok(json(&Produced { offset: ack.base_offset.0 }))
}

async fn consume<T: TopicsApi>(app: &App<T>, body: Bytes) -> Result<Response, Response> {
    let offset = offset_in(&body).map_err(bad_request)?;
    let not_found = || text(StatusCode::NOT_FOUND, "offset not found");
    let failed = |error: ReadError| match error {
        ReadError::OutOfRange { .. } => not_found(),
        ReadError::Unavailable { .. } => unavailable(error),
        other => text(StatusCode::INTERNAL_SERVER_ERROR, &other.to_string()),
    };
    let partition = app.route.readable(FIRST_TOPIC, 0).map_err(|error| match error {
        NotRead::Read(error) => unavailable(error),
        NotRead::Topic(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    })?;
    partition.readable().map_err(failed)?;
    let read = partition.read_records(Offset(offset), 1, READ_BYTES).await;
    let found = read.map_err(failed)?;
    let (offset, record) = found.into_iter().next().ok_or_else(not_found)?;
    let value = STANDARD.encode(&*record.value.unwrap_or_default());
    Ok(json(&Consumed { record: OutRecord { value, offset: offset.0 } }))
}

/// The book's server knows one status for this; as what it is counted tells more.
fn not_stored(error: NotTaken) -> Response {
    let mut response = text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
    response.extensions_mut().insert(measured::outcome_of(HttpError::from(error).status));
    response
}

/// The value that a request brings.
pub(super) fn value_in(body: &[u8]) -> serde_json::Result<Vec<u8>> {
    decode(body).map(|request: Produce| request.record.unwrap_or_default().value)
}

/// The offset that a request asks for.
pub(super) fn offset_in(body: &[u8]) -> serde_json::Result<u64> {
    decode(body).map(|request: Consume| request.offset)
}

/// Decodes the first JSON value of a body; `null` is a request with nothing set.
fn decode<T: DeserializeOwned + Default>(body: &[u8]) -> serde_json::Result<T> {
    let mut decoder = serde_json::Deserializer::from_slice(body);
    Option::<T>::deserialize(&mut decoder).map(Option::unwrap_or_default)
}

fn bad_request(error: serde_json::Error) -> Response {
    let mut response = text(StatusCode::BAD_REQUEST, &error.to_string());
    response.extensions_mut().insert(Mistake(without_quotes(&error)));
    response
}

fn base64_or_null<'de, D: Deserializer<'de>>(decoder: D) -> Result<Vec<u8>, D::Error> {
    let mut text: String = Option::deserialize(decoder)?.unwrap_or_default();
    // The book's decoder skips line breaks within base64.
    text.retain(|character| !matches!(character, '\r' | '\n'));
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// An answer as the book's server encodes it: with a newline, and the type that Go guesses.
fn json(answer: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(answer).expect("numbers and strings can be encoded");
    body.push(b'\n');
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// As on `/v1`, in plain text and the book's words.
fn refused(denied: Denied) -> Response {
    let error = HttpError::from(denied.of_the_book());
    let mut response = text(error.status, &error.message);
    if error.status == StatusCode::UNAUTHORIZED {
        let scheme = http::HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// As on `/v1`, in plain text: what cannot be read yet is not what is not there.
fn unavailable(error: ReadError) -> Response {
    let error = HttpError::from(error);
    let after = error.retry_after_seconds();
    let mut response = text(error.status, &error.message);
    response.headers_mut().extend(after.map(|after| (header::RETRY_AFTER, after)));
    response
}

fn text(status: StatusCode, message: &str) -> Response {
    let no_guessing = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, no_guessing, format!("{message}\n")).into_response()
}
