//! The door of the HTTP port: who asks, and whether they may. What is about a topic its handler finds
//! out.

use super::error::HttpError;
use crate::access::Action;
use crate::frontends::access::{Door, Needed};
use crate::frontends::seats::Seat;
use crate::model::Caller;
use crate::observe::metrics::Protocol;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;

/// The other end of a request's connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it is.
    pub peer: SocketAddr,
    /// Who, as far as the connection proves it.
    pub caller: Caller,
    /// Counts the requests on it, and takes their answers.
    pub seat: Seat,
}

const METRICS: &str = "/metrics";

/// What a path needs.
fn needed(path: &str) -> Needed {
    match path {
        "/livez" | "/readyz" => Needed::Nothing,
        METRICS => Needed::Whole(Action::Observe),
        path if path.starts_with("/observe/") => Needed::Whole(Action::Observe),
        // Of a topic, or of nothing.
        _ => Needed::Known,
    }
}

/// Lets a request in, with who makes it; or answers it.
pub async fn admit(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let path = path.as_str();
    let needed = needed(path);
    if needed == Needed::Nothing {
        return next.run(request).await;
    }
    let call = format!("{} {path}", request.method());
    let nobody = || Client {
        peer: SocketAddr::from(([0, 0, 0, 0], 0)),
        caller: Caller::nobody(),
        seat: Seat::default(),
    };
    let Client { peer, caller, seat } = request.extensions_mut().remove().unwrap_or_else(nobody);
    request.extensions_mut().insert(seat.taker().clone());
    let asked = (Protocol::Http, &*call);
    let admitted = door.ask(request.headers(), &caller, peer, asked).and_then(|asker| {
        // Where nothing is judged, nodes may look at each other's metrics.
        if path != METRICS || asker.is_judged() {
            asker.is_client()?;
        }
        asker.has(needed).map(|()| asker)
    });
    match admitted {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            let _used = seat.call().let_in();
            next.run(request).await
        }
        Err(denied) => HttpError::from(denied).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_need_nothing() {
        for path in ["/livez", "/readyz"] {
            assert_eq!(needed(path), Needed::Nothing);
        }
        for path in
            ["/", "/metrics", "/observe/tree", "/observe/", "/v1/topics/x/records", "/livez/"]
        {
            assert_ne!(needed(path), Needed::Nothing, "{path}");
        }
    }
}
