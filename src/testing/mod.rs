//! A supervised test harness: whole nodes in the process of a test, on real sockets.
//!
//! Nodes that can be waited for, hurt on purpose, put under load, crashed and started again; and
//! what must hold afterwards: nothing acknowledged is lost, the right actors restarted in the
//! right order, and a node that stopped left nothing behind. For duramen's own tests, and for
//! those of programs that use it. `docs/testing.md` is the guide.
//!
//! ```
//! use duramen::supervision::Fault;
//! use duramen::testing::{LoadPlan, TestNode, What};
//!
//! let node = TestNode::start();
//! let load = node.load(LoadPlan { producers: 4, consumers: 1, ..LoadPlan::default() });
//! load.await_acknowledged(20);
//!
//! // The log actor panics; its partition comes back as a whole.
//! let before = node.mark();
//! node.inject("log/0/log", Fault::Panic("injected".into()));
//! node.await_event_after(before, "log/0/raft", What::Started);
//! load.await_acknowledged(20);
//!
//! load.finish().assert_kept();
//! node.stop().assert_nothing_left();
//! ```
//!
//! Everything here blocks the calling thread, never a node's: each node runs on threads of its
//! own. Inside of asynchronous tests it can be used as well.
//!
//! When a test panics while a node of its thread lives, the seed and the last messages of all its
//! nodes are printed, in the order in which they were sent.

mod builder;
mod chance;
mod cluster;
mod control;
pub mod fuzz;
mod history;
mod leaks;
mod load;
mod machine;
mod node;
mod stopped;
mod story;
mod wait;

#[cfg(test)]
mod tests;

/// The guide's examples are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
struct Guide;

pub use crate::model::Chance;
pub use builder::TestNodeBuilder;
pub use chance::{SEED_VARIABLE, seed};
pub use cluster::Cluster;
pub use history::{Mark, What};
pub use leaks::Leak;
pub use load::{Ledger, Load, LoadPlan, Violation};
pub use node::TestNode;
pub use stopped::Stopped;
pub use wait::{block_on, runtime, until};
