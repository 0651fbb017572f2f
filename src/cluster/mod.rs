//! What a cluster knows of itself: its nodes, its topics, where their replicas are. A pure state
//! machine over commands, and the policies that make commands (placement). No I/O, no clock.

mod catalogue;
mod command;

pub use catalogue::{
    Catalogue, Hosted, Node, NodeState, Placement, Replica, ReplicaState, Topic, TopicSettings,
};
pub use command::{Command, NodeSelf, Outcome, Rejection, RejectionKind};
