//! A protocol in, asks out: gRPC and HTTP.
//!
//! Front ends hold no state of the log. They check what came over the network, ask
//! through [`crate::actors::topics::TopicsApi`] and
//! [`crate::actors::partition::PartitionApi`], and translate its answer.

pub mod access;
mod calls;
pub mod cluster;
mod counted;
mod denials;
pub mod drain;
pub mod forward;
pub mod grpc;
pub mod handshake;
pub mod http;
pub mod intake;
pub mod listener;
mod observe;
pub mod route;
mod seats;
mod sources;
mod stream;
mod tenure;
mod unsent;
