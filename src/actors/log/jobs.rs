//! What goes in and out of the flush thread: jobs, each stamped like a message between actors, and
//! reports.

use super::Install;
use super::closing::Closers;
use super::flush::{self, FlushThread};
use crate::actors::raft::{Flushed, LogReady};
use crate::log::Entry;
use crate::log::producers::ProducerTable;
use crate::model::{Disposition, RaftIndex};
use crate::observe::{Handled, MailLoad, Mailbox, Mishap, Posted, Recorder, Stamp, TraceContext};
use crate::raft::HardState;
use crate::supervision::mail;
use actix::Message;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the thread is asked to do.
#[derive(Debug)]
pub(in crate::actors::log) enum Job {
    Append(AppendJob),
    Wait(Duration),
    AwaitSpace {
        needed_bytes: u64,
    },
    /// With the table to save first.
    Tend(Option<(RaftIndex, ProducerTable)>),
}

pub(in crate::actors::log) struct AppendJob {
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub install: Option<Box<Install>>,
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
            Self::Tend(_) => "Tend",
        }
    }

    fn load(&self) -> MailLoad {
        match self {
            Self::Append(append) => MailLoad {
                items: append.entries.len() as u32,
                bytes: super::bytes_of(&append.entries),
            },
            Self::Wait(_) | Self::AwaitSpace { .. } | Self::Tend(_) => MailLoad::default(),
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
    queue: Arc<Queue>,
    mailbox: Arc<Mailbox>,
    closers: Arc<Closers>,
}

/// What lies between an actor and its thread.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Sent>,
    /// The actor is gone.
    is_over: bool,
    /// The log, while no thread has it.
    parked: Option<Box<FlushThread>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "Queue({} jobs, idle: {})", state.jobs.len(), state.parked.is_some())
    }
}

/// Why there is no job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoJob {
    /// None came in time.
    Yet,
    /// None will come any more.
    Over,
}

/// A new way to a thread with this recorder, and its end.
pub(super) fn line(recorder: &Arc<Recorder>, closers: &Arc<Closers>) -> (Jobs, Arc<Queue>) {
    let queue = Arc::<Queue>::default();
    let mailbox = Mailbox::of_new_life(recorder);
    (Jobs { queue: Arc::clone(&queue), mailbox, closers: Arc::clone(closers) }, queue)
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next job, at most so long.
    pub fn next(&self, wait: Duration) -> Result<Sent, NoJob> {
        let is_empty = |state: &mut State| state.jobs.is_empty() && !state.is_over;
        let waited = self.changed.wait_timeout_while(self.state(), wait, is_empty);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match state.jobs.pop_front() {
            Some(sent) => Ok(sent),
            None if state.is_over => Err(NoJob::Over),
            None => Err(NoJob::Yet),
        }
    }

    /// Puts the log aside until the next job. Given back where there is one, or never will be.
    pub fn park(&self, thread: Box<FlushThread>) -> Result<(), Box<FlushThread>> {
        let mut state = self.state();
        if state.is_over || !state.jobs.is_empty() {
            return Err(thread);
        }
        state.jobs = VecDeque::new();
        state.parked = Some(thread);
        Ok(())
    }
}

impl Jobs {
    pub fn send(&self, job: Job) {
        let stamp = Stamp::now(&**self.mailbox.recorder().clock());
        let posted = self.mailbox.post();
        let mut state = self.queue.state();
        // A thread that is gone has reported why; the report ends the actor.
        state.jobs.push_back(Sent { stamp, job, posted });
        let parked = state.parked.take();
        drop(state);
        match parked {
            Some(parked) => flush::resume(parked, Arc::clone(&self.queue)),
            None => self.queue.changed.notify_one(),
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.is_over = true;
        let parked = state.parked.take();
        drop(state);
        self.queue.changed.notify_one();
        if let Some(parked) = parked {
            self.closers.close(parked);
        }
    }
}
