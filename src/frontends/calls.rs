//! What front ends do for each request beside answering it: give it a number and its place in the
//! caller's trace, count it, and tell how long it took.

use crate::observe::metrics::{Method, Outcome};
use crate::observe::{
    Begun, Call, Instruments, PathId, Scope, ScopeGuard, TraceContext, enter as enter_scope,
};
use http::HeaderMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct Calls {
    instruments: Instruments,
    frontend: PathId,
}

/// The context that the requests of a stream came with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller(pub Option<TraceContext>);

impl Caller {
    /// The `traceparent` among the headers; what is none is ignored.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = headers.get("traceparent").and_then(|value| value.to_str().ok());
        Self(text.and_then(|text| text.parse().ok()))
    }
}

impl Calls {
    /// For the front end at this path.
    pub fn new(instruments: Instruments, frontend: &str) -> Self {
        Self { instruments, frontend: PathId::of(frontend) }
    }

    /// Begins a request whose future or stream may be dropped before it is answered.
    pub fn open(self: &Arc<Self>, method: Method, caller: Caller) -> OpenCall {
        OpenCall { begun: self.begin(method, caller), calls: Some(Arc::clone(self)) }
    }

    /// Begins a request.
    pub fn begin(&self, method: Method, caller: Caller) -> Begun {
        self.instruments.begin(method, caller.0)
    }

    /// Until the guard is dropped, what this thread sends is sent for this request. Not to be held
    /// over an `await`.
    pub fn enter(&self, call: Call) -> ScopeGuard {
        enter_scope(Scope::of_call(self.frontend, call))
    }

    /// A request is answered; `why` makes the error, where it failed and somebody wants to know.
    pub fn finish(&self, begun: &Begun, outcome: Outcome, why: impl FnOnce() -> String) {
        self.instruments.finish(begun, outcome, why);
    }

    /// A request will not be answered.
    pub fn cancel(&self, begun: &Begun) {
        self.finish(begun, Outcome::Cancelled, || "its call ended before the answer".to_owned());
    }
}

/// A request that is counted however it ends: dropped without an answer it was cancelled.
#[derive(Debug)]
pub struct OpenCall {
    begun: Begun,
    /// `None` once it is finished.
    calls: Option<Arc<Calls>>,
}

impl OpenCall {
    /// Its number and its place in a trace.
    pub fn call(&self) -> Call {
        self.begun.call
    }

    /// It is answered.
    pub fn finish(mut self, outcome: Outcome, why: impl FnOnce() -> String) {
        if let Some(calls) = self.calls.take() {
            calls.finish(&self.begun, outcome, why);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(calls) = self.calls.take() {
            calls.cancel(&self.begun);
        }
    }
}

#[cfg(all(test, feature = "observe"))]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_once_whether_it_is_answered_or_dropped() {
        let instruments = Instruments::default();
        let metrics = Arc::clone(&instruments.metrics);
        let calls = Arc::new(Calls::new(instruments, "node/frontends/grpc"));
        drop(calls.open(Method::Fetch, Caller::default()));
        calls.open(Method::Fetch, Caller::default()).finish(Outcome::Ok, String::new);
        let count = |outcome| metrics.requests(Method::Fetch, outcome).get();
        assert_eq!(Outcome::ALL.map(count), [1, 0, 0, 0, 1]);
    }
}
