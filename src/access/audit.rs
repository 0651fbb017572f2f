//! The chain of the audit log: each line holds the hash of the one before it and its own, so that a
//! line that was changed, taken out or put in shows. Lines only; where they are kept is not known here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The topic that every node copies its audit log to. Nodes alone write it, and nobody deletes it.
pub const AUDIT_TOPIC: &str = "_audit";
/// What the first line of all follows.
const BEGINNING: &str = "";

/// What is to be noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the field of the same name of the entry")]
pub struct AuditNote {
    pub kind: &'static str,
    pub subject: Option<String>,
    pub peer: String,
    pub call: String,
    pub what: String,
    pub outcome: String,
}

/// What has become of notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditCounts {
    /// Lines that are stored.
    pub written: u64,
    /// Notes that there was no room for, or that could not be stored.
    pub lost: u64,
}

/// Where it is noted. Never waits; what it has no room for is counted and told in the log itself.
pub trait AuditSink: Send + Sync + std::fmt::Debug {
    /// Notes it.
    fn note(&self, note: AuditNote);

    /// What has become of notes so far.
    fn counts(&self) -> AuditCounts;
}

/// Something that was denied, or an administrative act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Counted from 1, without gaps.
    pub number: u64,
    /// Milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// `denied`, `act`, `lost`, `start`.
    pub kind: String,
    /// Who, as far as that was proved.
    pub subject: Option<String>,
    /// From where.
    pub peer: String,
    /// Which call.
    pub call: String,
    /// What it was about: an action and its object, or the change.
    pub what: String,
    /// How it ended.
    pub outcome: String,
    /// How many times it happened: repeats within a while are one entry.
    pub times: u64,
    /// The hash of the line before it.
    pub previous: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entry: AuditEntry,
    hash: String,
}

/// Why a line does not follow the one before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// It is no line of an audit log, or was cut off.
    #[error("it is no whole line of an audit log")]
    Unreadable,
    /// Its hash is not that of its content.
    #[error("it was changed: its hash is not that of its content")]
    Changed,
    /// It is not the first line, and none is before it.
    #[error("lines are missing before it: it is number {number}, and the log begins with it")]
    Headless {
        /// The line's number.
        number: u64,
    },
    /// It does not follow the line before.
    #[error("a line is missing before it, or was put in: it does not follow the line before")]
    Broken,
}

/// Where the chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The number of the last line; 0: there is none.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self { number: 0, hash: BEGINNING.into() }
    }
}

fn hash_of(entry: &AuditEntry) -> String {
    let bytes = serde_json::to_vec(entry).expect("plain values");
    STANDARD_NO_PAD.encode(digest(&SHA256, &bytes))
}

impl Chain {
    /// The next line, without its end. Number and previous hash are filled in.
    pub fn append(&mut self, mut entry: AuditEntry) -> String {
        entry.number = self.number + 1;
        entry.previous.clone_from(&self.hash);
        let hash = hash_of(&entry);
        *self = Self { number: entry.number, hash: hash.clone() };
        serde_json::to_string(&Line { entry, hash }).expect("plain values")
    }
}

/// Checks a line, and that it follows; `chain` ends with it then. Without a chain the line is where
/// one begins: what was before it is not known.
///
/// # Errors
/// [`AuditFault`].
pub fn verify_line(chain: &mut Option<Chain>, line: &str) -> Result<AuditEntry, AuditFault> {
    let Line { entry, hash } = serde_json::from_str(line).map_err(|_| AuditFault::Unreadable)?;
    if hash_of(&entry) != hash {
        return Err(AuditFault::Changed);
    }
    let follows = chain
        .as_ref()
        .is_none_or(|chain| chain.number + 1 == entry.number && chain.hash == entry.previous);
    if !follows {
        let is_first = chain.as_ref().is_some_and(|chain| chain.number == 0);
        let headless = AuditFault::Headless { number: entry.number };
        return Err(if is_first { headless } else { AuditFault::Broken });
    }
    *chain = Some(Chain { number: entry.number, hash });
    Ok(entry)
}
