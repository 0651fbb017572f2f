//! Copies what this node noted into the cluster's topic of it, while access control is on: who takes
//! over a node's disk can make the node's own file anew, and not what others hold. A line may be
//! copied twice after a crash; its number tells.

use super::task;
use super::topics::NodeTopics;
use crate::access::{AUDIT_TOPIC, AuditNote, AuditSink, Gate};
use crate::actors::control::ControlApi;
use crate::actors::topics::TopicError;
use crate::cluster::{Command, TopicSettings};
use crate::frontends::route::{NotTaken, Route, ToAppend};
use crate::guards::RetryPolicy;
use crate::model::{Clock, NodeId, Payload, Record, TopicName, with_causes};
use crate::ops::audit::{AuditLog, AuditTail, copied, end, set_copied};
use crate::supervision::Supervisor;
use slog::{Logger, error, warn};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is copied at once (unit: bytes), and how often at most: a flood of denials is no load for the
/// cluster.
const COPY_BYTES: usize = 64 << 10;
const COPY_EVERY: Duration = Duration::from_millis(200);
/// Replicas that the topic is to have, as soon as there are nodes for them.
const REPLICATION: u32 = 3;
/// Pauses between tries.
const PAUSES: RetryPolicy = RetryPolicy {
    retries_max: u32::MAX,
    initial: Duration::from_millis(200),
    factor: 2.0,
    pause_max: Duration::from_secs(10),
    jitter: 0.0,
};
/// After so many tries in a row that failed, a line in the log tells of it.
const TOLD_AFTER: u32 = 5;

/// What copies.
#[derive(Debug, Clone)]
pub(super) struct AuditCopy {
    pub audit: AuditLog,
    pub route: Route<NodeTopics>,
    pub control: Arc<dyn ControlApi>,
    pub gate: Gate,
    pub clock: Arc<dyn Clock>,
    pub logger: Logger,
}

impl AuditCopy {
    /// Puts it below `root`.
    pub fn below(self, root: &Supervisor) {
        task::below(root, "audit", move || self.clone().follow());
    }

    async fn follow(self) {
        let mut stored = self.audit.stored();
        let mut laws = self.gate.watch();
        let mut tail = None;
        let mut failures = 0;
        loop {
            stored.mark_unchanged();
            laws.mark_unchanged();
            let copied = match self.control.node() {
                Some(me) if !self.gate.is_open() => self.copy(me, &mut tail).await,
                _ => Ok(false),
            };
            match copied {
                Ok(true) => {
                    failures = 0;
                    tokio::time::sleep(COPY_EVERY).await;
                }
                Ok(false) => {
                    failures = 0;
                    // Their senders live in what is held here.
                    tokio::select! {
                        _ = stored.changed() => {}
                        _ = laws.changed() => {}
                    }
                }
                Err(reason) => {
                    if failures == TOLD_AFTER {
                        warn!(self.logger, "what was noted is not copied to its topic; it is in the \
                            node's own file"; "topic" => AUDIT_TOPIC, "reason" => reason);
                    }
                    tokio::time::sleep(PAUSES.pause(failures, 0.0)).await;
                    failures = failures.saturating_add(1);
                    // What was read and not stored is read again.
                    tail = None;
                }
            }
        }
    }

    /// Copies a piece; false: there is nothing to copy.
    async fn copy(&self, me: NodeId, tail: &mut Option<AuditTail>) -> Result<bool, String> {
        let directory = self.audit.directory();
        let tail = tail.get_or_insert_with(|| self.audit.tail(copied(directory)));
        let lines = tail.read(COPY_BYTES).map_err(|error| error.to_string())?;
        let Some(last) = lines.last().map(|(number, _)| *number) else {
            return Ok(false);
        };
        let now = self.clock.wall();
        let record = |(_, line): (u64, String)| Record {
            key: Some(Payload::from(me.to_string().into_bytes())),
            ..Record::of_value(line.into_bytes(), now)
        };
        let records = ToAppend::Records(lines.into_iter().map(record).collect());
        match self.route.append(AUDIT_TOPIC, 0, records, Some("")) {
            Ok(pending) => pending.await.map_err(|error| error.to_string())?,
            Err(NotTaken::Topic(TopicError::UnknownTopic { .. })) => {
                self.make_topic().await?;
                return Err("its topic is new".into());
            }
            Err(error) => return Err(with_causes(&error)),
        };
        set_copied(directory, last).map_err(|error| error.to_string())?;
        Ok(true)
    }

