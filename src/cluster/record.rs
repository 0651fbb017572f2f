//! How the catalogue is written: the records of the controller's group, and the answers that
//! travel between nodes. JSON with a version in front, so that a node which is too old for what
//! its cluster writes says so, and neither guesses nor skips.

use super::access::OnBehalf;
use super::catalogue::Catalogue;
use super::command::{Command, Outcome, Rejection};
use crate::model::{Disposition, NodeId, Offset};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The newest protocol that this program speaks with other nodes: the catalogue's records, and
/// what replicas say to each other.
pub const PROTOCOL: u32 = 3;
/// The oldest that it still speaks.
pub const PROTOCOL_MIN: u32 = 1;

/// The protocol from which on commands say on whose behalf they are.
const ON_BEHALF_SINCE: u32 = 3;

/// The form of the records that this program writes.
const FORMAT: u32 = 1;
/// A record beyond this is not looked into.
const BYTES_MAX: usize = 32 << 20;
/// Nodes that a command may name as absent.
const ABSENT_MAX: usize = 1_000;

/// A record of the controller's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueRecord {
    /// A change.
    Command {
        /// Which.
        command: Command,
        /// The nodes that the proposer held for absent: they get nothing new by this command.
        absent: Vec<NodeId>,
        /// Whoever asked for it, unless a node did by itself.
        by: Option<OnBehalf>,
    },
    /// The whole catalogue, so that nothing before it is needed.
    Snapshot {
        /// As it was before this record …
        catalogue: Catalogue,
        /// … if this is its offset: one that came to lie elsewhere has missed commands.
        at: Offset,
    },
}

/// What a node answers another one whose command it has carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Where the command is in the controller's log.
    pub offset: Offset,
    /// What the catalogue said.
    pub outcome: Result<Outcome, Rejection>,
}

/// Why a record cannot be read. Nothing that comes after it may be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A newer program wrote it.
    #[error(
        "this node reads form {FORMAT} of the catalogue, the cluster writes {theirs}: upgrade this \
         node (it applies nothing until then)"
    )]
    Newer {
        /// Its version.
        theirs: u32,
    },
    /// The version is ours, the content is not.
    #[error(
        "a record of {bytes} bytes holds nothing that protocol {PROTOCOL} knows ({reason}): upgrade \
         this node (it applies nothing until then)"
    )]
    Unknown {
        /// How long it is.
        bytes: usize,
        /// What does not fit, without its content.
        reason: String,
    },
}

impl RecordError {
    /// Who must act: a person. What cannot be applied today cannot be applied after a restart.
    pub fn disposition(&self) -> Disposition {
        Disposition::Quarantine
    }
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// Flat, and without `serde(flatten)`: that reads no maps whose keys are numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<C, S> {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<C>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    absent: Vec<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<OnBehalf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<S>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Offset>,
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("plain values whose keys are texts or numbers").into()
}

fn read<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, RecordError> {
    let unknown = |reason: String| RecordError::Unknown { bytes: bytes.len(), reason };
    if bytes.len() > BYTES_MAX {
        return Err(unknown(format!("over {BYTES_MAX} bytes")));
    }
    // The place only: what serde says may quote the content.
    let told = |error: serde_json::Error| {
        unknown(format!("line {}, column {}", error.line(), error.column()))
    };
    let Version { v } = serde_json::from_slice(bytes).map_err(told)?;
    if v != FORMAT {
        return Err(RecordError::Newer { theirs: v });
    }
    serde_json::from_slice(bytes).map_err(told)
}

impl CatalogueRecord {
    /// A command, in words that the cluster of this protocol knows: as long as a member speaks an older
    /// one, nobody is told on whose behalf it is, and only the node that was asked has judged it.
    pub fn command(
        command: Command,
        absent: Vec<NodeId>,
        by: Option<OnBehalf>,
        protocol: u32,
    ) -> Self {
        Self::Command { command, absent, by: by.filter(|_| protocol >= ON_BEHALF_SINCE) }
    }

    /// As bytes of a record.
    pub fn encode(&self) -> Bytes {
        let (command, absent, by, snapshot, at) = Default::default();
        let mut written = Written { v: FORMAT, command, absent, by, snapshot, at };
        match self {
            Self::Command { command, absent, by } => {
                (written.command, written.absent) = (Some(command), absent.clone());
                written.by.clone_from(by);
            }
            Self::Snapshot { catalogue, at } => {
                (written.snapshot, written.at) = (Some(catalogue), Some(*at));
            }
        }
        json(&written)
    }

    /// Reads what [`CatalogueRecord::encode`] wrote.
    ///
    /// # Errors
    /// It is newer than this program, or not of the catalogue.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let unknown =
            |reason: &str| RecordError::Unknown { bytes: bytes.len(), reason: reason.to_owned() };
        let Written { v: _, command, absent, by, snapshot, at } = read(bytes)?;
        match (command, snapshot, at) {
            (Some(_), None, None) if absent.len() > ABSENT_MAX => {
                Err(unknown("too many absent nodes"))
            }
            (Some(command), None, None) => Ok(Self::Command { command, absent, by }),
            (None, Some(snapshot), Some(at)) if by.is_none() => {
                let catalogue: Catalogue = snapshot;
                catalogue
                    .fault()
                    .map_or(Ok(Self::Snapshot { catalogue, at }), |fault| Err(unknown(&fault)))
            }
            _ => Err(unknown("neither a command nor a snapshot")),
        }
    }
}

impl Answer {
    /// As bytes of an answer.
    pub fn encode(&self) -> Bytes {
        json(self)
    }

    /// Reads what [`Answer::encode`] wrote; `None` where it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|_| bytes.len() <= BYTES_MAX)
    }
}
