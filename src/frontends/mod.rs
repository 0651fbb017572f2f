//! A protocol in, asks out: gRPC and HTTP.
//!
//! Front ends hold no state of the log. They check what came over the network, ask a partition
//! through [`crate::actors::partition::PartitionApi`], and translate its answer.

mod calls;
mod counted;
pub mod drain;
pub mod grpc;
pub mod http;
pub mod listener;
mod observe;
mod topic;
