//! Why a call was refused, once for all: it becomes a call's status or an `error` within a stream.

use super::places::{self, AllTaken};
use crate::access::Denied;
use crate::actors::control::ControlError;
use crate::actors::observer::ObserveError;
use crate::actors::partition::{LeaderHint, ProduceError, ReadError};
use crate::actors::topics::{CATALOGUE_RETRY_AFTER, TopicError};
use crate::cluster::RejectionKind;
use crate::frontends::intake::{self, NotTakenIn};
use crate::frontends::route::{NotRead, NotTaken};
use crate::observe::metrics::Outcome;
use crate::wire::convert::leader_keys;
use crate::wire::pb::duramen::v1 as pb;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Another node takes it.
const NOT_LEADER: &str = "NOT_LEADER";

/// Whoever asks may not.
const DENIED: &str = "DENIED";

/// A leader as it is told.
pub fn to_pb(leader: LeaderHint) -> pb::Leader {
    pb::Leader { node: leader.node.0, rpc_addr: leader.rpc_addr, term: leader.term.0 }
}

/// A refusal on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: Code,
    /// A word for programs, finer than the code (`google.rpc.ErrorInfo.reason`).
    reason: &'static str,
    message: String,
    retry_after: Option<Duration>,
    definite: bool,
    /// Who takes it instead.
    leader: Option<LeaderHint>,
}

impl Refusal {
    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, reason, message, retry_after: None, definite: true, leader: None }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "INVALID", message)
    }

    /// The node is stopping.
    pub fn draining() -> Self {
        Self::new(Code::Unavailable, "STOPPING", "the node is stopping; try again later")
    }

    /// The partition's watch is closed: it is gone for good.
    pub fn gone() -> Self {
        Self::new(Code::Unavailable, "STOPPED", "the partition has stopped; try again later")
    }

    /// More partitions are refused for now on one stream than are kept track of.
    pub fn too_many_paused(max: usize) -> Self {
        let message = format!(
            "requests to {max} partitions of this stream are refused for now, and more are not kept \
             apart; use several streams, or try again later"
        );
        Self::new(Code::ResourceExhausted, "OVERLOADED", message)
    }

    /// The caller's time ran out before a read was answered.
    pub fn read_deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "DEADLINE", "the deadline passed; nothing was changed")
    }

    /// The caller's time ran out before an action was under way; the tree carries it out all the
    /// same.
    pub fn action_deadline() -> Self {
        let message = "the deadline passed before the action was under way; `duramen ps` tells";
        Self { definite: false, ..Self::new(Code::DeadlineExceeded, "DEADLINE", message) }
    }

    /// Acting on the node is for those on its machine.
    pub fn stranger(peer: IpAddr) -> Self {
        let message = format!(
            "{peer} may look and not act: callers do not prove who they are, so only those on the \
             node's own machine may; do it there, by its loopback address"
        );
        Self::new(Code::PermissionDenied, "NOT_THIS_MACHINE", message)
    }

    /// Another node leads, in the words of the book's server.
    pub fn book_not_leader() -> Self {
        Self::new(Code::Unknown, NOT_LEADER, "node is not the leader")
    }

    /// The state of the cluster does not allow it.
    pub fn not_now(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, "NOT_NOW", message)
    }

    /// There is no such thing in the cluster.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, "NOT_FOUND", message)
    }

    /// Why, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is that whoever asks may not.
    pub fn is_denied(&self) -> bool {
        self.reason == DENIED
    }

    /// As what it is counted.
    pub fn outcome(&self) -> Outcome {
        if self.definite { outcome_of(self.code) } else { Outcome::Failed }
    }

    /// When the same request may succeed, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What is wrong with the request, where the client is to blame and not the time.
    pub fn mistake(&self) -> Option<&str> {
        matches!(self.code, Code::InvalidArgument | Code::NotFound).then_some(&self.message)
    }

    /// The refusal as a field of a stream's response.
    pub fn into_pb(self) -> pb::Error {
        let retry_after_ms = self
            .retry_after
            .map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1));
        // Known to be another one's, also where nobody knows whose.
        let leader = (self.reason == NOT_LEADER)
            .then(|| self.leader.map_or_else(pb::Leader::default, to_pb));
        pb::Error {
            code: self.code as i32,
            message: self.message,
            retry_after_ms,
            definite: self.definite,
            leader,
        }
    }
}

