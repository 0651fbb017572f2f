//! Copies what this node noted into the cluster's topic of it, while access control is on: who takes
//! over a node's disk can make the node's own file anew, and not what others hold. A line may be
//! copied twice after a crash; its number tells.

use super::task;
use super::topics::NodeTopics;
use crate::access::{AUDIT_TOPIC, Gate};
use crate::actors::control::ControlApi;
use crate::actors::topics::TopicError;
use crate::cluster::{Command, TopicSettings};
use crate::frontends::route::{NotTaken, Route, ToAppend};
use crate::guards::RetryPolicy;
use crate::model::{Clock, NodeId, Payload, Record, TopicName, with_causes};
use crate::ops::audit::{AuditLog, AuditTail};
use crate::supervision::Supervisor;
use slog::{Logger, warn};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is copied at once (unit: bytes), and how often at most: a flood of denials is no load for the
/// cluster.
const COPY_BYTES: usize = 64 << 10;
const COPY_EVERY: Duration = Duration::from_millis(200);
/// Replicas that the topic is to have, as soon as there are nodes for them.
const REPLICATION: u32 = 3;
/// Beside the audit log's files: the number of the last line that was copied.
const COPIED: &str = "copied";
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
        let place = self.audit.directory().join(COPIED);
        let tail = tail.get_or_insert_with(|| self.audit.tail(copied(&place)));
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
        set_copied(&place, last).map_err(|error| error.to_string())?;
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

/// Where there is no number, all is copied: once too often does no harm.
#[allow(clippy::disallowed_methods, reason = "the edge where it is kept what was copied")]
fn copied(place: &Path) -> u64 {
    fs::read_to_string(place).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[allow(clippy::disallowed_methods, reason = "the edge where it is kept what was copied")]
fn set_copied(place: &Path, number: u64) -> io::Result<()> {
    let next = place.with_extension("new");
    fs::write(&next, format!("{number}\n"))?;
    fs::rename(next, place)
}
