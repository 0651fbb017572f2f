//! What the raft actor does with each message of its own node; those about its group are in
//! [`super::replica`].

use super::messages::Pump;
use super::replica::Shown;
use super::sequences::Sequences;
use super::tail::Tail;
use super::{
    Carried, Desire, LogReady, PeerFound, PeerLost, Persisted, Propose, RaftActor, ReadIndex,
    SpaceReturned, TendDue, Transfer, WaitOver,
};
use crate::actors::log::{TendWith, Tended};
use crate::actors::partition::ProduceError;
use crate::raft::Recovered;
use crate::supervision::receives;
use slog::info;

receives!(
    RaftActor: Propose, Carried, PeerLost, PeerFound, Desire, Transfer, ReadIndex, Pump, LogReady, Persisted,
    WaitOver, SpaceReturned, TendDue, Tended,
);

impl actix::Handler<Propose> for RaftActor {
    type Result = ();

    fn handle(&mut self, message: Propose, context: &mut Self::Context) {
        self.proposals.take(message);
        if let Some(reason) = &self.full {
            let full = ProduceError::DiskFull { message: reason.clone() };
            let told = self.proposals.refuse_pending(&full);
            return self.on_record(told);
        }
        self.queue_pump(context);
    }
}

impl actix::Handler<Pump> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: Pump, context: &mut Self::Context) {
        self.pump_queued = false;
        let result = self.pump();
        self.plan.published.raft_wait().set(self.waits(), &**self.seat.clock());
        self.obey(result, context);
    }
}

impl actix::Handler<Carried> for RaftActor {
    type Result = ();

    fn handle(&mut self, Carried(message): Carried, context: &mut Self::Context) {
        self.receive(message);
        self.obey(Ok(()), context);
        if !self.proposals.is_empty() {
            self.queue_pump(context);
        }
    }
}

impl actix::Handler<LogReady> for RaftActor {
    type Result = ();

    fn handle(&mut self, ready: LogReady, context: &mut Self::Context) {
        let LogReady { hard_state, terms, next_offset, producers, view } = ready;
        self.sequences = Sequences::recovered(producers);
        self.last_kept = terms.last();
        self.hard_state.clone_from(&hard_state);
        *self.tail.borrow_mut() = Tail::new(self.plan.options.tail_bytes_max, self.last_kept);
        self.view = Some(view);
        let result = self.start_raft(Recovered { hard_state, terms });
        if let Some(raft) = &self.raft {
            self.sequences.commit(raft.commit().min(self.last_kept));
        }
        self.recovered(next_offset);
        self.obey(result, context);
        self.plan.published.raft_wait().set(self.waits(), &**self.seat.clock());
        if !self.proposals.is_empty() {
            self.queue_pump(context);
        }
    }
}

impl actix::Handler<Persisted> for RaftActor {
    type Result = ();

    fn handle(&mut self, Persisted(flushed): Persisted, context: &mut Self::Context) {
        let result = match flushed.outcome {
            Ok(kept) => {
                self.persisted(flushed.number, kept);
                Ok(())
            }
            Err(refusal) => self.refuse(refusal),
        };
        self.obey(result, context);
        if self.proposals.is_empty() {
            self.plan.published.raft_wait().set(self.waits(), &**self.seat.clock());
        } else {
            self.queue_pump(context);
        }
    }
}

impl actix::Handler<WaitOver> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: WaitOver, context: &mut Self::Context) {
        // A wait that a flush overtook says nothing about what is pending now.
        self.waited = self.appending.is_none();
        self.wait_asked = false;
        self.queue_pump(context);
    }
}

impl actix::Handler<SpaceReturned> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: SpaceReturned, context: &mut Self::Context) {
        let Some(reason) = self.full.take() else { return };
        info!(self.seat.logger(), "the disk has room again"; "was" => reason);
        // Told anew: that the partition serves is among it.
        self.shown = Shown::default();
        let result = if self.is_alone() { self.rebuild_raft() } else { Ok(()) };
        self.tell_role();
        self.obey(result, context);
    }
}

impl actix::Handler<TendDue> for RaftActor {
    type Result = ();

    fn handle(&mut self, TendDue: TendDue, _: &mut Self::Context) {
        let producers = self.sequences.take_unsaved();
        self.tell_log(TendWith { producers });
    }
}

impl actix::Handler<Tended> for RaftActor {
    type Result = ();

    fn handle(&mut self, tended: Tended, _: &mut Self::Context) {
        if let Some(raft) = &mut self.raft {
            raft.compact(tended.first_index);
        }
    }
}
