//! What a replica must make durable next, gathered while an append is in flight: one flush covers
//! all of it. Pure.

use crate::actors::log::Install;
use crate::log::Entry;
use crate::model::RaftIndex;
use crate::raft::HardState;

/// See the module.
#[derive(Debug, Default)]
pub struct Writes {
    /// The newest step that this belongs to.
    pub number: u64,
    /// The newest hard state, written before all else.
    pub hard_state: Option<HardState>,
    /// The log begins anew here, before the entries.
    pub install: Option<Install>,
    /// Contiguous. The first may lie at or below the log's last one: then the log is cut there.
    pub entries: Vec<Entry>,
}

impl Writes {
    /// Adds what one more step asks for.
    pub fn add(
        &mut self,
        number: u64,
        hard_state: Option<HardState>,
        install: Option<Install>,
        entries: Vec<Entry>,
    ) {
        self.number = number;
        self.hard_state = hard_state.or(self.hard_state.take());
        if install.is_some() {
            self.entries.clear();
            self.install = install;
        }
        if let Some(first) = entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend(entries);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none() && self.install.is_none() && self.entries.is_empty()
    }

    /// The first entry that it replaces or adds; everything, where the log begins anew.
    pub fn first(&self) -> Option<RaftIndex> {
        match self.install {
            Some(_) => Some(RaftIndex(0)),
            None => self.entries.first().map(|entry| entry.index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::EntryPayload;
    use crate::model::Term;

    fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
        let payload = || EntryPayload::Internal(bytes::Bytes::new());
        indexes
            .map(|index| Entry { term: Term(term), index: RaftIndex(index), payload: payload() })
            .collect()
    }

    fn shown(writes: &Writes) -> Vec<(u64, u64)> {
        writes.entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect()
    }

    #[test]
    fn a_later_step_replaces_what_it_conflicts_with() {
        let mut writes = Writes::default();
        writes.add(1, None, None, entries(1, 5..8));
        writes.add(2, None, None, entries(2, 6..7));
        assert_eq!(shown(&writes), [(5, 1), (6, 2)]);
        assert_eq!((writes.number, writes.first()), (2, Some(RaftIndex(5))));
        writes.add(3, None, None, entries(3, 4..5));
        assert_eq!(shown(&writes), [(4, 3)]);
    }
}
