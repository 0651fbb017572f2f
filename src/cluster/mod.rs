//! What a cluster knows of itself: its nodes, its topics, where their replicas are. A pure state
//! machine over commands, and the policies that make commands (placement). No I/O, no clock.

mod catalogue;

pub use catalogue::{
    Catalogue, Hosted, Node, NodeState, Placement, Replica, ReplicaState, Topic, TopicSettings,
};
