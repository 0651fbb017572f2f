//! What the view of a node's inside is joined with: who decides what is logged, and who knows
//! why something waits.

use super::partitions::Registry;
use crate::actors::control::ControlApi;
use crate::actors::explain::{Explanation, Facts, Subject, explain};
use crate::actors::observer::{Explainer, LogLevelControl};
use crate::model::Clock;
use crate::observe::{Complaints, Hub};
use crate::ops::logger::{LevelSpec, LogControl};
use crate::supervision::TreeHandle;
use std::sync::Arc;
use std::time::Duration;

/// The node's own logger.
pub(super) struct OwnLogger(pub LogControl);

impl LogLevelControl for OwnLogger {
    fn spec(&self) -> String {
        self.0.spec().to_string()
    }

    fn set_spec(&self, spec: &str) -> Result<(), String> {
        let spec: LevelSpec =
            spec.parse().map_err(|error: crate::ops::logger::LevelSpecError| error.to_string())?;
        self.0.set_spec(spec);
        Ok(())
    }

    fn dropped(&self) -> u64 {
        self.0.dropped_count()
    }
}

/// Gathers what explanations are made of.
pub(super) struct ByFacts {
    pub tree: TreeHandle,
    pub hub: Arc<Hub>,
    pub partitions: Registry,
    pub control: Arc<dyn ControlApi>,
    pub complaints: Arc<Complaints>,
    pub clock: Arc<dyn Clock>,
    pub hang_after: Duration,
}

impl Explainer for ByFacts {
    fn explain(&self, subject: &Subject) -> Option<Explanation> {
        let recorders = self.hub.recorders();
        let readings =
            recorders.iter().map(|known| (known.path_text().to_string(), known.reading()));
        let all = self.partitions.all();
        let planted = all.iter().filter_map(|(_, _, local)| local.planted());
        let facts = Facts {
            now: self.clock.monotonic(),
            wall: self.clock.wall(),
            tree: self.tree.status(),
            readings: readings.collect(),
            partitions: planted.map(|partition| partition.handle.facts()).collect(),
            joining: self.control.joining(),
            complaints: self.complaints.list(),
            hang_after: self.hang_after,
        };
        explain(subject, &facts)
    }
}
