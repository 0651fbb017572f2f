//! `/livez`: the process answers. `/readyz`: it does its work. Neither asks an actor anything, so
//! both answer while a shard hangs.

use super::serve::App;
use crate::actors::readiness::{Condition, SubsystemStatus};
use crate::actors::topics::TopicsApi;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use std::fmt::Write;
use std::sync::Arc;

/// Serves `/livez`.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Serves `/readyz[?verbose]`: 503 only when a part does not work at all. A part that works
/// partly (a quarantined partition can be read) is told in the verbose form; taking the node out
/// of service would help nobody.
pub async fn readyz<T: TopicsApi>(
    State(app): State<Arc<App<T>>>,
    RawQuery(query): RawQuery,
) -> Response {
    let mut parts = app.readiness.readiness();
    if app.drain.has_begun() {
        let (subsystem, reason) = ("node".into(), "the node is stopping".into());
        parts.push(SubsystemStatus { subsystem, condition: Condition::NotReady, reason });
    }
    let worst = parts.iter().map(|part| part.condition).max().unwrap_or(Condition::Ready);
    let status = match worst {
        Condition::Ready | Condition::Degraded => StatusCode::OK,
        Condition::NotReady => StatusCode::SERVICE_UNAVAILABLE,
    };
    let verbose = query.is_some_and(|query| {
        query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
    });
    // Without details a degraded node is simply ready.
    let word = if worst == Condition::NotReady { "not ready" } else { "ok" };
    let text =
        if verbose { describe(&parts, worst, &app.node.node_id) } else { format!("{word}\n") };
    (status, text).into_response()
}

fn describe(parts: &[SubsystemStatus], worst: Condition, node_id: &str) -> String {
    let mut text = String::new();
    for part in parts {
        let mark = match part.condition {
            Condition::Ready => '+',
            Condition::Degraded => '~',
            Condition::NotReady => '-',
        };
        let separator = if part.reason.is_empty() { "" } else { ": " };
        let (subsystem, word, reason) = (&part.subsystem, part.condition.name(), &part.reason);
        let line = writeln!(text, "[{mark}] {subsystem} {word}{separator}{reason}");
        line.expect("a string takes any text");
    }
    writeln!(text, "node {node_id} {}", worst.name()).expect("a string takes any text");
    text
}
