//! Errors as HTTP tells them: a status, and on `/v1` a JSON object with code, message and pause.

use crate::access::Denied;
use crate::actors::partition::{ProduceError, ReadError};
use crate::actors::topics::{CATALOGUE_RETRY_AFTER, TopicError};
use crate::frontends::route::{NotRead, NotTaken};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use serde_json::error::Category;
use serde_json::json;
use std::time::Duration;

/// What the node's operator is told of a client's mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noted {
    /// The message.
    Message,
    /// This instead: the message quotes the request, which is nobody's to see but the client's.
    Unquoted(String),
    /// Nothing: it was an operator who asked.
    Nothing,
}

/// An error on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    pub status: StatusCode,
    /// A word for programs, finer than the status.
    pub code: &'static str,
    pub message: String,
    pub noted: Noted,
    pub retry_after: Option<Duration>,
}

impl HttpError {
    /// An error that a retry does not mend.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), noted: Noted::Message, retry_after: None }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// The body is not what it should be.
    pub fn malformed(error: &serde_json::Error) -> Self {
        let noted = Noted::Unquoted(without_quotes(error));
        Self { noted, ..Self::invalid(error.to_string()) }
    }

    /// The query is not what it should be.
    pub fn query(rejection: &QueryRejection) -> Self {
        let noted = Noted::Unquoted("the query is not one that this path knows".into());
        Self { noted, ..Self::invalid(rejection.body_text()) }
    }

    /// The pause as a header has it.
    pub fn retry_after_seconds(&self) -> Option<HeaderValue> {
        let millis = self.retry_after?.as_millis().max(1);
        // The header knows whole seconds only: never less than the pause that is meant.
        let seconds = HeaderValue::from_str(&millis.div_ceil(1000).to_string());
        Some(seconds.expect("digits are a valid header value"))
    }
}

/// What is wrong with a body, by kind and place only.
pub fn without_quotes(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Io => "cannot be read",
        Category::Syntax => "is not JSON",
        Category::Data => "is JSON, but no such request",
        Category::Eof => "ends too early",
    };
    format!("the body {what} (line {}, column {})", error.line(), error.column())
}

/// Travels with a response whose request made no sense, and never leaves the process.
#[derive(Debug, Clone)]
pub struct Mistake(pub String);

impl HttpError {
    /// Whether the client is to blame, and not the time at which it asked.
    fn is_mistake(&self) -> bool {
        self.status.is_client_error()
            && self.status != StatusCode::TOO_MANY_REQUESTS
            && self.code != "out_of_range"
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mistake = match &self.noted {
            _ if !self.is_mistake() => None,
            Noted::Message => Some(Mistake(self.message.clone())),
            Noted::Unquoted(words) => Some(Mistake(words.clone())),
            Noted::Nothing => None,
        };
        let millis = self.retry_after.map(|after| after.as_millis().max(1));
        let body = json!({"error": {
            "code": self.code,
            "message": self.message,
            "retry_after_ms": millis.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX)),
        }});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(mistake) = mistake {
            response.extensions_mut().insert(mistake);
        }
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<ProduceError> for HttpError {
    fn from(error: ProduceError) -> Self {
        let (status, code) = match &error {
            ProduceError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            ProduceError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            ProduceError::Overloaded { .. } => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
            ProduceError::Restarting { .. } => (StatusCode::SERVICE_UNAVAILABLE, "restarting"),
            ProduceError::Quarantined { .. } => (StatusCode::SERVICE_UNAVAILABLE, "quarantined"),
            ProduceError::DiskFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            ProduceError::NotLeader { .. } => (StatusCode::SERVICE_UNAVAILABLE, "not_leader"),
            ProduceError::ReadOnly { .. } => (StatusCode::FORBIDDEN, "read_only"),
            ProduceError::Denied { .. } => (StatusCode::FORBIDDEN, "denied"),
            ProduceError::Sequence { .. } => (StatusCode::CONFLICT, "sequence"),
            ProduceError::Stopped { .. } => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
            // Not 503: clients retry that by themselves, and would store records twice.
            ProduceError::Unknown { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "outcome_unknown"),
            ProduceError::Deadline => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
        };
        Self { retry_after: error.retry_after(), ..Self::new(status, code, error.to_string()) }
    }
}

impl From<ReadError> for HttpError {
    fn from(error: ReadError) -> Self {
        let (status, code, retry_after) = match &error {
            ReadError::OutOfRange { .. } => (StatusCode::NOT_FOUND, "out_of_range", None),
            ReadError::Corrupt { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt", None),
            ReadError::Unavailable { retry_after, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some(*retry_after))
            }
            ReadError::Elsewhere { .. } => (StatusCode::MISDIRECTED_REQUEST, "elsewhere", None),
            ReadError::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "io", None),
        };
        Self { retry_after, ..Self::new(status, code, error.to_string()) }
    }
}

impl From<Denied> for HttpError {
    fn from(denied: Denied) -> Self {
        let (status, code, retry_after) = match &denied {
            Denied::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "unauthenticated", None),
            Denied::Forbidden { .. } | Denied::OnlyNode | Denied::NotNode { .. } => {
                (StatusCode::FORBIDDEN, "denied", None)
            }
            Denied::TooOften { retry_after } => {
                (StatusCode::TOO_MANY_REQUESTS, "too_often", Some(*retry_after))
            }
            Denied::NotKnownYet { .. } => {
                let after = Some(CATALOGUE_RETRY_AFTER);
                (StatusCode::SERVICE_UNAVAILABLE, "policy_not_known_yet", after)
            }
        };
        let noted = Noted::Nothing;
        Self { retry_after, noted, ..Self::new(status, code, denied.to_string()) }
    }
}

impl From<NotTaken> for HttpError {
    fn from(error: NotTaken) -> Self {
        match error {
            NotTaken::Topic(error) => error.into(),
            NotTaken::Produce(error) => error.into(),
        }
    }
}

impl From<NotRead> for HttpError {
    fn from(error: NotRead) -> Self {
        match error {
            NotRead::Topic(error) => error.into(),
            NotRead::Read(error) => error.into(),
        }
    }
}

impl From<TopicError> for HttpError {
    fn from(error: TopicError) -> Self {
        let (status, code) = match &error {
            TopicError::Name(_) => (StatusCode::BAD_REQUEST, "invalid_name"),
            TopicError::NotKnownYet { .. } => {
                let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "catalogue_behind");
                let error = Self::new(status, code, error.to_string());
                return Self { retry_after: Some(CATALOGUE_RETRY_AFTER), ..error };
            }
            TopicError::UnknownTopic { .. } => (StatusCode::NOT_FOUND, "unknown_topic"),
            TopicError::UnknownPartition { .. } => (StatusCode::NOT_FOUND, "unknown_partition"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// The answer on a path that nothing serves: as JSON below `/v1`, else as the book's server does.
pub async fn no_such_path(uri: Uri) -> Response {
    if uri.path().starts_with("/v1") {
        let message = "there is nothing at this path; records are at /v1/topics/log/records";
        return HttpError::new(StatusCode::NOT_FOUND, "no_such_path", message).into_response();
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// The answer to a method that the records of a topic do not know.
pub async fn method_not_allowed() -> Response {
    let message = "records are read with GET and appended with POST";
    let error = HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    ([(header::ALLOW, "GET,HEAD,POST")], error).into_response()
}