/// As what a call that ended with this code is counted.
pub fn outcome_of(code: Code) -> Outcome {
    match code {
        Code::Ok => Outcome::Ok,
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented => {
            Outcome::Invalid
        }
        Code::ResourceExhausted
        | Code::Unavailable
        | Code::FailedPrecondition
        | Code::Unauthenticated
        | Code::PermissionDenied => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut facts = HashMap::from([("definite".to_owned(), refusal.definite.to_string())]);
        if let Some(LeaderHint { node, rpc_addr, term }) = &refusal.leader {
            facts.insert(leader_keys::NODE.into(), node.0.to_string());
            facts.insert(leader_keys::RPC_ADDR.into(), rpc_addr.clone());
            facts.insert(leader_keys::TERM.into(), term.0.to_string());
        }
        let mut details = ErrorDetails::with_error_info(refusal.reason, "duramen", facts);
        if let Some(after) = refusal.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(refusal.code, refusal.message, details)
    }
}

impl From<ProduceError> for Refusal {
    fn from(error: ProduceError) -> Self {
        let (code, reason) = match &error {
            ProduceError::Invalid { .. } => (Code::InvalidArgument, "INVALID"),
            ProduceError::TooLarge { .. } => (Code::InvalidArgument, "TOO_LARGE"),
            ProduceError::Overloaded { .. } => (Code::ResourceExhausted, "OVERLOADED"),
            ProduceError::Restarting { .. } => (Code::Unavailable, "RESTARTING"),
            ProduceError::Quarantined { .. } => (Code::Unavailable, "QUARANTINED"),
            ProduceError::DiskFull { .. } => (Code::ResourceExhausted, "DISK_FULL"),
            ProduceError::NotLeader { .. } => (Code::Unavailable, NOT_LEADER),
            ProduceError::ReadOnly { .. } => (Code::FailedPrecondition, "READ_ONLY"),
            ProduceError::Denied { .. } => (Code::PermissionDenied, DENIED),
            ProduceError::Sequence { .. } => (Code::FailedPrecondition, "SEQUENCE"),
            ProduceError::Stopped { .. } => (Code::Unavailable, "STOPPED"),
            // Not UNAVAILABLE: clients retry that by themselves, and would store records twice.
            ProduceError::Unknown { .. } => (Code::Unknown, "OUTCOME_UNKNOWN"),
            ProduceError::Deadline => (Code::DeadlineExceeded, "DEADLINE"),
        };
        let message = error.to_string();
        let (retry_after, definite) = (error.retry_after(), error.is_definite());
        let leader = match error {
            ProduceError::NotLeader { leader, .. } => leader,
            _ => None,
        };
        Self { retry_after, definite, leader, ..Self::new(code, reason, message) }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::OutOfRange { .. } => Self::new(Code::OutOfRange, "OUT_OF_RANGE", message),
            ReadError::Corrupt { .. } => Self::new(Code::DataLoss, "CORRUPT", message),
            ReadError::Unavailable { retry_after, .. } => Self {
                retry_after: Some(retry_after),
                ..Self::new(Code::Unavailable, "UNAVAILABLE", message)
            },
            ReadError::Elsewhere { .. } => {
                Self::new(Code::FailedPrecondition, "ELSEWHERE", message)
            }
            ReadError::Io { .. } => Self::new(Code::Internal, "IO", message),
        }
    }
}

impl From<ObserveError> for Refusal {
    fn from(error: ObserveError) -> Self {
        let (code, reason) = match &error {
            ObserveError::UnknownPlace { .. } => (Code::NotFound, "UNKNOWN_PLACE"),
            ObserveError::AmbiguousPlace { .. } => (Code::InvalidArgument, "AMBIGUOUS_PLACE"),
            ObserveError::Invalid { .. } => (Code::InvalidArgument, "INVALID"),
            ObserveError::NotNow { .. } => (Code::FailedPrecondition, "NOT_NOW"),
            ObserveError::TooManyTaps(_) => (Code::ResourceExhausted, "TOO_MANY_TAPS"),
            ObserveError::ForeignLogger => (Code::FailedPrecondition, "FOREIGN_LOGGER"),
            ObserveError::Ended => (Code::Unavailable, "STOPPED"),
        };
        Self::new(code, reason, error.to_string())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let (code, reason, retry_after) = match &denied {
            Denied::Unauthenticated(_) => (Code::Unauthenticated, "UNAUTHENTICATED", None),
            Denied::Forbidden { .. } | Denied::OnlyNode | Denied::NotNode { .. } => {
                (Code::PermissionDenied, DENIED, None)
            }
            Denied::TooOften { retry_after } => {
                (Code::ResourceExhausted, "TOO_OFTEN", Some(*retry_after))
            }
            Denied::NotKnownYet { .. } => {
                (Code::Unavailable, "POLICY_NOT_KNOWN_YET", Some(CATALOGUE_RETRY_AFTER))
            }
        };
        Self { retry_after, ..Self::new(code, reason, denied.to_string()) }
    }
}

