//! The words that every room shares: offsets, terms, records, time, who must act on an error.
//!
//! This room knows nobody. It does no I/O and holds no policy.

mod caller;
mod chance;
mod clock;
pub mod escape;
mod identity;
mod peer;
mod record;
mod seldom;
mod topic;

pub use caller::{Caller, Proof};
pub use chance::Chance;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use identity::{GroupId, NodeId, ReplicaId, TopicId};
pub use peer::{PeerEntry, PeerKind, PeerMessage, PeerPayload, PeerSnapshot};
pub use record::{Header, Payload, Record};
pub use seldom::Seldom;
pub use topic::{FIRST_TOPIC, TopicName, TopicNameError};

use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            serde::Serialize, serde::Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The value that follows this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The value `count` steps on.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0 + count)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// The place of a record in its partition: dense, from 0, never reused (unit: records).
    Offset
);
counter!(
    /// A Raft term: grows with each election.
    Term
);
counter!(
    /// The place of an entry in a partition's Raft log, from 1. Not an offset: an entry holds a
    /// batch of records, or none (unit: entries).
    RaftIndex
);

/// How safe a record is when its acknowledgement is sent, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Handed to the operating system: survives a crash of the process, not of the machine.
    Os,
    /// As [`Durability::Os`], and synced at an interval.
    Interval,
    /// On stable storage. The default.
    Fsync,
}

impl Durability {
    /// The name used in configuration, on the command line and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Interval => "interval",
            Self::Fsync => "fsync",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who must act on an error. Front ends map it to a status; actors stay, crash, or leave service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The request was wrong or came at a bad time: the caller is told, nothing else changes.
    TellCaller,
    /// The actor's state can no longer be trusted: it is rebuilt from disk.
    RebuildActor,
    /// A restart would not help, or would hide damage: the part leaves service with a reason.
    Quarantine,
}

/// An error with its causes, in one line: for reasons that outlive the error value.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
