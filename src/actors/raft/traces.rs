//! The spans of a proposal on its way through this actor: `queue` until it becomes part of an
//! entry, `append` until its entry is in the log, `commit` until it is answered. Only of requests
//! that are sampled.

use super::proposals::InFlight;
use crate::model::Offset;
use crate::observe::{TraceContext, Tracer, current};
use std::sync::Arc;
use std::time::Duration;

/// Requests of one flush that each get its span; of further ones it is left out.
const TRACES_PER_FLUSH_MAX: usize = 16;

/// A sampled proposal that waits.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// The front end's span.
    request: TraceContext,
    since: Duration,
}

/// A sampled proposal that is part of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Appending {
    request: TraceContext,
    /// The span of the append, above that of the flush.
    append: TraceContext,
    since: Duration,
}

#[derive(Debug)]
pub struct Tracing {
    tracer: Arc<Tracer>,
    /// When what is being committed was reported as written.
    persisted_at: Duration,
}

impl Tracing {
    pub fn new(tracer: Arc<Tracer>) -> Self {
        Self { tracer, persisted_at: Duration::ZERO }
    }

    /// The message in hand begins to wait.
    pub fn queued(&self) -> Option<Queued> {
        let request = current().call.trace?;
        Some(Queued { request, since: self.tracer.now() })
    }

    /// It becomes part of an entry.
    pub fn gathered(&self, Queued { request, since }: Queued) -> Appending {
        let now = self.tracer.now();
        let place = self.tracer.below(request);
        self.tracer.internal("queue", place, request.span_id, (since, now), Vec::new(), None);
        Appending { request, append: self.tracer.below(request), since: now }
    }

    /// The log has told that the entry is written.
    pub fn persisted(&mut self) {
        if self.tracer.is_on() {
            self.persisted_at = self.tracer.now();
        }
    }

    /// It is committed, and answered now.
    pub fn committed(&self, appending: Appending, base: Offset, records: u32) {
        let Appending { request, append, since } = appending;
        let now = self.tracer.now();
        let persisted_at = self.persisted_at.clamp(since, now);
        let attributes = vec![("duramen.records", u64::from(records).into())];
        let span = (since, persisted_at);
        self.tracer.internal("append", append, request.span_id, span, attributes, None);
        let attributes = vec![("duramen.entry_base_offset", base.0.into())];
        let (place, span) = (self.tracer.below(request), (persisted_at, now));
        self.tracer.internal("commit", place, request.span_id, span, attributes, None);
    }

    /// Nothing of it was kept.
    pub fn refused(&self, appending: Appending, reason: &str) {
        let Appending { request, append, since } = appending;
        let (span, error) = ((since, self.tracer.now()), Some(reason.to_owned().into()));
        self.tracer.internal("append", append, request.span_id, span, Vec::new(), error);
    }
}

/// The spans that the flush of these entries lies below.
pub fn of_askers<'a>(entries: impl IntoIterator<Item = &'a InFlight>) -> Vec<TraceContext> {
    let askers = entries.into_iter().flat_map(|entry| &entry.askers);
    let traced = askers.filter_map(|asker| asker.traced.map(|appending| appending.append));
    traced.take(TRACES_PER_FLUSH_MAX).collect()
}
