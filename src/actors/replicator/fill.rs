//! Entries that a message only points at, read from the log on the blocking pool: a disk that is
//! slow for one group must not hold up the heartbeats of the others.

use super::super::peers::Outgoing;
use crate::log::LogView;
use crate::model::{GroupId, PeerEntry, PeerKind, PeerPayload, with_causes};
use std::collections::{BTreeMap, VecDeque};
use tokio::task::JoinHandle;

/// A message in the connection's hands.
#[derive(Debug)]
pub(super) struct Held {
    pub outgoing: Outgoing,
    /// The bytes that it counts for in the outbox.
    pub came: u64,
}

/// A message that is dropped, because its entries cannot be read.
#[derive(Debug)]
pub(super) struct Unread {
    pub group: GroupId,
    pub came: u64,
    pub reason: String,
}

/// Messages that wait for the disk, and the one that is read. Appends of a group stay in order:
/// those behind one that is read wait for it; all else overtakes.
#[derive(Debug, Default)]
pub(super) struct Filling {
    waiting: VecDeque<Held>,
    /// Appends per group that wait or are read.
    groups: BTreeMap<GroupId, usize>,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    group: GroupId,
    came: u64,
    /// The way that it was read for is lost. One read at a time all the same: a disk that hangs
    /// must not fill the blocking pool.
    is_stale: bool,
    task: JoinHandle<Result<Held, String>>,
}

fn is_stored(held: &Held) -> bool {
    let mut entries = held.outgoing.message.entries.iter();
    entries.any(|entry| entry.payload == PeerPayload::Stored)
}

impl Filling {
    /// Gives back a message that can leave at once; keeps one that has to wait.
    pub fn sort(&mut self, held: Held) -> Option<Held> {
        let (group, kind) = (held.outgoing.message.group, held.outgoing.message.kind);
        let waits =
            is_stored(&held) || kind == PeerKind::Append && self.groups.contains_key(&group);
        if !waits {
            return Some(held);
        }
        *self.groups.entry(group).or_default() += 1;
        self.waiting.push_back(held);
        None
    }

    /// The next message that is complete. Never resolves while there is none; may be dropped and
    /// called again.
    pub async fn next(&mut self) -> Result<Held, Unread> {
        loop {
            let Some(reading) = &mut self.reading else {
                let Some(held) = self.waiting.pop_front() else {
                    return std::future::pending().await;
                };
                let (group, came) = (held.outgoing.message.group, held.came);
                if !is_stored(&held) {
                    self.leave(group);
                    return Ok(held);
                }
                let task = tokio::task::spawn_blocking(move || fill(held));
                self.reading = Some(Reading { group, came, is_stale: false, task });
                continue;
            };
            let outcome = (&mut reading.task).await;
            let (group, came, is_stale) = (reading.group, reading.came, reading.is_stale);
            self.reading = None;
            if is_stale {
                continue;
            }
            self.leave(group);
            let read = outcome.unwrap_or_else(|error| Err(format!("the read was lost: {error}")));
            return read.map_err(|reason| Unread { group, came, reason });
        }
    }

    fn leave(&mut self, group: GroupId) {
        if let Some(count) = self.groups.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// Forgets all: the way is lost.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.groups.clear();
        if let Some(reading) = &mut self.reading {
            reading.is_stale = true;
        }
    }
}

/// Reads what is only pointed at. Blocks.
fn fill(mut held: Held) -> Result<Held, String> {
    let Outgoing { message, log } = &mut held.outgoing;
    let log = log.as_deref().ok_or("it points at a log and brings none")?;
    for entry in &mut message.entries {
        if entry.payload == PeerPayload::Stored {
            entry.payload = read(log, entry)?;
        }
    }
    Ok(held)
}

/// Reads one entry, and takes it for what was meant only if its term is that, too: the log may have
/// been cut and written anew since.
fn read(log: &LogView, meant: &PeerEntry) -> Result<PeerPayload, String> {
    let stored = log.entry(meant.index).map_err(|error| with_causes(&error))?;
    if stored.term != meant.term {
        let (index, found) = (meant.index, stored.term);
        return Err(format!("entry {index} is of term {found} now, not {}", meant.term));
    }
    Ok(match stored.is_data {
        true => PeerPayload::Data(vec![stored.payload]),
        false => PeerPayload::Internal(stored.payload),
    })
}
