//! The name of a place in the tree, the same in logs, answers, status and on the command line.

use std::fmt;
use std::sync::Arc;

/// A path such as `node/partitions/log/0/raft`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorPath(Arc<str>);

impl ActorPath {
    /// The path of a root.
    pub fn root(name: &str) -> Self {
        Self(name.into())
    }

    /// The path of a child of this supervisor. A name may hold `/` itself (`orders/0`).
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0).into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last step of the path: what kind of actor it is.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ActorPath {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_within_its_ancestors_and_not_within_a_namesake() {
        let partition = ActorPath::root("node").child("partitions").child("orders/1");
        assert_eq!(partition.child("log").as_str(), "node/partitions/orders/1/log");
        assert!(partition.is_within(&"node/partitions".into()) && partition.is_within(&partition));
        assert!(!ActorPath::from("node/partitions/orders/10").is_within(&partition));
    }
}
