//! `/metrics`, and what is counted of every request of the HTTP port.

use super::serve::App;
use crate::actors::topics::TopicsApi;
use crate::frontends::calls::{Caller, Calls};
use crate::observe::metrics::{Method, Outcome, TEXT_CONTENT_TYPE};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method as Verb, StatusCode, header};
use std::sync::Arc;

/// Serves `/metrics`, in Prometheus' text format.
pub async fn metrics<T: TopicsApi>(State(app): State<Arc<App<T>>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT_CONTENT_TYPE)], app.measure.snapshot().text())
}

/// Lets the request through with its number and its place in a trace, and counts the answer.
pub async fn note(State(calls): State<Arc<Calls>>, mut request: Request, next: Next) -> Response {
    let method = method_of(request.method(), request.uri().path());
    let open = calls.open(method, Caller::of(request.headers()));
    request.extensions_mut().insert(open.call());
    let response = next.run(request).await;
    let status = response.status();
    let known = response.extensions().get().copied();
    open.finish(known.unwrap_or_else(|| outcome_of(status)), || status.to_string());
    response
}

fn method_of(verb: &Verb, path: &str) -> Method {
    match path {
        "/" => Method::Book,
        "/livez" | "/readyz" | "/metrics" => Method::Probe,
        path if path.starts_with("/v1/topics/") && path.ends_with("/records") => {
            if verb == Verb::POST { Method::Append } else { Method::Read }
        }
        _ => Method::OtherPath,
    }
}

/// Where the answer does not carry a finer one.
pub fn outcome_of(status: StatusCode) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::INSUFFICIENT_STORAGE => Outcome::Refused,
        status if status.is_server_error() => Outcome::Failed,
        status if status.is_client_error() => Outcome::Invalid,
        _ => Outcome::Ok,
    }
}
