//! What can go wrong between a client and its node.

use crate::guards::{Classify, ErrorClass};
use crate::model::Disposition;
use crate::wire::convert::leader_keys;
use crate::wire::pb::duramen::v1 as pb;
use crate::wire::turned_away::TurnedAway;
use std::error::Error;
use std::fmt;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What can go wrong between a client and its node.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("\"{address}\" is not an address; expected host:port")]
    Address {
        /// What was given.
        address: String,
    },
    /// No connection could be made.
    #[error("cannot reach a duramen node at {address}")]
    Unavailable {
        /// Where.
        address: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke: whatever was not answered is unknown.
    #[error("the connection to {address} was lost")]
    Lost {
        /// The node it led to.
        address: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The node understood and said no.
    #[error("{0}")]
    Refused(Refusal),
    /// It was tried until its time ran out.
    #[error(
        "no acknowledgement within {after:?}{}",
        if *.definite { "" } else { "; whether it is stored is unknown" }
    )]
    Deadline {
        /// The time it had.
        after: Duration,
        /// True: nothing was stored. False: it is unknown.
        definite: bool,
        /// What stood in the way last, where that is known.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The node said what it must not.
    #[error("the node does not keep to the protocol: {what}")]
    Protocol {
        /// What it did.
        what: String,
    },
}

/// A node's no, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A canonical gRPC status code.
    pub code: Code,
    /// The reason, for people.
    pub message: String,
    /// Set where the same request may succeed after this time.
    pub retry_after: Option<Duration>,
    /// True: nothing of the request was or will be stored. False: it is unknown.
    pub definite: bool,
    /// Who takes the request, where another node does.
    pub leader: Option<LeaderHint>,
}

/// Who leads a partition, as a node that does not told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The node's number.
    pub node: u32,
    /// Where it answers.
    pub address: String,
    /// Since which term it leads.
    pub term: u64,
}

impl LeaderHint {
    /// What a response says; `None` where nobody is known to lead.
    pub(super) fn read(leader: Option<pb::Leader>) -> Option<Self> {
        let pb::Leader { node, rpc_addr, term } = leader?;
        (node != 0 && !rpc_addr.is_empty()).then_some(Self { node, address: rpc_addr, term })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {} ({:?})", self.message, self.code)
    }
}

impl ClientError {
    /// Reads a call's status: one that the transport made up, for the connection broke, or one that
    /// the node sent.
    pub(in crate::wire) fn of(status: Status, address: &str) -> Self {
        if let Some(source) = status.source() {
            if let Some(turned_away) = TurnedAway::found_in(source) {
                return Self::Lost { address: address.into(), source: Box::new(turned_away) };
            }
            // The layers between say the same in longer words.
            let mut innermost = source;
            while let Some(below) = innermost.source() {
                innermost = below;
            }
            return Self::Lost { address: address.into(), source: innermost.to_string().into() };
        }
        let details = status.get_error_details();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let word = |key| details.error_info().and_then(|info| info.metadata.get(key));
        let said = word("definite");
        let number = |key| word(key).and_then(|text: &String| text.parse().ok()).unwrap_or(0);
        let leader = word(leader_keys::RPC_ADDR).map(|address| LeaderHint {
            node: u32::try_from(number(leader_keys::NODE)).unwrap_or(0),
            address: address.clone(),
            term: number(leader_keys::TERM),
        });
        // Without the node's word, only an answer that precedes any append is sure.
        let definite = said.map_or(
            matches!(
                status.code(),
                Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented
            ),
            |said| said == "true",
        );
        let message = status.message().to_owned();
        Self::Refused(Refusal { code: status.code(), message, retry_after, definite, leader })
    }

    /// Why the client and the node do not let each other in; `None`: that is not what it failed for.
    pub fn turned_away(&self) -> Option<TurnedAway> {
        match self {
            Self::Unavailable { source, .. } | Self::Lost { source, .. } => {
                TurnedAway::found_in(source.as_ref())
            }
            _ => None,
        }
    }

    /// With what the node said no, where it did.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Whether nothing of the request was or will be stored, for certain.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Unavailable { .. } => true,
            Self::Lost { .. } | Self::Protocol { .. } => false,
            Self::Refused(refusal) => refusal.definite,
            Self::Deadline { definite, .. } => *definite,
        }
    }

    /// Whether there is no such offset.
    pub fn is_out_of_range(&self) -> bool {
        matches!(self, Self::Refused(Refusal { code: Code::OutOfRange, .. }))
    }

    /// Who must act: the caller, always.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Address { .. }
            | Self::Unavailable { .. }
            | Self::Lost { .. }
            | Self::Refused(_)
            | Self::Deadline { .. }
            | Self::Protocol { .. } => Disposition::TellCaller,
        }
    }
}

/// For calls that change nothing, or that are stored once however often they are sent.
impl Classify for ClientError {
    fn class(&self) -> ErrorClass {
        match self {
            _ if self.turned_away().is_some() => ErrorClass::Permanent,
            Self::Unavailable { .. } | Self::Lost { .. } => ErrorClass::Retryable,
            Self::Refused(refusal) => refusal.class(),
            Self::Address { .. } | Self::Deadline { .. } | Self::Protocol { .. } => {
                ErrorClass::Permanent
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

impl Classify for Refusal {
    fn class(&self) -> ErrorClass {
        let may_pass =
            self.retry_after.is_some() || self.leader.is_some() || self.code == Code::Unavailable;
        if may_pass { ErrorClass::Retryable } else { ErrorClass::Permanent }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
