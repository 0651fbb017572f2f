//! The flush thread: owns a partition's log and does everything that blocks. Jobs in, reports out.
//!
//! It begins with recovery, then takes jobs until its actor is gone, then closes the log. A thread that
//! has had nothing to do for a while puts the log aside and ends; the next job starts another one: a
//! thousand idle partitions have no thread.
//!
//! Every change to the disk is made inside the fence, so that a thread that was given up cannot
//! write behind the back of its successor.

use super::jobs::{self, AppendJob, Job, Jobs, NoJob, Queue, Report, Sent, Tended};
use super::measured::Measured;
use super::plan::{Counted, LogPlan};
use super::{Install, LogActor};
use crate::actors::explain::SLOW_FLUSH;
use crate::actors::published::Phase;
use crate::actors::raft::{Flushed, Kept, LogReady, ProducersFound, Refusal};
use crate::log::batch::producers_of;
use crate::log::producers::{self, ProducerTable};
use crate::log::{Entry, Log, LogError, LogView, Placed, Recovered, Synced, Written, stable};
use crate::model::{Disposition, Durability, Offset, RaftIndex, Seldom, with_causes};
use crate::observe::{self, Recorder, Scope, Wait};
use crate::raft::{HARD_STATE_FILE, HARD_STATE_MAGIC, HARD_STATE_VERSION, HardState, TermRuns};
use crate::supervision::{FenceError, FencePass, Line, Seat};
use slog::{info, warn};
use std::sync::Arc;
use std::time::Duration;

/// How long the thread is idle before it prepares blocks for later appends.
const IDLE: Duration = Duration::from_millis(200);
/// How long it is idle, with blocks prepared, before the thread ends.
const PARK_AFTER: Duration = Duration::from_secs(2);
/// How long a new generation waits for the writes of the one before it.
const FENCE_WAIT: Duration = Duration::from_secs(5);
/// How often it looks whether a full disk has room again.
const SPACE_POLL: Duration = Duration::from_millis(250);

/// How often the log is told of slow flushes.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Room beyond the reserve at which appends begin again.
const SPACE_SPARE_BYTES: u64 = 4 << 20;
/// A smaller log is not prepared for more.
const PREPARE_FROM_BYTES: u64 = 64 << 10;
/// What one turn of idle work may write.
const PREPARE_BYTES: u64 = 1 << 20;
/// Read at once, of what lies behind the table of producers at a start.
const CATCH_UP_ENTRIES: u64 = 4096;
const CATCH_UP_BYTES: u64 = 4 << 20;

/// Starts a thread for this generation of the log actor.
pub(super) fn start(plan: Arc<LogPlan>, seat: &Seat<LogActor>, reports: Line<LogActor>) -> Jobs {
    let recorder = plan.flush_recorder(seat.recorder());
    recorder.waits_by(plan.published.flush_wait());
    let (sender, jobs) = jobs::line(&recorder, &plan.closers);
    spawn(Worker { plan, seat: seat.clone(), reports, recorder }, jobs, None);
    sender
}

/// Goes on with a log that was put aside, on a new thread.
pub(super) fn resume(parked: Box<FlushThread>, jobs: Arc<Queue>) {
    spawn(parked.worker.clone(), jobs, Some(parked));
}

fn spawn(worker: Worker, jobs: Arc<Queue>, parked: Option<Box<FlushThread>>) {
    let at_work = worker.plan.thread();
    let body = move || {
        let _at_work = at_work; // dropped after all that the thread has in hand
        let (worker, jobs, parked) = (worker, jobs, parked);
        let Worker { seat, reports, .. } = worker.clone();
        let run = || FlushThread::run(worker, &jobs, parked);
        let ended = crate::supervision::contain(run).unwrap_or_else(|exit| {
            let reason = format!("flush thread {exit}");
            // The report carries only words; the way to the panic would be lost.
            seat.worker_died("flush thread", exit);
            Err(Stop { reason, disposition: Disposition::RebuildActor })
        });
        if let Err(Stop { reason, disposition }) = ended {
            reports.complete(Report::Failed { reason, disposition });
        }
    };
    // Stacks of the default size: the C library keeps those of ended threads up to a sum of sizes, and
    // what they touched with them. Of smaller ones it keeps more.
    let spawned = std::thread::Builder::new().name("duramen-flush".into()).spawn(body);
    if let Err(error) = spawned {
        // A handler that panics counts as a crash, with backoff: threads may be available later.
        panic!("cannot start the flush thread: {error}");
    }
}

