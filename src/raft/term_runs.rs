//! Which term each entry of a Raft log has, kept as runs: terms change at elections only, so a log
//! of millions of entries needs a handful of pairs.

use crate::model::{RaftIndex, Term};

/// The terms of the entries `first..=last`.
///
/// Invariants: runs are in increasing order of index and never decreasing in term; the first run
/// begins at `first`, unless the log is empty; `last >= first - 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermRuns {
    first: RaftIndex,
    last: RaftIndex,
    /// Term of the entry just before `first`; term 0 at the very beginning.
    before: Term,
    runs: Vec<(RaftIndex, Term)>,
}

impl Default for TermRuns {
    fn default() -> Self {
        Self::empty(RaftIndex(1), Term(0))
    }
}

impl TermRuns {
    /// A log without entries whose next entry will be `first`; `before` is the term of the entry
    /// that precedes it (0 at the beginning).
    pub fn empty(first: RaftIndex, before: Term) -> Self {
        assert!(first.0 > 0, "raft indexes begin at 1");
        Self { first, last: RaftIndex(first.0 - 1), before, runs: Vec::new() }
    }

    /// The terms as found on disk: `runs` gives the first index of each term present, `last` the
    /// newest index. With no runs the log is empty and continues at `last + 1`.
    pub fn recovered(runs: Vec<(RaftIndex, Term)>, last: RaftIndex) -> Self {
        let Some(&(first, _)) = runs.first() else {
            return Self::empty(last.next(), Term(0));
        };
        let ordered = runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        assert!(ordered, "term runs grow in index and term");
        assert!(
            runs.last().is_some_and(|run| run.0 <= last),
            "no run begins behind the last entry"
        );
        Self { first, last, before: Term(0), runs }
    }

    /// The same, with the term of the entry just before the first one; 0 where there never was one.
    /// Without it, a log that begins later than at 1 cannot say where it begins to a follower.
    #[must_use]
    pub fn after(self, before: Term) -> Self {
        let first = self.runs.first().map_or(before, |run| run.1);
        assert!(before <= first, "terms never fall along a log");
        Self { before, ..self }
    }

    /// The oldest entry present, or the next one where there is none.
    pub fn first(&self) -> RaftIndex {
        self.first
    }

    /// The newest entry present, or the one before `first` where there is none.
    pub fn last(&self) -> RaftIndex {
        self.last
    }

    /// The term of an entry, or of the one just before the first. `None` outside of that.
    pub fn term(&self, index: RaftIndex) -> Option<Term> {
        if index.next() == self.first {
            return Some(self.before);
        }
        if index < self.first || index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|(start, _)| *start <= index);
        Some(self.runs[run - 1].1)
    }

    /// Adds the entry that follows the last one. Entries that it replaces are removed before.
    pub fn push(&mut self, index: RaftIndex, term: Term) {
        assert_eq!(index, self.last.next(), "entries are contiguous");
        let newest = self.runs.last().map_or(self.before, |run| run.1);
        assert!(term >= newest, "terms never fall along a log");
        if self.runs.last().is_none_or(|run| run.1 != term) {
            self.runs.push((index, term));
        }
        self.last = index;
    }

    /// Removes all entries behind `index` (a conflict with the leader's log).
    pub fn truncate_after(&mut self, index: RaftIndex) {
        assert!(index.next() >= self.first, "what was compacted cannot conflict");
        self.runs.retain(|(start, _)| *start <= index);
        self.last = self.last.min(index);
    }

    /// Forgets all entries before `index` (retention), keeping the term just before it.
    pub fn drop_before(&mut self, index: RaftIndex) {
        if index <= self.first {
            return;
        }
        assert!(index <= self.last.next(), "only what exists is compacted");
        self.before = self.term(RaftIndex(index.0 - 1)).expect("lies within the log");
        let covering = self.runs.partition_point(|(start, _)| *start <= index);
        self.runs.drain(..covering.saturating_sub(1));
        if index > self.last {
            self.runs.clear();
        } else {
            self.runs[0].0 = index;
        }
        self.first = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_log_knows_only_the_term_before_it() {
        let runs = TermRuns::default();
        assert_eq!((runs.first(), runs.last()), (RaftIndex(1), RaftIndex(0)));
        assert_eq!(runs.term(RaftIndex(0)), Some(Term(0)));
        assert_eq!(runs.term(RaftIndex(1)), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { grow: u64 },
        Truncate { keep: u64 },
        Drop { upto: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..3u64).prop_map(|grow| Step::Push { grow: grow / 2 }),
            1 => (0..8u64).prop_map(|keep| Step::Truncate { keep }),
            1 => (0..8u64).prop_map(|upto| Step::Drop { upto }),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn runs_answer_as_a_plain_list_of_terms_does(steps in steps()) {
            let mut runs = TermRuns::default();
            let mut list: Vec<(u64, u64)> = vec![(0, 0)]; // (index, term), the one before first included
            let mut term = 0;
            for step in steps {
                let (first, last) = (list[0].0 + 1, list[list.len() - 1].0);
                match step {
                    Step::Push { grow } => {
                        term += grow;
                        list.push((last + 1, term));
                        runs.push(RaftIndex(last + 1), Term(term));
                    }
                    Step::Truncate { keep } => {
                        let to = (first - 1 + keep).min(last);
                        list.retain(|(index, _)| *index <= to);
                        runs.truncate_after(RaftIndex(to));
                    }
                    Step::Drop { upto } => {
                        let to = (first + upto).min(last + 1);
                        list.retain(|(index, _)| index + 1 >= to);
                        runs.drop_before(RaftIndex(to));
                    }
                }
                for (index, term) in &list {
                    prop_assert_eq!(runs.term(RaftIndex(*index)), Some(Term(*term)));
                }
                prop_assert_eq!(runs.term(RaftIndex(list[list.len() - 1].0 + 1)), None);
                prop_assert_eq!(runs.last().0, list[list.len() - 1].0);
                prop_assert_eq!(runs.first().0, list[0].0 + 1);
            }
        }
    }
}
