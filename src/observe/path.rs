//! Paths of actors and of other senders as small numbers, so that a stamp can be copied.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// An interned path. The table is of the process and is never emptied: its size is bounded by the
/// number of different places that ever were, not by how often they came and went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PathId(u32);

#[derive(Default)]
struct Table {
    paths: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, u32>,
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(|| {
    let nobody: Arc<str> = "".into();
    let ids = HashMap::from([(Arc::clone(&nobody), 0)]);
    RwLock::new(Table { paths: vec![nobody], ids })
});

impl PathId {
    /// Whoever has no path: a test, or code outside of any actor.
    pub const NOBODY: Self = Self(0);

    /// The number of this path; a new one where it is new.
    pub fn of(path: &str) -> Self {
        let known = TABLE.read().unwrap_or_else(PoisonError::into_inner).ids.get(path).copied();
        if let Some(id) = known {
            return Self(id);
        }
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = table.ids.get(path) {
            return Self(*id);
        }
        let id = u32::try_from(table.paths.len()).expect("fewer than four billion places");
        let path: Arc<str> = path.into();
        table.paths.push(Arc::clone(&path));
        table.ids.insert(path, id);
        Self(id)
    }

    /// The path; empty for [`PathId::NOBODY`].
    pub fn path(self) -> Arc<str> {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&table.paths[self.0 as usize])
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl fmt::Debug for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_path_has_the_same_number_and_nobody_has_none() {
        let raft = PathId::of("node/partitions/log/0/raft");
        assert_eq!(PathId::of("node/partitions/log/0/raft"), raft);
        assert_eq!(&*raft.path(), "node/partitions/log/0/raft");
        assert_eq!((PathId::of(""), PathId::default()), (PathId::NOBODY, PathId::NOBODY));
        assert_ne!(PathId::of("node/http"), raft);
    }
}
