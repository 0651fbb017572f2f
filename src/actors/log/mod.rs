//! The log actor: the one way to a partition's log for those who change it. It takes messages and
//! hands them to its flush thread, which owns the log and does everything that blocks; what comes
//! back it passes on to the raft actor. It decides nothing but who must act on an error.

mod closing;
mod flush;
mod jobs;
mod measured;
mod plan;

pub use closing::Closers;
pub use jobs::{Report, Tended};
pub use plan::{Lives, LogPlan};

use super::raft::{LogReady, Persisted, RaftActor, SpaceReturned, TendDue, WaitOver};
use crate::log::producers::ProducerTable;
use crate::log::{Entry, ResetTo};
use crate::model::{Disposition, RaftIndex};
use crate::observe::{Mail, MailLoad, TraceContext};
use crate::raft::HardState;
use crate::supervision::{Backoff, ChildSpec, Line, Restart, Seat, mail, receives};
use actix::prelude::*;
use jobs::{AppendJob, Job, Jobs};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Restart policy of the log actor: always, after a short wait, from what the disk holds. A log
/// that cannot be trusted asks for quarantine itself; see [`Disposition`].
pub fn spec() -> ChildSpec {
    ChildSpec {
        restart: Restart::Permanent,
        backoff: Backoff {
            min: Duration::from_millis(10),
            max: Duration::from_secs(5),
            jitter: 0.2,
        },
        ..ChildSpec::new("log")
    }
}

/// Asks to be told, as the partition's raft actor, of all that the log completes. Answered by
/// [`LogReady`] once the log is recovered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// Exactly the raft actor that asks, not one that may replace it.
    pub to: Line<RaftActor>,
}

/// Makes a hard state and entries durable, in this order. Answered by [`Persisted`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Append {
    /// Given back in the answer.
    pub number: u64,
    /// Written before all else.
    pub hard_state: Option<HardState>,
    /// The log begins anew here, before the entries.
    pub install: Option<Install>,
    /// Contiguous. The first may lie at or below the log's last one: then the log is cut there.
    pub entries: Vec<Entry>,
    /// The spans, if any, that the flush is part of.
    pub traces: Vec<TraceContext>,
}

/// Where a log begins anew, behind what its leader has left.
#[derive(Debug)]
pub struct Install {
    /// The place.
    pub start: ResetTo,
    /// What idempotent producers had sent by there, or later.
    pub producers: ProducerTable,
}

/// Asks for [`WaitOver`] after a short time: a flush thread that has nothing to do is the only
/// timer here that is finer than a millisecond.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct WaitAwhile {
    /// How long.
    pub wait: Duration,
}

/// Asks for [`SpaceReturned`] when there is room for appends again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitSpace {
    /// What the append that was refused needed.
    pub needed_bytes: u64,
}

/// Housekeeping: apply retention, write a checkpoint.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Tend;

/// From the raft actor: what to save before retention removes anything.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TendWith {
    /// What idempotent producers sent, up to this entry; `None` where it was saved before.
    pub producers: Option<(RaftIndex, ProducerTable)>,
}

/// The actor.
#[derive(Debug)]
pub struct LogActor {
    seat: Seat<Self>,
    plan: Arc<LogPlan>,
    jobs: Option<Jobs>,
    raft: Option<Line<RaftActor>>,
    ready: Option<LogReady>,
    /// A reminder is on its way.
    tending: bool,
}

impl LogActor {
    /// The factory: starts the flush thread, which begins with recovery.
    pub fn new(context: &mut Context<Self>, seat: Seat<Self>, plan: Arc<LogPlan>) -> Self {
        let jobs = flush::start(Arc::clone(&plan), &seat, seat.line(context));
        Self { seat, plan, jobs: Some(jobs), raft: None, ready: None, tending: false }
    }

    fn send(&self, job: Job) {
        // Without a flush thread there is a report on its way that ends this actor.
        if let Some(jobs) = &self.jobs {
            jobs.send(job);
        }
    }

