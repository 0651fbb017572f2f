//! Messages on their way out: what claims that something is durable is kept until it is.

use crate::model::{PeerKind, PeerMessage};
use std::collections::VecDeque;

/// Messages that wait for a disk. Beyond this they are dropped, as a network drops: their senders
/// and receivers try again.
const HELD_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The step taken last.
    step: u64,
    /// The newest step that writes anything.
    written: u64,
    /// The newest step that writes a term or a vote, or begins the log anew.
    voted: u64,
    /// All steps up to this one are durable.
    durable: u64,
    /// With the step that each waits for, in order.
    held: VecDeque<(u64, PeerMessage)>,
    free: Vec<PeerMessage>,
    /// Messages that found no room.
    dropped: u64,
}

impl Outbox {
    /// A step was taken: whether it writes anything, and whether a vote is part of that.
    pub fn stepped(&mut self, step: u64, writes: bool, votes: bool) {
        self.step = step;
        if writes {
            self.written = step;
        }
        if votes {
            self.voted = step;
        }
        if self.durable >= self.written {
            self.durable = step;
        }
    }

    /// All up to `step` is durable, and later steps that write nothing are as well.
    pub fn persisted(&mut self, step: u64) {
        self.durable = self.durable.max(step.min(self.step));
        if self.durable >= self.written {
            self.durable = self.step;
        }
        while let Some((_, message)) = self.held.pop_front_if(|(step, _)| *step <= self.durable) {
            self.free.push(message);
        }
        if self.held.is_empty() {
            self.held = VecDeque::new(); // idle groups hold no memory for it
        }
    }

    /// Sends a message once what it stands on is durable.
    pub fn send(&mut self, message: PeerMessage) {
        let claims_entries = matches!(
            message.kind,
            PeerKind::AppendAnswer
                | PeerKind::PreVote
                | PeerKind::PreVoteAnswer
                | PeerKind::Vote
                | PeerKind::VoteAnswer
        );
        // All others speak in a term only. A leader's appends thus leave while it writes the entries
        // itself, and a follower with a slow disk still answers heartbeats.
        let awaits = if claims_entries { self.written } else { self.voted };
        if awaits <= self.durable {
            self.free.push(message);
        } else if self.held.len() < HELD_MAX {
            let awaits = self.held.back().map_or(awaits, |(newest, _)| awaits.max(*newest));
            self.held.push_back((awaits, message));
        } else {
            self.dropped += 1;
        }
    }

    /// Sends a message that stands on nothing.
    pub fn send_now(&mut self, message: PeerMessage) {
        self.free.push(message);
    }

    /// What may leave.
    pub fn take(&mut self) -> Vec<PeerMessage> {
        std::mem::take(&mut self.free)
    }

    pub fn durable(&self) -> u64 {
        self.durable
    }

    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    pub fn last_step(&self) -> u64 {
        self.step
    }

    pub fn has_outstanding(&self) -> bool {
        self.durable < self.written || !self.held.is_empty() || !self.free.is_empty()
    }
}