/// Why the thread ends before its actor does.
struct Stop {
    reason: String,
    disposition: Disposition,
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        let disposition = match error.disposition() {
            // Here nobody is left to tell: the log itself cannot go on.
            Disposition::TellCaller => Disposition::RebuildActor,
            other => other,
        };
        Self { reason: with_causes(&error), disposition }
    }
}

impl From<FenceError> for Stop {
    fn from(error: FenceError) -> Self {
        Self { reason: error.to_string(), disposition: Disposition::RebuildActor }
    }
}

/// What the threads of one generation share, that follow one another.
#[derive(Clone)]
struct Worker {
    plan: Arc<LogPlan>,
    seat: Seat<LogActor>,
    reports: Line<LogActor>,
    recorder: Arc<Recorder>,
}

/// What a thread has in hand; put aside while there is nothing to do.
pub(super) struct FlushThread {
    worker: Worker,
    plan: Arc<LogPlan>,
    pass: FencePass,
    log: Log,
    /// Since when something is written and not synced, where the level is `interval`.
    dirty_since: Option<Duration>,
    /// The disk was full at the last append: so many free bytes are waited for, since then.
    awaiting_space: Option<(u64, Duration)>,
    /// When the log was last told of a slow flush.
    told_slow: Seldom,
    _open: Counted,
}

/// How a thread's work ended.
enum Served {
    /// The actor is gone.
    Over,
    /// Nothing was asked for in a while.
    Idle,
}

impl FlushThread {
    fn run(worker: Worker, jobs: &Queue, parked: Option<Box<Self>>) -> Result<(), Stop> {
        let _scope = observe::enter(Scope::of_actor(worker.recorder.path()));
        let mut thread = match parked {
            Some(parked) => parked,
            None => Box::new(Self::begin(worker)?),
        };
        loop {
            match thread.serve(jobs)? {
                Served::Over => return thread.close(),
                Served::Idle => {
                    thread.log.rest();
                    match jobs.park(thread) {
                        Ok(()) => return Ok(()),
                        Err(busy) => thread = busy,
                    }
                }
            }
        }
    }

    fn begin(worker: Worker) -> Result<Self, Stop> {
        let plan = Arc::clone(&worker.plan);
        let waits = plan.published.flush_wait();
        waits.set(Wait::Fence, &*plan.clock);
        let pass = plan.lives.fence.advance(worker.seat.generation(), FENCE_WAIT)?;
        waits.set(Wait::Recovery, &*plan.clock);
        Self::recover(worker, pass)
    }

    fn close(self: Box<Self>) -> Result<(), Stop> {
        let Self { pass, log, _open, .. } = *self;
        let _fenced = pass.enter()?;
        Ok(log.close()?)
    }

    /// Closes a log that nobody is there for any more. What fails is done by the next recovery.
    pub(super) fn close_parked(self: Box<Self>) {
        let logger = self.plan.logger.clone();
        let reason = match crate::supervision::contain(|| self.close()) {
            Ok(Ok(())) => return,
            Ok(Err(stop)) => stop.reason,
            Err(exit) => exit.to_string(),
        };
        warn!(logger, "a log was not closed; it will be recovered"; "reason" => reason);
    }

    fn recover(worker: Worker, pass: FencePass) -> Result<Self, Stop> {
        let plan = Arc::clone(&worker.plan);
        let open = plan.opened();
        let fenced = pass.enter()?;
        plan.published.enter(Phase::Recovering { done_bytes: 0, total_bytes: 0 });
        let mut progress = |done_bytes, total_bytes| {
            plan.published.enter(Phase::Recovering { done_bytes, total_bytes });
        };
        let (log, recovered) = Log::open(
            Arc::clone(&plan.disk),
            Arc::clone(&plan.clock),
            &plan.directory,
            plan.options.clone(),
            &mut progress,
        )?;
        let hard_state = read_hard_state(&plan)?;
        let producers = find_producers(&plan, &log.view(), &recovered)?;
        drop(fenced);
        info!(plan.logger, "log recovered"; "clean" => recovered.clean,
            "records" => recovered.next_offset.0, "cut_bytes" => recovered.cut_bytes,
            "scanned_bytes" => recovered.scanned_bytes);
        // Readers see nothing of it before the raft actor has told how much is committed.
        plan.published.recovered(log.view());
        let Recovered { terms, last_index, previous_term, next_offset, .. } = recovered;
        worker.reports.complete(Report::Recovered(Box::new(LogReady {
            hard_state,
            terms: TermRuns::recovered(terms, last_index).after(previous_term),
            next_offset,
            producers,
            view: log.view(),
        })));
        Ok(Self {
            worker,
            plan,
            pass,
            log,
            dirty_since: None,
            awaiting_space: None,
            told_slow: Seldom::default(),
            _open: open,
        })
    }