    async fn make_topic(&self) -> Result<(), String> {
        let name = TopicName::new(AUDIT_TOPIC).map_err(|error| error.to_string())?;
        let made = self.control.change(Command::CreateTopic {
            name,
            partitions: 1,
            replication_factor: REPLICATION,
            settings: TopicSettings::default(),
        });
        made.await.map(drop).map_err(|error| error.to_string())
    }
}

/// Tells of an audit log that ends before what was copied of it, in the node's log and in itself; what is
/// written from here on is copied, though its numbers were before. To be asked before anything is
/// noted, which may make up for the numbers.
pub(super) fn tell_cut_off(audit: &AuditLog, data_dir: &Path, logger: &Logger) {
    let (directory, copied) = (audit.directory(), copied(audit.directory()));
    let go_on = |end: u64| {
        if end >= copied {
            return Ok(());
        }
        error!(logger, "the audit log ends before what was copied of it: lines were taken out, or it \
            was put back as it once was; `duramen audit verify --cluster --data-dir {}` compares",
            data_dir.display(); "last_line" => end, "copied_line" => copied);
        audit.note(AuditNote {
            kind: "lost",
            what: format!("lines behind {end} are missing: line {copied} was copied before"),
            ..AuditNote::default()
        });
        set_copied(directory, end)
    };
    if let Err(error) = end(directory).and_then(go_on) {
        warn!(logger, "whether the audit log goes on from what was copied of it is not known";
            "directory" => %directory.display(), "error" => %error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;
    use crate::ops::audit;
    use slog::o;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn start(data_dir: &Path) -> AuditLog {
        let logger = Logger::root(slog::Discard, o!());
        let audit = AuditLog::new(data_dir, Arc::new(SystemClock::new()), logger.clone());
        tell_cut_off(&audit, data_dir, &logger);
        audit
    }

    fn note(audit: &AuditLog, what: &str) {
        audit.note(AuditNote { kind: "act", what: what.into(), ..AuditNote::default() });
    }

    fn whats(audit: &AuditLog) -> Vec<String> {
        let mut whats = Vec::new();
        audit::read(audit.directory(), |entry| whats.push(entry.what)).unwrap();
        whats
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "it cuts the file off")]
    fn a_log_that_was_cut_off_says_so_itself_and_is_copied_from_there_on() {
        let data_dir = tempfile::tempdir().unwrap();
        let first = start(data_dir.path());
        ["a", "b", "c"].iter().for_each(|what| note(&first, what));
        assert!(first.flush(PATIENCE));
        set_copied(first.directory(), 3).unwrap();
        let whole = start(data_dir.path());
        assert!(whole.flush(PATIENCE));
        assert_eq!(whats(&whole), ["a", "b", "c"]);

        let file = audit::files(first.directory()).unwrap().remove(0);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.split_inclusive('\n').take(1).collect::<String>()).unwrap();
        let cut_off = start(data_dir.path());
        note(&cut_off, "d");
        assert!(cut_off.flush(PATIENCE));
        let told = "lines behind 1 are missing: line 3 was copied before";
        assert_eq!(whats(&cut_off), ["a", told, "d"]);
        let mut tail = cut_off.tail(copied(cut_off.directory()));
        let to_copy = tail.read(COPY_BYTES).unwrap();
        assert_eq!(to_copy.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 3]);
        // Told once.
        set_copied(cut_off.directory(), 3).unwrap();
        assert!(start(data_dir.path()).flush(PATIENCE));
        assert_eq!(whats(&cut_off).len(), 3);
    }
}
