//! What a flush took: its metrics, and its span in the traces of the requests that share it.

use super::plan::LogPlan;
use crate::actors::raft::Kept;
use crate::log::{Entry, LogError};
use crate::model::with_causes;
use crate::observe::TraceContext;
use std::time::Duration;

pub(super) struct Measured<'a> {
    plan: &'a LogPlan,
    since: Duration,
}

impl<'a> Measured<'a> {
    pub fn begin(plan: &'a LogPlan) -> Self {
        Self { plan, since: plan.clock.monotonic() }
    }

    /// The write, and its sync where there is one, is over. An entry without records (a vote, the
    /// first of a term) is no flush of anybody's records.
    pub fn end(self, entries: &[Entry], traces: &[TraceContext], outcome: &Result<Kept, LogError>) {
        let (plan, since, now) = (self.plan, self.since, self.plan.clock.monotonic());
        let metrics = &plan.metrics;
        let records = entries.iter().map(|entry| entry.payload.records()).sum();
        let bytes = super::bytes_of(entries);
        match outcome {
            Ok(_) if records == 0 => {}
            Ok(_) => {
                metrics.flush_duration.observe_for(now.saturating_sub(since));
                metrics.flush_bytes.observe(bytes);
                metrics.flush_records.observe(records);
                metrics.appended_records.add(records);
            }
            Err(_) => metrics.flush_failures.one(),
        }
        for append in traces {
            let attributes = vec![
                ("duramen.bytes", bytes.into()),
                ("duramen.records", records.into()),
                ("duramen.durability", plan.durability.name().into()),
            ];
            let error = outcome.as_ref().err().map(|error| with_causes(error).into());
            let tracer = &plan.instruments.tracer;
            let place = tracer.below(*append);
            tracer.internal("flush", place, append.span_id, (since, now), attributes, error);
        }
    }
}
