//! Why something does not go on: one sentence, from a closed list of reasons.

use std::time::Duration;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The node as a whole.
    Node,
    /// A partition, as `log/0`.
    Partition(String),
    /// An actor, a supervisor or a worker, by its path or an unambiguous tail of it.
    Actor(String),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The path of what is explained.
    pub subject: String,
    /// The reason's code, from the closed list.
    pub reason: &'static str,
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
