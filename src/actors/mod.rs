//! The actors: one file or folder each, with its messages, its handlers and its restart policy.
//! Thin on purpose: what decides lives in the cores, what blocks lives on a flush thread.
//!
//! Of a partition: [`log`] and [`raft`], what they publish ([`published`]), and the handle
//! ([`handle`]) by which front ends reach them, through the seam of [`partition`].

pub mod absent;
pub mod addresses;
pub mod control;
pub mod controller;
pub mod explain;
pub mod frontend;
pub mod gather;
pub mod groups;
pub mod handle;
pub mod housekeeping;
pub mod leadership;
pub mod log;
pub mod membership;
pub mod observer;
pub mod partition;
pub mod peers;
pub mod presence;
pub mod published;
pub mod raft;
pub mod readers;
pub mod readiness;
pub mod replicator;
pub mod topics;
