//! What goes in and out of the flush thread: jobs, each stamped like a message between actors, and
//! reports.

use crate::actors::raft::{Flushed, LogReady};
use crate::log::Entry;
use crate::model::{Disposition, RaftIndex};
use crate::observe::{Handled, MailLoad, Mailbox, Mishap, Posted, Recorder, Stamp, TraceContext};
use crate::raft::HardState;
use crate::supervision::mail;
use actix::Message;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// What the thread is asked to do.
#[derive(Debug)]
pub(in crate::actors::log) enum Job {
    Append(AppendJob),
    Wait(Duration),
    AwaitSpace { needed_bytes: u64 },
    Tend,
}

pub(in crate::actors::log) struct AppendJob {
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub entries: Vec<Entry>,
    pub traces: Vec<TraceContext>,
}

/// What the thread tells its actor.
#[derive(Message)]
#[rtype(result = "()")]
pub enum Report {
    /// The log is open.
    Recovered(Box<LogReady>),
    /// An append is done, or was refused.
    Flushed(Flushed),
    /// A wait is over.
    WaitOver,
    /// There is room on the disk again.
    SpaceReturned,
    /// Housekeeping is done.
    Tended(Tended),
    /// The log cannot go on.
    Failed {
        /// Why.
        reason: String,
        /// What follows.
        disposition: Disposition,
    },
}

/// What housekeeping did.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Tended {
    /// The oldest entry that the log still has.
    pub first_index: RaftIndex,
}

impl fmt::Debug for AppendJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, entries, .. } = self;
        write!(f, "number {number}, {} entries, {}B", entries.len(), super::bytes_of(entries))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovered(ready) => write!(f, "Recovered(next offset {})", ready.next_offset),
            Self::Flushed(Flushed { number, outcome: Ok(kept) }) => {
                write!(f, "Flushed(number {number}, {} entries, ", kept.entries.len())?;
                write!(f, "{})", kept.durability)
            }
            Self::Flushed(Flushed { number, outcome: Err(refusal) }) => {
                write!(f, "Flushed(number {number}, refused: {})", refusal.reason)
            }
            Self::WaitOver => f.write_str("WaitOver"),
            Self::SpaceReturned => f.write_str("SpaceReturned"),
            Self::Tended(tended) => tended.fmt(f),
            Self::Failed { reason, .. } => write!(f, "Failed({reason})"),
        }
    }
}

mail!(Report, Tended);

impl Job {
    /// The name in the flush thread's record.
    const fn name(&self) -> &'static str {
        match self {
            Self::Append(_) => "Write",
            Self::Wait(_) => "Wait",
            Self::AwaitSpace { .. } => "AwaitSpace",
            Self::Tend => "Tend",
        }
    }

    fn load(&self) -> MailLoad {
        match self {
            Self::Append(append) => MailLoad {
                items: append.entries.len() as u32,
                bytes: super::bytes_of(&append.entries),
            },
            Self::Wait(_) | Self::AwaitSpace { .. } | Self::Tend => MailLoad::default(),
        }
    }
}

/// A job on its way.
#[derive(Debug)]
pub(super) struct Sent {
    stamp: Stamp,
    job: Job,
    /// Where it lies.
    posted: Posted,
}

impl Sent {
    /// Puts the job on record as begun, until the guard is dropped.
    ///
    /// # Panics
    /// Where a test planned it.
    pub fn begin(self, recorder: &Recorder) -> (Job, Handled<'_>) {
        let Self { stamp, job, posted } = self;
        drop(posted);
        let name = job.name();
        let show = || format!("{job:?}");
        let handled = recorder.begin(&stamp, name, job.load(), show);
        match recorder.mishap(name) {
            Some(Mishap::Panic(text)) => panic!("{text}"),
            Some(Mishap::Delay(time)) => std::thread::sleep(time),
            // A job that is lost would hang its actor: as bad as a panic, and less clear.
            Some(Mishap::Drop) | None => {}
        }
        (job, handled)
    }

    pub fn is_append(&self) -> bool {
        matches!(self.job, Job::Append(_))
    }
}

/// Puts work on record that nobody asked the thread for.
pub(super) fn begin_own<'a>(name: &'static str, recorder: &'a Recorder) -> Handled<'a> {
    let stamp = Stamp::now(&**recorder.clock());
    recorder.begin(&stamp, name, MailLoad::default(), || name.to_owned())
}

/// The way to the thread. Bounded by construction: of each kind of job one is under way at a time.
#[derive(Debug)]
pub(in crate::actors::log) struct Jobs {
    sender: Sender<Sent>,
    mailbox: Arc<Mailbox>,
}

/// A new way to a thread with this recorder, and its end.
pub(super) fn line(recorder: &Arc<Recorder>) -> (Jobs, Receiver<Sent>) {
    let (sender, jobs) = channel();
    (Jobs { sender, mailbox: Mailbox::of_new_life(recorder) }, jobs)
}

impl Jobs {
    pub fn send(&self, job: Job) {
        let stamp = Stamp::now(&**self.mailbox.recorder().clock());
        let posted = self.mailbox.post();
        // A thread that is gone has reported why; the report ends the actor.
        drop(self.sender.send(Sent { stamp, job, posted }));
    }
}

/// Waits for the next job, at most so long.
pub(super) fn next(
    jobs: &Receiver<Sent>,
    wait: Option<Duration>,
) -> Result<Sent, RecvTimeoutError> {
    match wait {
        Some(wait) => jobs.recv_timeout(wait),
        None => jobs.recv().map_err(|RecvError| RecvTimeoutError::Disconnected),
    }
}
