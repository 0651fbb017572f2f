//! What the view of a node's inside is joined with: who decides what is logged, where crash reports
//! are, and who knows why something waits.

use crate::actors::explain::{Explanation, Subject};
use crate::actors::handle::PartitionHandle;
use crate::actors::observer::{CrashStore, CrashSummary, Explainer, LogLevelControl};
use crate::actors::partition::{PartitionApi, PartitionState};
use crate::ops::logger::{LevelSpec, LogControl};
use crate::supervision::{ActorPath, State, TreeHandle, TreeStatus};
use std::io;
use std::path::{Path, PathBuf};

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

/// Explains by states alone: what the tree and the partition say of themselves.
pub(super) struct ByState {
    pub tree: TreeHandle,
    pub partition: PartitionHandle,
}

/// The path of the only partition.
const PARTITION: (&str, &str) = ("log/0", "node/partitions/log/0");

impl Explainer for ByState {
    fn explain(&self, subject: &Subject) -> Option<Explanation> {
        match subject {
            Subject::Partition(name) => (name == PARTITION.0).then(|| self.partition()),
            Subject::Actor(path) if path == PARTITION.1 => Some(self.partition()),
            Subject::Actor(path) => {
                let root = self.tree.status();
                let mut at = ActorPath::from(path.as_str());
                // A worker has no state but that of its actor.
                loop {
                    if let Some(found) = root.find(&at) {
                        return Some(of_place(found));
                    }
                    let (above, _) = at.as_str().rsplit_once('/')?;
                    at = ActorPath::from(above);
                }
            }
            Subject::Node => {
                let root = self.tree.status();
                let mut also = Vec::new();
                not_running(&root, &mut also);
                also.retain(|told| told.subject != PARTITION.1);
                let partition = self.partition();
                if partition.reason != "serving" {
                    also.insert(0, partition);
                }
                let mut told = of_place(&root);
                if let Some(worst) = also.first() {
                    told.reason = worst.reason;
                    told.sentence = format!("{}: {}", worst.subject, worst.sentence);
                    told.next.clone_from(&worst.next);
                    told.advice.clone_from(&worst.advice);
                }
                Some(Explanation { also, ..told })
            }
        }
    }
}

impl ByState {
    fn partition(&self) -> Explanation {
        let status = self.partition.describe();
        let path = PARTITION.1;
        let release = || format!("duramen actor release {path}");
        let (reason, sentence, next, advice) = match status.state {
            PartitionState::Serving if status.reason.is_empty() => (
                "serving",
                "it waits for nothing but requests".into(),
                String::new(),
                String::new(),
            ),
            PartitionState::Serving => (
                "disk-full",
                format!("it takes no writes: {}", status.reason),
                "it takes writes again by itself once there is room".into(),
                "free some space, or shorten the retention".into(),
            ),
            PartitionState::Recovering => (
                "recovering",
                format!("it reads its files: {}", status.reason),
                "it serves when it has read them".into(),
                String::new(),
            ),
            PartitionState::Restarting => (
                "restarting",
                format!("its actors are being replaced: {}", status.reason),
                "it recovers from what is on disk, and serves".into(),
                String::new(),
            ),
            PartitionState::Quarantined => (
                "quarantined",
                format!("it left service: {}", status.reason),
                "nothing, until it is released; what was committed can be read".into(),
                release(),
            ),
            PartitionState::Stopped => {
                ("stopped", "it was stopped in order".into(), String::new(), String::new())
            }
        };
        let subject = path.into();
        Explanation { subject, reason, sentence, since: None, next, advice, also: Vec::new() }
    }
}

/// The places that are not running, without those below them: they share their fate.
fn not_running(at: &TreeStatus, found: &mut Vec<Explanation>) {
    for child in &at.children {
        if child.state == State::Running {
            not_running(child, found);
        } else {
            found.push(of_place(child));
        }
    }
}

fn of_place(place: &TreeStatus) -> Explanation {
    let (reason, sentence, next, advice) = match &place.state {
        State::Running => ("running", "it runs".into(), "", String::new()),
        State::Starting => ("starting", "it is not up yet".into(), "it comes up", String::new()),
        State::Stopping => ("stopping", "it is on its way out".into(), "it ends", String::new()),
        State::Stopped => ("stopped", "it has ended".into(), "", String::new()),
        State::Restarting { .. } => {
            let exit = place.last_exit.as_ref().map_or("it ended".into(), ToString::to_string);
            ("restarting", format!("its last life {exit}"), "it starts again", String::new())
        }
        State::Quarantined { reason, .. } => (
            "quarantined",
            format!("it left service: {reason}"),
            "nothing, until it is released",
            format!("duramen actor release {}", place.path),
        ),
    };
    Explanation {
        subject: place.path.to_string(),
        reason,
        sentence,
        since: place.uptime,
        next: next.into(),
        advice,
        also: Vec::new(),
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
