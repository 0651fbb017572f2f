//! What a cluster knows of itself: its nodes, its topics, where their replicas are. A pure state
//! machine over commands, and the policies that make commands (placement). No I/O, no clock.

mod access;
mod apply;
mod catalogue;
mod check;
mod command;
mod placement;
mod record;
mod replay;

pub use access::{Access, AccessChange, NOT_HELD, OnBehalf};
pub use catalogue::{
    Catalogue, GroupMembers, Hosted, Node, NodeState, Placement, Replica, ReplicaState, Topic,
    TopicSettings,
};
pub use command::{Command, GroupNews, NodeSelf, Outcome, Rejection, RejectionKind};
pub use placement::{Sight, controller_group, lost_without, next_step, plan};
pub use record::{Answer, CatalogueRecord, PROTOCOL, PROTOCOL_MIN, RecordError};
pub use replay::{Folded, Replay, ReplayError};

#[cfg(test)]
mod tests;
