//! What can be done: the closed list that rules and the ports' methods choose from.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Append records to a topic.
    Produce,
    /// Read records of a topic.
    Consume,
    /// Make a topic.
    Create,
    /// Change a topic.
    Alter,
    /// Delete a topic.
    Delete,
    /// See a topic, or what the cluster consists of.
    Describe,
    /// Look inside a node: parts, messages, metrics.
    Observe,
    /// Look after the cluster: nodes, leaders, parts of a node, the policy itself.
    Admin,
    /// Be a node of the cluster.
    Peer,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Produce,
        Self::Consume,
        Self::Create,
        Self::Alter,
        Self::Delete,
        Self::Describe,
        Self::Observe,
        Self::Admin,
        Self::Peer,
    ];

    /// Whether it is done to a topic; else to the node or the cluster, and rules name `*` for it.
    pub fn is_of_topics(self) -> bool {
        !matches!(self, Self::Observe | Self::Admin | Self::Peer)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Delete => "delete",
            Self::Describe => "describe",
            Self::Observe => "observe",
            Self::Admin => "admin",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|action| action.name() == text).ok_or(())
    }
}

/// The actions that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Actions {
    /// `*`: all but [`Action::Peer`], which must be named: nobody becomes a node by the way.
    All,
    /// One.
    One(Action),
}

impl Actions {
    /// Whether the rule is about this one.
    pub fn cover(self, action: Action) -> bool {
        match self {
            Self::All => action != Action::Peer,
            Self::One(one) => one == action,
        }
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "*",
            Self::One(action) => action.name(),
        })
    }
}

impl FromStr for Actions {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

impl From<Actions> for String {
    fn from(actions: Actions) -> Self {
        actions.to_string()
    }
}

impl TryFrom<String> for Actions {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map_err(|()| "no such action")
    }
}
