//! `/observe/tree` and `/observe/explain`: the inside of the node as JSON, for reading. This port is
//! served by the control thread, so that it answers while a shard hangs.

use super::error::{HttpError, Noted};
use super::serve::App;
use crate::actors::explain::Subject;
use crate::actors::observer::{ObserveApi, ObserveError};
use crate::actors::topics::TopicsApi;
use crate::frontends::observe as words;
use crate::observe::Pattern;
use crate::wire::pb::duramen::v1 as pb;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// The query of `/observe/tree`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeQuery {
    pattern: Option<String>,
}

/// The query of `/observe/explain`: one of the two, or neither for the node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    partition: Option<String>,
    actor: Option<String>,
}

/// Serves `/observe/tree[?pattern=GLOB]`.
pub async fn tree<T: TopicsApi>(
    State(app): State<Arc<App<T>>>,
    query: Result<Query<TreeQuery>, QueryRejection>,
) -> Result<Json<pb::TreeResponse>, HttpError> {
    let Query(TreeQuery { pattern }) = query.map_err(odd_query)?;
    let pattern = match pattern {
        None => None,
        Some(text) => {
            Some(Pattern::new(&text).ok_or_else(|| HttpError::invalid("the pattern is empty"))?)
        }
    };
    let report = observer(&app)?.tree(pattern.as_ref())?;
    Ok(Json(words::tree(report, &app.node)))
}

/// Serves `/observe/explain[?partition=NAME|actor=PATH]`.
pub async fn explain<T: TopicsApi>(
    State(app): State<Arc<App<T>>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<pb::Explanation>, HttpError> {
    let Query(ExplainQuery { partition, actor }) = query.map_err(odd_query)?;
    let subject = match (partition, actor) {
        (None, None) => Subject::Node,
        (Some(name), None) => Subject::Partition(name),
        (None, Some(path)) => Subject::Actor(path),
        (Some(_), Some(_)) => {
            return Err(HttpError::invalid("give either a partition or an actor"));
        }
    };
    Ok(Json(words::explanation(observer(&app)?.explain(subject)?)))
}

fn observer<T: TopicsApi>(app: &App<T>) -> Result<&dyn ObserveApi, HttpError> {
    app.observer.as_deref().ok_or_else(|| {
        let message = "this port does not show the inside of the node";
        HttpError::new(StatusCode::NOT_FOUND, "no_such_path", message)
    })
}

fn odd_query(rejection: QueryRejection) -> HttpError {
    HttpError { noted: Noted::Nothing, ..HttpError::query(&rejection) }
}

impl From<ObserveError> for HttpError {
    fn from(error: ObserveError) -> Self {
        let (status, code) = match &error {
            ObserveError::UnknownPlace { .. } => (StatusCode::NOT_FOUND, "unknown_place"),
            ObserveError::AmbiguousPlace { .. } => (StatusCode::BAD_REQUEST, "ambiguous_place"),
            ObserveError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            ObserveError::NotNow { .. } => (StatusCode::CONFLICT, "not_now"),
            ObserveError::TooManyTaps(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_taps"),
            ObserveError::ForeignLogger => (StatusCode::CONFLICT, "foreign_logger"),
            ObserveError::Ended => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        };
        Self { noted: Noted::Nothing, ..Self::new(status, code, error.to_string()) }
    }
}