impl From<NotTakenIn> for Refusal {
    fn from(error: NotTakenIn) -> Self {
        let message = error.to_string();
        match error {
            NotTakenIn::GaveWay { .. } => Self {
                retry_after: Some(intake::RETRY_AFTER),
                ..Self::new(Code::ResourceExhausted, "OVERLOADED", message)
            },
            NotTakenIn::TooLarge { .. } => Self::new(Code::ResourceExhausted, "TOO_LARGE", message),
            NotTakenIn::Late(_) => Self::new(Code::DeadlineExceeded, "DEADLINE", message),
            NotTakenIn::CutOff { .. } => Self::new(Code::InvalidArgument, "CUT_OFF", message),
            NotTakenIn::Broken(_) => Self::new(Code::Unknown, "BROKEN", message),
        }
    }
}

impl From<AllTaken> for Refusal {
    fn from(error: AllTaken) -> Self {
        let refusal = Self::new(Code::ResourceExhausted, "OVERLOADED", error.to_string());
        Self { retry_after: Some(places::RETRY_AFTER), ..refusal }
    }
}

impl From<NotTaken> for Refusal {
    fn from(error: NotTaken) -> Self {
        match error {
            NotTaken::Topic(error) => error.into(),
            NotTaken::Produce(error) => error.into(),
        }
    }
}

impl From<NotRead> for Refusal {
    fn from(error: NotRead) -> Self {
        match error {
            NotRead::Topic(error) => error.into(),
            NotRead::Read(error) => error.into(),
        }
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        let (code, reason) = match &error {
            ControlError::Rejected(rejection) => match rejection.kind {
                RejectionKind::Exists => (Code::AlreadyExists, "EXISTS"),
                RejectionKind::NotFound => (Code::NotFound, "NOT_FOUND"),
                RejectionKind::Invalid => (Code::InvalidArgument, "INVALID"),
                RejectionKind::NotNow => (Code::FailedPrecondition, "NOT_NOW"),
                RejectionKind::Foreign => (Code::PermissionDenied, "FOREIGN"),
                RejectionKind::Denied => (Code::PermissionDenied, DENIED),
            },
            ControlError::Unavailable { .. } => (Code::Unavailable, "NO_CONTROLLER"),
            ControlError::Unknown { .. } => (Code::Unknown, "OUTCOME_UNKNOWN"),
            ControlError::Invalid { .. } => (Code::InvalidArgument, "INVALID"),
        };
        let mut refusal = Self::new(code, reason, message);
        refusal.definite = !matches!(error, ControlError::Unknown { .. });
        if let ControlError::Unavailable { retry_after, .. } = error {
            refusal.retry_after = Some(retry_after);
        }
        refusal
    }
}

impl From<TopicError> for Refusal {
    fn from(error: TopicError) -> Self {
        let (code, reason) = match &error {
            TopicError::Name(_) => (Code::InvalidArgument, "INVALID_NAME"),
            TopicError::NotKnownYet { .. } => {
                let refusal = Self::new(Code::Unavailable, "CATALOGUE_BEHIND", error.to_string());
                return Self { retry_after: Some(CATALOGUE_RETRY_AFTER), ..refusal };
            }
            TopicError::UnknownTopic { .. } => (Code::NotFound, "UNKNOWN_TOPIC"),
            TopicError::UnknownPartition { .. } => (Code::NotFound, "UNKNOWN_PARTITION"),
        };
        Self::new(code, reason, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_tells_when_to_retry_in_both_forms() {
        let retry_after = Duration::from_millis(25);
        let error = ProduceError::Overloaded { message: "64 MiB wait".into(), retry_after };
        let refusal = Refusal::from(error);
        let field = refusal.clone().into_pb();
        assert_eq!((field.code, field.retry_after_ms, field.definite), (8, 25, true));
        let status = Status::from(refusal);
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(retry_after));
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
    }

    #[test]
    fn an_unknown_outcome_is_never_a_code_that_clients_retry_by_themselves() {
        for error in [ProduceError::Unknown { message: "died".into() }, ProduceError::Deadline] {
            let field = Refusal::from(error).into_pb();
            assert!(!field.definite);
            assert!([2, 4].contains(&field.code), "{}", field.code);
        }
    }

    #[test]
    fn a_short_pause_is_not_rounded_down_to_no_pause() {
        let retry_after = Duration::from_micros(10);
        let error = ProduceError::Restarting { message: "back soon".into(), retry_after };
        assert_eq!(Refusal::from(error).into_pb().retry_after_ms, 1);
    }
}
