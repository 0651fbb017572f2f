//! Crash reports: `DATA/crash/<time>-<path>.json`, one for each crash that is worth one.
//!
//! Reports come from the control thread, which must not wait for a disk or for the names of a
//! backtrace. They are put into a short queue; a thread that exists only while there is something
//! in it writes them. A storm of crashes costs a report for each path and second, and what is not
//! written is counted.

mod files;
#[cfg(test)]
mod tests;

pub use files::{CrashFileError, LATEST, Summary, directory, list, read};

use crate::observe::{CrashEvent, CrashReport, CrashSink};
use crate::ops::settings::Settings;
use crate::ops::settings::fields::FIELDS;
use serde::Serialize;
use slog::{Logger, info, warn};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Reports that may wait to be written.
const QUEUE_MAX: usize = 16;
/// Between two reports of the same path.
const INTERVAL: Duration = Duration::from_secs(1);
/// Paths whose last report is remembered.
const PATHS_MAX: usize = 1024;

/// The version of a report's layout; grows when a field changes its meaning.
const LAYOUT_VERSION: u32 = 1;

/// What became of crashes, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CrashCounts {
    /// Reports written.
    pub written: u64,
    /// Crashes without a report, for there was one of the same path just before.
    pub suppressed: u64,
    /// Crashes without a report, for too many were waiting to be written.
    pub dropped: u64,
    /// Reports that could not be written.
    pub failed: u64,
}

/// Writes reports, and keeps them to a count and a size.
#[derive(Debug)]
pub struct CrashStore {
    directory: PathBuf,
    reports_max: usize,
    bytes_max: u64,
    config: BTreeMap<&'static str, String>,
    logger: Logger,
    /// For the thread that writes.
    me: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<CrashReport>,
    is_writing: bool,
    lately: HashMap<(Box<str>, CrashEvent), Lately>,
    counts: CrashCounts,
    /// Dropped, and told to nobody yet.
    untold: u64,
}

#[derive(Debug)]
struct Lately {
    /// When the last report was made; `None`: there was none yet.
    at: Option<Duration>,
    suppressed: u64,
}

impl Lately {
    fn is_over(&self, now: Duration) -> bool {
        self.at.is_none_or(|at| now.saturating_sub(at) >= INTERVAL)
    }
}

/// What is in a file.
#[derive(Serialize)]
struct Document<'a> {
    layout: u32,
    #[serde(flatten)]
    report: &'a CrashReport,
    build: Build,
    config: &'a BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Build {
    version: &'static str,
    commit: &'static str,
    target: &'static str,
}

const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: env!("BUILT_FROM_COMMIT"),
    target: env!("BUILT_FOR_TARGET"),
};

impl CrashStore {
    /// A store in the data directory of these settings. Nothing is created before the first crash.
    pub fn new(settings: &Settings, logger: Logger) -> Arc<Self> {
        let config = FIELDS.iter().map(|field| (field.key, field.show_redacted(settings)));
        Arc::new_cyclic(|me| Self {
            directory: directory(&settings.data_dir),
            reports_max: settings.crash.reports_max as usize,
            bytes_max: settings.crash.bytes_max.bytes(),
            config: config.collect(),
            logger,
            me: me.clone(),
            state: Mutex::default(),
        })
    }

    /// Where the reports are.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// What became of crashes so far.
    pub fn counts(&self) -> CrashCounts {
        self.state().counts
    }

    /// Whether everything that was taken is written.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.queue.is_empty() && !state.is_writing
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, and ends with the queue.
    fn write_all(&self) {
        loop {
            let next = {
                let mut state = self.state();
                let next = state.queue.pop_front();
                state.is_writing = next.is_some();
                next
            };
            let Some(report) = next else { return self.tell_of_dropped() };
            let path = report.path.clone();
            // A backtrace that cannot be told must not end the writing: the next one waits for it.
            let error = match catch_unwind(AssertUnwindSafe(|| self.write(report))) {
                Ok(Ok(name)) => {
                    self.state().counts.written += 1;
                    info!(self.logger, "a crash report was written"; "actor" => path,
                        "report" => name);
                    continue;
                }
                Ok(Err(error)) => crate::model::with_causes(&error),
                Err(_) => "making it panicked".to_owned(),
            };
            self.state().counts.failed += 1;
            warn!(self.logger, "a crash report cannot be written"; "actor" => path,
                "error" => error);
        }
    }

    fn write(&self, mut report: CrashReport) -> Result<String, CrashFileError> {
        let bytes = loop {
            let bytes = self.document(&report);
            if bytes.len() as u64 <= self.bytes_max || report.recorders.pop().is_none() {
                break bytes;
            }
            report.recorders_left_out += 1;
        };
        if bytes.len() as u64 > self.bytes_max {
            return Err(CrashFileError::TooLarge { bytes: bytes.len() as u64 });
        }
        files::make_room(&self.directory, self.reports_max, self.bytes_max, bytes.len() as u64)?;
        files::write(&self.directory, &report.at.rfc3339(), &report.path, &bytes)
    }

    fn document(&self, report: &CrashReport) -> Vec<u8> {
        let document =
            Document { layout: LAYOUT_VERSION, report, build: BUILD, config: &self.config };
        let mut bytes = serde_json::to_vec(&document).expect("plain values with text keys");
        bytes.push(b'\n');
        bytes
    }

    fn tell_of_dropped(&self) {
        let untold = std::mem::take(&mut self.state().untold);
        if untold > 0 {
            warn!(self.logger, "crashes came too fast: not every one has a report";
                "without_report" => untold);
        }
    }
}

impl CrashSink for CrashStore {
    fn admit(&self, path: &str, event: CrashEvent, now: Duration) -> Option<u64> {
        let mut state = self.state();
        let is_full = state.queue.len() >= QUEUE_MAX;
        if state.lately.len() >= PATHS_MAX {
            state.lately.retain(|_, lately| !lately.is_over(now));
        }
        let has_place = state.lately.len() < PATHS_MAX;
        let key = (Box::<str>::from(path), event);
        if !has_place && !state.lately.contains_key(&key) || is_full {
            state.counts.dropped += 1;
            state.untold += 1;
            if let Some(lately) = state.lately.get_mut(&key) {
                lately.suppressed += 1;
            }
            return None;
        }
        let lately = state.lately.entry(key).or_insert(Lately { at: None, suppressed: 0 });
        if lately.is_over(now) {
            lately.at = Some(now);
            return Some(std::mem::take(&mut lately.suppressed));
        }
        lately.suppressed += 1;
        state.counts.suppressed += 1;
        None
    }

    fn take(&self, report: CrashReport) {
        let is_writing = {
            let mut state = self.state();
            state.queue.push_back(report);
            std::mem::replace(&mut state.is_writing, true)
        };
        if is_writing {
            return;
        }
        let store = self.me.upgrade().expect("called through an Arc, which lives");
        let thread = std::thread::Builder::new().name("duramen-crash".into());
        if let Err(error) = thread.spawn(move || store.write_all()) {
            let mut state = self.state();
            state.is_writing = false;
            let lost = state.queue.drain(..).count() as u64;
            state.counts.failed += lost;
            drop(state);
            warn!(self.logger, "no thread to be had for crash reports"; "error" => %error,
                "without_report" => lost);
        }
    }
}