    fn serve(&mut self, jobs: &Queue) -> Result<Served, Stop> {
        let mut prepared = false;
        loop {
            match self.awaiting_space {
                // Other work in between does not make the wait a new one.
                Some((free_bytes, since)) => {
                    self.plan.published.flush_wait().resume(Wait::Space { free_bytes }, since);
                }
                None => self.waits(Wait::Work),
            }
            let sync_in = self.sync_due_in();
            if sync_in.is_some_and(|wait| wait.is_zero()) {
                self.sync_late()?;
                continue;
            }
            let wait = match (self.awaiting_space, sync_in) {
                (Some(_), sync_in) => sync_in.unwrap_or(SPACE_POLL).min(SPACE_POLL),
                (None, Some(sync_in)) => sync_in,
                (None, None) if prepared => PARK_AFTER,
                (None, None) => IDLE,
            };
            match jobs.next(wait) {
                Ok(sent) => {
                    prepared = false;
                    let mut next = Some(sent);
                    while let Some(sent) = next {
                        next = self.take(sent, jobs)?;
                    }
                }
                Err(NoJob::Over) => return Ok(Served::Over),
                Err(NoJob::Yet) if sync_in.is_some() => {}
                Err(NoJob::Yet) => match self.awaiting_space {
                    Some((enough, _)) => self.look_for_space(enough),
                    None if prepared => return Ok(Served::Idle),
                    None => prepared = !self.prepare()?,
                },
            }
            if let (Some((enough, _)), true) = (self.awaiting_space, sync_in.is_some()) {
                self.look_for_space(enough);
            }
        }
    }

    fn waits(&self, wait: Wait) {
        self.plan.published.flush_wait().set(wait, &*self.plan.clock);
    }

    /// When what is written must be synced, under the level `interval`.
    fn sync_due_in(&self) -> Option<Duration> {
        let since = self.dirty_since?;
        Some((since + self.plan.sync_interval).saturating_sub(self.plan.clock.monotonic()))
    }

