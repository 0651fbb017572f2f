//! The seam to the controller: what a node may ask of the cluster's catalogue, whoever leads it.

use crate::cluster::{Catalogue, Command, NodeSelf, OnBehalf, Outcome, Rejection};
use crate::model::{Disposition, NodeId};
use bytes::Bytes;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// An answer on its way.
pub type Answering<T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + Send>>;

/// Everything that a node may do with the catalogue. Callable from any thread.
pub trait ControlApi: Send + Sync + fmt::Debug {
    /// The catalogue as this node has applied it.
    fn catalogue(&self) -> Arc<Catalogue>;

    /// As it changes.
    fn watch(&self) -> watch::Receiver<Arc<Catalogue>>;

    /// Whether the catalogue is no older than this life of the node: what is not in it does not
    /// exist, or came to be just now.
    fn is_current(&self) -> bool {
        true
    }

    /// Resolves once the catalogue is as new as the controller's leader, which a majority still follows,
    /// said that it is after this was called. Who asks bounds the time.
    fn confirm(&self) -> Answering<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// How this node waits to be let into a cluster, where it does.
    fn joining(&self) -> Option<Joining> {
        None
    }

    /// This node's number; `None` until it is a member.
    fn node(&self) -> Option<NodeId>;

    /// The node that leads the controller, as far as this one knows.
    fn leader(&self) -> Option<NodeId>;

    /// Changes the catalogue as this node sees fit, here or where the controller is led. Resolves once
    /// the command is applied on this node as well.
    fn change(&self, command: Command) -> Answering<Outcome> {
        self.change_for(None, command)
    }

    /// The same for a client: where the command is applied it is judged once more whether that may.
    fn change_for(&self, by: Option<OnBehalf>, command: Command) -> Answering<Outcome>;

    /// A command from another node, as the catalogue encodes it: carried out only where this node
    /// leads, never passed on.
    fn change_here(&self, command: Bytes) -> Answering<Answered<Bytes>>;

    /// A node that is no member yet asks to become one: carried out only where this node leads.
    fn join_here(&self, asked: JoinAsked) -> Answering<Answered<Joined>>;

    /// A member says that this node was removed. The catalogue shows it so from now on: the record
    /// that says it came to lie behind the last that this node was sent. Removal is for ever, so the
    /// word of one member is enough. Nothing to a node that belongs to no group.
    fn told_of_removal(&self) {}
}

/// An answer, or where to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered<T> {
    /// The answer.
    Here(T),
    /// This node does not lead the controller: ask at this address.
    AskAt(String),
}

/// What a node tells that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAsked {
    /// Of itself.
    pub node: NodeSelf,
    /// The cluster that its directory belongs to; empty: to none yet.
    pub cluster_id: String,
}

/// What a node learns that has become a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The cluster.
    pub cluster_id: String,
    /// The node's number from now on.
    pub node: NodeId,
    /// Where the members are: number, uuid, address.
    pub members: Vec<(NodeId, String, String)>,
}

/// How a node waits to be let into a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// Whom it asks; empty: nobody is known whom it could ask.
    pub asks: Vec<String>,
    /// Since when it waits (monotonic time).
    pub since: Duration,
    /// What was answered last.
    pub answer: String,
}

/// Why the controller does not do what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The catalogue says no: nothing was changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nobody leads the controller, or its leader cannot be reached: nothing was changed.
    #[error("{message}")]
    Unavailable {
        /// What is missing, and what to look at.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// It is not known whether the change was made.
    #[error("{message}")]
    Unknown {
        /// What happened.
        message: String,
    },
    /// The request cannot be read.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
}

impl ControlError {
    /// Who must act: always the caller.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}
