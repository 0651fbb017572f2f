//! What callers and operators are told. The one thing a caller must know is whether the message
//! may have had an effect: a [`Refused`] never had.

use super::ActorPath;
use crate::model::{Disposition, Timestamp};
use std::fmt;
use std::time::Duration;

/// Which bound an overloaded actor has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The count of requests under way.
    Messages,
    /// The bytes of requests under way.
    Bytes,
    /// The mailbox.
    Mailbox,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Messages => "requests",
            Self::Bytes => "bytes",
            Self::Mailbox => "messages",
        })
    }
}

/// The message was not delivered: nothing happened, and the caller may try again where that helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The actor is between two lives.
    #[error("{path} is restarting; nothing was done, try again in {retry_after:?}")]
    Restarting {
        /// Whom the message was for.
        path: ActorPath,
        /// A hint, not a promise.
        retry_after: Duration,
    },
    /// The actor has as much under way as it admits.
    #[error(
        "{path} is overloaded: too many {what} under way; nothing was done, slow down and try \
         again in {retry_after:?}"
    )]
    Overloaded {
        /// Whom the message was for.
        path: ActorPath,
        /// A hint, not a promise.
        retry_after: Duration,
        /// The bound reached.
        what: Load,
    },
    /// The actor has ended and will not come back.
    #[error("{path} is stopped; nothing was done")]
    Stopped {
        /// Whom the message was for.
        path: ActorPath,
    },
    /// The actor left service until an operator releases it.
    #[error(
        "{path} is quarantined: {reason}; nothing was done; mend the cause, then \
         `duramen actor release {path}`"
    )]
    Quarantined {
        /// Whom the message was for.
        path: ActorPath,
        /// Why it left service.
        reason: String,
        /// When it did.
        since: Timestamp,
    },
}

impl Refused {
    /// Whom the message was for.
    pub fn path(&self) -> &ActorPath {
        match self {
            Self::Restarting { path, .. }
            | Self::Overloaded { path, .. }
            | Self::Stopped { path }
            | Self::Quarantined { path, .. } => path,
        }
    }

    /// When a further try may succeed; `None` where waiting does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Restarting { retry_after, .. } | Self::Overloaded { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Stopped { .. } | Self::Quarantined { .. } => None,
        }
    }

    /// Who must act.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

/// Why an ask has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not delivered.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Delivered, and the actor died, or dropped the request, before it answered.
    #[error("{path} died before it answered; the outcome is unknown, look before trying again")]
    Died {
        /// Whom the message was for.
        path: ActorPath,
    },
    /// Delivered, and not answered in time.
    #[error("{path} did not answer within {after:?}; the outcome is unknown")]
    Deadline {
        /// Whom the message was for.
        path: ActorPath,
        /// The time that it was given.
        after: Duration,
    },
}

impl AskError {
    /// Whether it is certain that nothing was done.
    pub fn is_definite(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Who must act.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

/// Why the tree did not do what an operator asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// No such place.
    #[error("there is no {path} in the tree; `duramen ps` lists what there is")]
    Unknown {
        /// The path asked for.
        path: ActorPath,
    },
    /// The name is taken.
    #[error("{path} exists already; remove it first")]
    Exists {
        /// The path asked for.
        path: ActorPath,
    },
    /// The place exists, but is not one that this can be done to.
    #[error("{path} is {state}: cannot {verb} it")]
    NotNow {
        /// The path asked for.
        path: ActorPath,
        /// What was asked.
        verb: &'static str,
        /// What it is or does at present.
        state: String,
    },
    /// The tree has ended.
    #[error("the tree has ended")]
    Ended,
}

impl TreeError {
    /// Who must act.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

/// The root gave up: the process is to end with a code of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} failed beyond what its supervisors put up with: {reason}")]
pub struct Escalation {
    /// The child whose exit was the last straw.
    pub path: ActorPath,
    /// Why it exited.
    pub reason: String,
}