    /// Idle work. True when there is more of it.
    fn prepare(&mut self) -> Result<bool, Stop> {
        if self.log.view().size_bytes() < PREPARE_FROM_BYTES {
            return Ok(false); // a node that is hardly used takes hardly any room
        }
        let pass = self.pass.clone();
        let _fenced = pass.enter()?;
        self.waits(Wait::Prepare);
        match self.log.zero_ahead(PREPARE_BYTES) {
            Ok(more) => Ok(more),
            // It is a comfort: a disk without room for it has none to offer.
            Err(error) if error.disposition() == Disposition::TellCaller => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Does a job. Returns the one that ended a wait: it is a job of its own, on record by itself.
    fn take(&mut self, sent: Sent, jobs: &Queue) -> Result<Option<Sent>, Stop> {
        let recorder = Arc::clone(&self.worker.recorder);
        let (job, _handled) = sent.begin(&recorder);
        match job {
            Job::Append(append) => self.append(append)?,
            Job::Wait(wait) => {
                let next = match jobs.next(wait) {
                    Ok(next) => Some(next),
                    Err(NoJob::Yet) => None,
                    Err(NoJob::Over) => return Ok(None),
                };
                // An append is what was waited for. Anything else must not swallow the answer.
                if !next.as_ref().is_some_and(Sent::is_append) {
                    self.worker.reports.complete(Report::WaitOver);
                }
                return Ok(next);
            }
            Job::AwaitSpace { needed_bytes } => {
                // Some room over what was refused, or the next append would find it full again.
                let spare = needed_bytes.max(SPACE_SPARE_BYTES);
                let free_bytes = self.plan.options.reserve_free_bytes + spare;
                self.awaiting_space = Some((free_bytes, self.plan.clock.monotonic()));
            }
            Job::Tend(producers) => self.tend(producers)?,
        }
        Ok(None)
    }

    fn append(&mut self, job: AppendJob) -> Result<(), Stop> {
        let AppendJob { number, hard_state, install, entries, traces } = job;
        let pass = self.pass.clone();
        let _fenced = pass.enter()?;
        let plan = Arc::clone(&self.plan);
        let measured = Measured::begin(&plan);
        let written = self.write(hard_state.as_ref(), install, &entries);
        measured.end(&entries, &traces, &written);
        let outcome = match written {
            Ok(kept) => Ok(kept),
            // Nothing was kept of the entries, and nobody else has them: a definite refusal.
            Err(error) if error.disposition() == Disposition::TellCaller => Err(refusal(&error)),
            Err(error) => return Err(error.into()),
        };
        self.worker.reports.complete(Report::Flushed(Flushed { number, outcome }));
        Ok(())
    }

    fn write(
        &mut self,
        hard_state: Option<&HardState>,
        install: Option<Box<Install>>,
        entries: &[Entry],
    ) -> Result<Kept, LogError> {
        self.waits(Wait::Write);
        if let Some(state) = hard_state {
            let path = self.plan.directory.join(HARD_STATE_FILE);
            let disk = self.plan.disk.as_ref();
            stable::write(disk, &path, HARD_STATE_MAGIC, HARD_STATE_VERSION, &state.encode())?;
        }
        if let Some(Install { start, producers }) = install.map(|install| *install) {
            let disk = self.plan.disk.as_ref();
            producers::save_ahead(disk, &self.plan.directory, start.index, &producers)?;
            self.log.reset(start)?;
            self.plan.published.commit(start.offset);
        }
        if entries.is_empty() {
            return Ok(Kept { durability: self.plan.durability, entries: Vec::new() });
        }
        let begun = self.plan.clock.monotonic();
        if let Some(first) = entries.first()
            && first.index <= self.log.last_index()
        {
            self.log.truncate_after(RaftIndex(first.index.0 - 1))?;
        }
        let appended = self.log.append(entries)?;
        self.plan.metrics.appended_bytes.add(appended.bytes);
        let receipt = match self.plan.durability {
            Durability::Fsync => {
                self.waits(Wait::Sync);
                Receipt::from(self.log.sync()?)
            }
            weaker => Receipt::weaker(self.log.written(), weaker),
        };
        if receipt.durability == Durability::Interval {
            self.dirty_since.get_or_insert_with(|| self.plan.clock.monotonic());
        }
        self.plan.published.flushed();
        self.tell_if_slow(begun, appended.bytes);
        Ok(receipt.over(appended.placed))
    }

    /// A disk that takes long is told of, once a second at most.
    fn tell_if_slow(&mut self, begun: Duration, bytes: u64) {
        let now = self.plan.clock.monotonic();
        let took = now.saturating_sub(begun);
        if took >= SLOW_FLUSH && self.told_slow.take(now, TOLD_EVERY) {
            warn!(self.plan.logger, "slow flush"; "elapsed_us" => took.as_micros() as u64,
                "bytes" => bytes);
        }
    }

    fn sync_late(&mut self) -> Result<(), Stop> {
        self.dirty_since = None;
        let pass = self.pass.clone();
        let _fenced = pass.enter()?;
        let begun = self.plan.clock.monotonic();
        let recorder = Arc::clone(&self.worker.recorder);
        let _handled = jobs::begin_own("Sync", &recorder);
        self.waits(Wait::Sync);
        let metrics = Arc::clone(&self.plan.metrics);
        // Their producers were told a weaker level long ago.
        let _ = self.log.sync().inspect_err(|_| metrics.flush_failures.one())?;
        metrics.flush_duration.observe_for(self.plan.clock.monotonic().saturating_sub(begun));
        self.tell_if_slow(begun, 0);
        Ok(())
    }

    fn look_for_space(&mut self, enough: u64) {
        match self.plan.disk.free_bytes(&self.plan.directory) {
            Ok(free) if free >= enough => {
                self.awaiting_space = None;
                self.worker.reports.complete(Report::SpaceReturned);
            }
            Ok(_) => {}
            Err(error) => warn!(self.plan.logger, "cannot tell the free space"; "error" => %error),
        }
    }

    fn tend(&mut self, producers: Option<(RaftIndex, ProducerTable)>) -> Result<(), Stop> {
        let pass = self.pass.clone();
        let _fenced = pass.enter()?;
        self.waits(Wait::Tend);
        // First: what retention removes can tell nobody any more who sent what.
        if let Some((upto, table)) = producers {
            let disk = self.plan.disk.as_ref();
            let saved = producers::save(disk, &self.plan.directory, upto, &table);
            self.unless_fatal(saved, "the table of producers was not saved")?;
        }
        let published = &self.plan.published;
        let committed = published.high_watermark();
        let needed_from = published.needed_from().min(committed);
        let retained = match needed_from {
            Offset(0) => self.log.retain(committed),
            needed_from => self.log.release(needed_from),
        };
        let removed = self.unless_fatal(retained, "retention removed nothing")?;
        if let Some(unjudged) = removed.map(|removed| removed.unjudged).filter(|count| *count > 0) {
            warn!(self.plan.logger, "the age of segments cannot be read"; "segments" => unjudged);
        }
        if let Some(removed) = removed.filter(|removed| removed.segments > 0) {
            let metrics = &self.plan.metrics;
            metrics.retired_segments.add(u64::from(removed.segments));
            metrics.retired_bytes.add(removed.bytes);
            info!(self.plan.logger, "retention removed segments"; "segments" => removed.segments,
                "bytes" => removed.bytes, "log_start" => self.log.view().start().0);
        }
        let written = self.log.checkpoint();
        self.unless_fatal(written, "no checkpoint written")?;
        let first_index = self.log.first_index();
        self.worker.reports.complete(Report::Tended(Tended { first_index }));
        Ok(())
    }
}

impl FlushThread {
    /// Housekeeping that fails without harm is told and tried again next time.
    fn unless_fatal<T>(
        &self,
        outcome: Result<T, LogError>,
        told: &str,
    ) -> Result<Option<T>, LogError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.disposition() == Disposition::TellCaller => {
                warn!(self.plan.logger, "{told}"; "error" => with_causes(&error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn refusal(error: &LogError) -> Refusal {
    let needed_bytes = match error {
        LogError::DiskFull { needed_bytes, .. } => Some(*needed_bytes),
        _ => None,
    };
    Refusal { reason: with_causes(error), needed_bytes }
}

/// What producers sent: the table that was saved, and what the entries behind it tell.
fn find_producers(
    plan: &LogPlan,
    view: &LogView,
    recovered: &Recovered,
) -> Result<ProducersFound, Stop> {
    let (first, last) = (recovered.first_index, recovered.last_index);
    let (upto, table) = producers::load(plan.disk.as_ref(), &plan.directory, first, last)?;
    let mut behind = Vec::new();
    let mut next = upto.next();
    while next <= last {
        match view.entries(next, CATCH_UP_ENTRIES, CATCH_UP_BYTES) {
            Ok(entries) => {
                next = next.plus(entries.len() as u64);
                for entry in entries.iter().filter(|entry| entry.is_data) {
                    let facts: Vec<_> = producers_of(&entry.payload).collect();
                    if !facts.is_empty() {
                        behind.push((entry.index, entry.base, facts));
                    }
                }
            }
            // Its readers are told so too; what follows it is served all the same.
            Err(error @ LogError::Corrupt { .. }) => {
                warn!(plan.logger, "what idempotent producers sent in an entry is lost";
                    "index" => next.0, "error" => with_causes(&error));
                next = next.next();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ProducersFound { upto, table, behind })
}

/// The vote file; `None` where there never was one.
fn read_hard_state(plan: &LogPlan) -> Result<Option<HardState>, Stop> {
    let path = plan.directory.join(HARD_STATE_FILE);
    match stable::read(plan.disk.as_ref(), &path, HARD_STATE_MAGIC, HARD_STATE_VERSION) {
        Err(LogError::FileMissing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
        Ok((version, bytes)) => {
            HardState::decode(version, plan.me, &bytes).map(Some).map_err(|error| {
                let reason = format!("{}: {error}", path.display());
                Stop { reason, disposition: error.disposition() }
            })
        }
    }
}

/// The only way to a [`Kept`] with entries: made of a token that the log gave.
struct Receipt {
    durability: Durability,
}

impl From<Synced> for Receipt {
    fn from(_: Synced) -> Self {
        Self { durability: Durability::Fsync }
    }
}

impl Receipt {
    fn weaker(_: Written, durability: Durability) -> Self {
        assert!(durability < Durability::Fsync, "only a synced log can say so");
        Self { durability }
    }

    fn over(self, entries: Vec<Placed>) -> Kept {
        Kept { durability: self.durability, entries }
    }
}
