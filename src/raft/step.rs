//! What a step of the engine comes to: what is to be written, sent, answered and taken as committed.

use super::effects::{Content, Effects, LogStart, NewEntry, ReadReady, Role};
use super::hard_state::PendingChange;
use super::membership::{Membership, MembershipChange};
use super::messages;
use super::partition::PartitionRaft;
use super::term_runs::TermRuns;
use crate::model::{RaftIndex, ReplicaId, Term};
use raft::Ready;
use raft::prelude::{Entry, EntryType, Message};

impl PartitionRaft {
    /// Takes one step, if there is anything to do. Call again until `None`.
    pub fn step(&mut self) -> Option<Effects> {
        if !self.engine.has_ready() {
            let messages = self.outbox.take();
            let number = self.outbox.last_step();
            return (!messages.is_empty()).then(|| Effects {
                number,
                messages,
                ..Effects::default()
            });
        }
        let mut ready = self.engine.ready();
        let number = ready.number();
        let mut effects = Effects { number, ..Effects::default() };
        let commit_before = self.storage.0.borrow().hard.commit;
        let votes = self.note_vote(&ready);
        effects.install = self.note_start(&ready);
        let (entries, changes) = self.note_entries(&mut ready);
        effects.entries = entries;
        effects.reads = ready.take_read_states().iter().filter_map(|r| self.read(r)).collect();
        let mut made = ready.take_messages();
        made.extend(ready.take_persisted_messages());
        let committed = ready.take_committed_entries();
        self.engine.advance_append_async(ready);
        effects.membership_changed = self.apply(&committed) || effects.install.is_some();
        effects.committed = committed.last().map(|entry| RaftIndex(entry.index));
        if votes || changes || effects.membership_changed || std::mem::take(&mut self.rewrite) {
            let mut hard = self.storage.0.borrow().hard.clone();
            if effects.install.is_some() {
                // Until the log is begun anew it is the old one, and may differ above this.
                hard.commit = commit_before;
            }
            effects.hard_state = Some(hard);
        }
        let log = !effects.entries.is_empty() || effects.install.is_some();
        if log {
            self.appended = number;
        }
        let writes = log || effects.hard_state.is_some();
        self.outbox.stepped(number, writes, votes || effects.install.is_some());
        self.post(made);
        effects.messages = self.outbox.take();
        self.report();
        Some(effects)
    }

    /// Whether term or vote are others than those known; a new commit index alone is not written.
    fn note_vote(&self, ready: &Ready) -> bool {
        let Some(engine) = ready.hs() else { return false };
        let hard = &mut self.storage.0.borrow_mut().hard;
        let vote = ReplicaId::from_raw(engine.vote);
        let changed = (engine.term, vote) != (hard.term.0, hard.vote);
        (hard.term, hard.vote) = (Term(engine.term), vote);
        hard.commit = RaftIndex(engine.commit);
        changed
    }

    fn note_start(&mut self, ready: &Ready) -> Option<LogStart> {
        let meta = ready.snapshot().get_metadata();
        let (index, term) = (RaftIndex(meta.index), Term(meta.term));
        if index == RaftIndex(0) {
            return None;
        }
        let (membership, at, log) = messages::begun(ready.snapshot()).expect("checked on its way");
        let mut state = self.storage.0.borrow_mut();
        state.terms = TermRuns::empty(index.next(), term);
        state.hard.membership.clone_from(&membership);
        state.hard.membership_index = at;
        state.hard.pending.clear();
        (self.installing, self.replaced) = (Some((ready.number(), index)), ready.number());
        Some(LogStart { index, term, membership, state: log })
    }

    /// The entries to write, and whether a change is among them, or among those that they replace.
    fn note_entries(&mut self, ready: &mut Ready) -> (Vec<NewEntry>, bool) {
        let number = ready.number();
        let mut changes = false;
        // The engine asks the storage for these from its next call on.
        let mut state = self.storage.0.borrow_mut();
        let entries = ready.take_entries().into_iter().map(|entry| {
            let (index, term) = (RaftIndex(entry.index), Term(entry.term));
            if index <= state.terms.last() {
                state.terms.truncate_after(RaftIndex(index.0 - 1));
                let kept = state.hard.pending.partition_point(|pending| pending.index < index);
                changes |= kept < state.hard.pending.len();
                state.hard.pending.truncate(kept);
                self.replaced = number;
            }
            state.terms.push(index, term);
            let content = messages::content_of(&entry);
            if let Content::Internal(change) = &content
                && !change.is_empty()
                && index > state.hard.membership_index
            {
                changes = true;
                state.hard.pending.push(PendingChange { index, term, change: change.clone() });
            }
            NewEntry { term, index, content }
        });
        (entries.collect(), changes)
    }

    fn read(&self, read: &raft::ReadState) -> Option<ReadReady> {
        let number = read.request_ctx.get(16..24)?.try_into().ok().map(u64::from_be_bytes)?;
        let is_ours = read.request_ctx == self.read_name(number);
        is_ours.then_some(ReadReady { read: number, index: RaftIndex(read.index) })
    }

    /// Applies the changes of the members among what is committed; whether there were any.
    fn apply(&mut self, committed: &[Entry]) -> bool {
        let Some(last) = committed.last() else { return false };
        let mut changed = false;
        for entry in committed.iter().filter(|e| e.get_entry_type() != EntryType::EntryNormal) {
            let index = RaftIndex(entry.index);
            let mut state = self.storage.0.borrow_mut();
            if index <= state.hard.membership_index {
                continue;
            }
            assert_eq!(state.hard.pending[0].index, index, "changes are applied in order");
            let pending = state.hard.pending.remove(0);
            state.hard.membership_index = index;
            changed = true;
            drop(state);
            let change = MembershipChange::decode(&pending.change).expect("encoded by this room");
            // A change that does not fit fits nowhere: it is without effect at every replica.
            if let Ok(members) = self.engine.apply_conf_change(&change.to_engine()) {
                self.storage.0.borrow_mut().hard.membership = Membership::of_engine(&members);
            }
        }
        self.engine.advance_apply_to(last.index);
        if changed && self.role() == Role::Leader && !self.membership().is_voter(self.config.me) {
            // The engine would go on to lead a group that it is no member of, and trip over that.
            let term = self.engine.raft.term;
            self.engine.raft.become_follower(term, raft::INVALID_ID);
            self.draw_timeout();
        }
        changed
    }

    fn post(&mut self, made: Vec<Message>) {
        for message in made {
            let told = messages::told(self.config.group, self.config.me, message);
            let Some(mut message) = told else { continue };
            let state = self.storage.0.borrow();
            // What is not written yet is not measured by the engine: the rest goes in one more.
            while let [first, .., last] = &message.entries[..] {
                let (low, high) = (first.index, last.index.next());
                let fits = state.sizes.fit(low, high, self.config.message_bytes_max).max(1);
                let fits = usize::try_from(fits).unwrap_or(usize::MAX).min(messages::ENTRIES_MAX);
                if fits >= message.entries.len() {
                    break;
                }
                let mut rest = message.clone();
                rest.entries = message.entries.split_off(fits);
                let before = &message.entries[fits - 1];
                (rest.index, rest.log_term) = (before.index, before.term);
                self.outbox.send(std::mem::replace(&mut message, rest));
            }
            self.outbox.send(message);
        }
    }
}
