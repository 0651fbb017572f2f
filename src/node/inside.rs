//! What the view of a node's inside is joined with: who decides what is logged, where crash reports
//! are, and who knows why something waits.

use crate::actors::explain::{Explanation, Facts, Subject, explain};
use crate::actors::handle::PartitionHandle;
use crate::actors::observer::{CrashStore, CrashSummary, Explainer, LogLevelControl};
use crate::model::Clock;
use crate::observe::{Complaints, Hub};
use crate::ops::logger::{LevelSpec, LogControl};
use crate::supervision::TreeHandle;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Crash reports listed at most.
const CRASHES_MAX: usize = 1000;
/// The longest crash report that is read.
const CRASH_BYTES_MAX: u64 = 16 << 20;

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

/// The directory of crash reports. A report's name is that of its file without `.json`; names
/// begin with their time, so that the greatest is the newest.
pub(super) struct CrashDirectory(pub PathBuf);

impl CrashStore for CrashDirectory {
    fn list(&self) -> Result<Vec<CrashSummary>, String> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.told(&error)),
        };
        let mut found = Vec::new();
        for entry in entries.take(CRASHES_MAX) {
            let entry = entry.map_err(|error| self.told(&error))?;
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".json")) else {
                continue;
            };
            // One that is removed meanwhile is none.
            let Ok(facts) = entry.metadata() else { continue };
            found.push(CrashSummary { name: name.into(), bytes: facts.len() });
        }
        found.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        Ok(found)
    }

    #[allow(clippy::disallowed_methods, reason = "reports are files of operators, not of the log")]
    fn read(&self, name: &str) -> Result<Option<String>, String> {
        // A name is one step of a path and nothing else.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Ok(None);
        }
        let path = self.0.join(format!("{name}.json"));
        match std::fs::metadata(&path) {
            Ok(facts) if facts.len() > CRASH_BYTES_MAX => {
                let bytes = facts.len();
                return Err(format!("{} has {bytes} bytes", path.display()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.told(&error)),
        }
        std::fs::read_to_string(&path).map(Some).map_err(|error| self.told(&error))
    }
}

impl CrashDirectory {
    fn told(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.0.display())
    }
}

/// Gathers what explanations are made of.
pub(super) struct ByFacts {
    pub tree: TreeHandle,
    pub hub: Arc<Hub>,
    pub partition: PartitionHandle,
    pub complaints: Arc<Complaints>,
    pub clock: Arc<dyn Clock>,
    pub hang_after: Duration,
}

impl Explainer for ByFacts {
    fn explain(&self, subject: &Subject) -> Option<Explanation> {
        let recorders = self.hub.recorders();
        let readings =
            recorders.iter().map(|known| (known.path_text().to_string(), known.reading()));
        let facts = Facts {
            now: self.clock.monotonic(),
            tree: self.tree.status(),
            readings: readings.collect(),
            partitions: vec![self.partition.facts()],
            complaints: self.complaints.list(),
            hang_after: self.hang_after,
        };
        explain(subject, &facts)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests use real files")]
mod tests {
    use super::*;

    #[test]
    fn crash_reports_are_listed_from_the_newest_and_read_by_name_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = CrashDirectory(directory.path().join("crash"));
        assert_eq!(store.list(), Ok(Vec::new()), "no directory yet");
        std::fs::create_dir(&store.0).unwrap();
        for (file, text) in [("2026-a.json", "{}"), ("2027-b.json", "[1]"), ("notes.txt", "")] {
            std::fs::write(store.0.join(file), text).unwrap();
        }
        std::fs::write(directory.path().join("secret.json"), "{}").unwrap();
        let names: Vec<_> = store.list().unwrap().into_iter().map(|crash| crash.name).collect();
        assert_eq!(names, ["2027-b", "2026-a"]);
        assert_eq!(store.read("2027-b"), Ok(Some("[1]".into())));
        for name in ["../secret", "..", "", "/etc/passwd", "nothing", "a/b"] {
            assert_eq!(store.read(name), Ok(None), "{name}");
        }
    }
}
