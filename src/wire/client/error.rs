//! What can go wrong between a client and its node.

use crate::model::Disposition;
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
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {} ({:?})", self.message, self.code)
    }
}

impl ClientError {
    /// Reads a call's status: one that the transport made up, for the connection broke, or one that
    /// the node sent.
    pub(super) fn of(status: Status, address: &str) -> Self {
        if let Some(source) = status.source() {
            // The layers between say the same in longer words.
            let mut innermost = source;
            while let Some(below) = innermost.source() {
                innermost = below;
            }
            return Self::Lost { address: address.into(), source: innermost.to_string().into() };
        }
        let details = status.get_error_details();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let said = details.error_info().and_then(|info| info.metadata.get("definite"));
        // Without the node's word, only an answer that precedes any append is sure.
        let definite = said.map_or(
            matches!(
                status.code(),
                Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented
            ),
            |said| said == "true",
        );
        let message = status.message().to_owned();
        Self::Refused(Refusal { code: status.code(), message, retry_after, definite })
    }

    /// Who must act: the caller, always.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Address { .. }
            | Self::Unavailable { .. }
            | Self::Lost { .. }
            | Self::Refused(_)
            | Self::Protocol { .. } => Disposition::TellCaller,
        }
    }
}