    /// Carries out what an error asks of this actor.
    fn obey(&mut self, reason: String, disposition: Disposition, context: &mut Context<Self>) {
        self.plan.published.not_serving(&reason);
        self.seat.fail(reason, disposition);
        self.jobs = None;
        context.stop();
    }
}

impl Actor for LogActor {
    type Context = Context<Self>;
}

receives!(LogActor: Attach, Append, WaitAwhile, AwaitSpace, Tend, TendWith, Report);
mail!(Attach, WaitAwhile, AwaitSpace, Tend, TendWith);

impl Mail for Append {
    const NAME: &'static str = "Append";

    fn load(&self) -> MailLoad {
        MailLoad { items: self.entries.len() as u32, bytes: bytes_of(&self.entries) }
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, hard_state, install, entries, .. } = self;
        write!(f, "Append(number {number}, {} entries, {}B", entries.len(), bytes_of(entries))?;
        if let Some(last) = entries.last() {
            write!(f, ", to term {} index {}", last.term.0, last.index.0)?;
        }
        if let Some(Install { start, .. }) = install {
            write!(f, ", anew behind index {}", start.index)?;
        }
        f.write_str(if hard_state.is_some() { ", vote)" } else { ")" })
    }
}

fn bytes_of(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.payload.len_bytes()).sum()
}

impl Handler<Attach> for LogActor {
    type Result = ();

    fn handle(&mut self, message: Attach, _: &mut Self::Context) {
        if let Some(ready) = self.ready.take() {
            message.to.complete(ready);
        }
        self.raft = Some(message.to);
    }
}

impl Handler<Append> for LogActor {
    type Result = ();

    fn handle(&mut self, message: Append, _: &mut Self::Context) {
        let Append { number, hard_state, install, entries, traces } = message;
        let install = install.map(Box::new); // rare: what is queued stays small
        self.send(Job::Append(AppendJob { number, hard_state, install, entries, traces }));
    }
}

impl Handler<WaitAwhile> for LogActor {
    type Result = ();

    fn handle(&mut self, message: WaitAwhile, _: &mut Self::Context) {
        self.send(Job::Wait(message.wait));
    }
}

impl Handler<AwaitSpace> for LogActor {
    type Result = ();

    fn handle(&mut self, message: AwaitSpace, _: &mut Self::Context) {
        self.send(Job::AwaitSpace { needed_bytes: message.needed_bytes });
    }
}

impl Handler<Tend> for LogActor {
    type Result = ();

    fn handle(&mut self, _: Tend, _: &mut Self::Context) {
        // While a disk call hangs reminders would pile up.
        if !std::mem::replace(&mut self.tending, true) {
            match &self.raft {
                Some(raft) => raft.complete(TendDue),
                None => self.send(Job::Tend(None)),
            }
        }
    }
}

impl Handler<TendWith> for LogActor {
    type Result = ();

    fn handle(&mut self, TendWith { producers }: TendWith, _: &mut Self::Context) {
        self.send(Job::Tend(producers));
    }
}

impl Handler<Report> for LogActor {
    type Result = ();

    fn handle(&mut self, report: Report, context: &mut Self::Context) {
        let raft = self.raft.as_ref();
        match report {
            Report::Recovered(ready) => match raft {
                Some(raft) => raft.complete(*ready),
                None => self.ready = Some(*ready),
            },
            Report::Flushed(flushed) => {
                if let Some(raft) = raft {
                    raft.complete(Persisted(flushed));
                }
            }
            Report::WaitOver => {
                if let Some(raft) = raft {
                    raft.complete(WaitOver);
                }
            }
            Report::SpaceReturned => {
                if let Some(raft) = raft {
                    raft.complete(SpaceReturned);
                }
            }
            Report::Tended(tended) => {
                self.tending = false;
                if let Some(raft) = raft {
                    raft.complete(tended);
                }
            }
            Report::Failed { reason, disposition } => self.obey(reason, disposition, context),
        }
    }
}
