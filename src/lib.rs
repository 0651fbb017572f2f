//! duramen: a single-node-first, actor-supervised commit log.
//!
//! The rooms, from the ground up; each depends only on those above it in this list
//! (`tests/it/tidy.rs` enforces it, `ARCHITECTURE.md` draws it):
//!
//! - [`model`]: offsets, terms, records, time. Knows nobody.
//! - [`observe`]: stamps on messages, flight recorders, taps, reasons to wait.
//! - [`log`]: the commit log library: batch, store, index, segment, recovery, retention, disks.
//! - [`raft`]: one partition's Raft state machine: events in, effects out.
//! - [`access`]: who may do what: policies, decisions, tokens, the chain of the audit log.
//! - [`cluster`]: what a cluster knows of itself: nodes, topics, placement; a pure state machine.
//! - [`guards`]: limiters, breaker, retry: what keeps callers from making trouble worse.
//! - [`wire`]: generated protobuf, conversions, the client library.
//! - [`ops`]: settings, logger, readiness notices.
//! - [`supervision`]: the supervisor tree, restart policy, references that survive restarts.
//! - [`actors`]: one file or folder per actor: messages, handlers, restart policy.
//! - [`frontends`]: a protocol in, asks out: gRPC and HTTP.
//! - [`node`]: builds the tree from a configuration: the in-process API.
//! - [`testing`]: nodes in the process of a test: faults, waits, and what must hold.
//! - [`cli`]: the subcommands of the one binary.

pub mod access;
pub mod actors;
pub mod cli;
pub mod cluster;
pub mod frontends;
pub mod guards;
pub mod log;
pub mod model;
pub mod node;
pub mod observe;
pub mod ops;
pub mod raft;
pub mod supervision;
pub mod testing;
pub mod wire;
