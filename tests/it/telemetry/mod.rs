//! What an owner may rely on when watching a node: metrics that are documented, traces that span
//! client, front end, log and flush, and a node that does not care whether anybody takes them.

pub mod collector;
mod metrics;
mod traces;
