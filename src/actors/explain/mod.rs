//! Why something does not go on: one sentence, from a closed list of reasons.
//!
//! Pure: [`Facts`] in, an [`Explanation`] out. Whoever waits says so where it waits
//! ([`crate::observe::Wait`], [`crate::actors::readers`], the tree's states); nothing is guessed.

mod facts;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

pub use facts::{Facts, OverloadFacts, PartitionFacts};
pub use reason::Reason;
pub use rules::{CLIENT_STUCK, SLOW_FLUSH, explain};

use std::time::Duration;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The node as a whole.
    Node,
    /// A partition, as `log/0`.
    Partition(String),
    /// An actor, a supervisor or a worker, by its path.
    Actor(String),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The path of what is explained.
    pub subject: String,
    /// The reason, from the closed list.
    pub reason: Reason,
    /// What it waits for, in one sentence.
    pub sentence: String,
    /// For how long.
    pub since: Option<Duration>,
    /// What will happen next.
    pub next: String,
    /// What to type, or empty where there is nothing to be done.
    pub advice: String,
    /// What else is worth knowing, the worst first.
    pub also: Vec<Explanation>,
}
