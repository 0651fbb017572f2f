//! What front ends do for each request beside answering it: give it a number and its place in the
//! caller's trace, count it, and tell how long it took.

use crate::observe::metrics::{Method, Outcome};
use crate::observe::{
    Begun, Call, Instruments, PathId, Scope, ScopeGuard, TraceContext, enter as enter_scope,
};
use http::HeaderMap;

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
}
