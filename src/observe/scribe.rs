//! Writes messages to the log, in batches and on a thread of its own, which exists from the first
//! message that is logged: waking the logger once for each of thousands of lines a second costs the
//! actors more than the lines do.

use super::{Entry, Seen};
use slog::{Logger, trace};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that may wait for the thread.
const WAITING_MAX: usize = 4096;
/// How long it lets them gather. Also the most by which a line comes late.
const GATHER: Duration = Duration::from_millis(10);

/// See the module. Dropped, it writes what waits.
#[derive(Debug)]
pub(super) struct Scribe {
    messages: Option<SyncSender<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Scribe {
    pub fn start(logger: Logger) -> io::Result<Self> {
        let (messages, waiting) = sync_channel(WAITING_MAX);
        let write = move || write_all(&logger, &waiting);
        let thread = std::thread::Builder::new().name("duramen-scribe".into()).spawn(write)?;
        Ok(Self { messages: Some(messages), thread: Some(thread) })
    }

    /// Takes a message, unless too many wait.
    pub fn take(&self, seen: Seen) -> bool {
        self.messages.as_ref().is_some_and(|messages| messages.try_send(seen).is_ok())
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.messages = None;
        // It ends within moments; a panic in it took nothing but lines.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn write_all(logger: &Logger, waiting: &Receiver<Seen>) {
    while let Ok(first) = waiting.recv() {
        write(logger, &first);
        let mut wrote = true;
        while wrote {
            std::thread::sleep(GATHER);
            wrote = waiting.try_iter().inspect(|seen| write(logger, seen)).count() > 0;
        }
    }
}

fn write(logger: &Logger, seen: &Seen) {
    let Entry { id, cause, request, sender, message, .. } = seen.entry;
    let elapsed_us = seen.entry.took_ns() / 1000;
    let outcome = seen.entry.outcome_name();
    trace!(logger, "{}", if seen.shown.is_empty() { "answer" } else { "message" };
        "actor" => &*seen.path, "message" => message, "id" => id.0, "cause" => cause.0,
        "request" => request, "from" => &*sender.path(), "elapsed_us" => elapsed_us,
        "outcome" => outcome, "shown" => &seen.shown);
}
