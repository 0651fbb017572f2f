//! What a failing test prints: the seed, and the last messages of all its nodes in the order in
//! which they were sent. Numbers of messages are of the process, so that the flight recorders of
//! several nodes can be laid side by side.

use crate::observe::{Entry, Hub};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Messages that are printed, of all nodes together.
const LINES_MAX: usize = 200;

thread_local! {
    /// The nodes that this thread started, in order.
    static STORIES: RefCell<Vec<Weak<Story>>> = const { RefCell::new(Vec::new()) };
    static IS_TOLD: Cell<bool> = const { Cell::new(false) };
}

/// What a node did, over all its lives.
#[derive(Debug)]
pub(super) struct Story {
    name: String,
    seed: u64,
    hub: Mutex<Option<Arc<Hub>>>,
    /// The recorders' last contents of lives that are over.
    past: Mutex<Vec<(Arc<str>, Entry)>>,
}

impl Story {
    /// Of a node that the calling thread starts.
    pub(super) fn begin(seed: u64) -> Arc<Self> {
        STORIES.with_borrow_mut(|stories| {
            stories.retain(|story| story.strong_count() > 0);
            let name = format!("node {}", stories.len() + 1);
            let (hub, past) = (Mutex::default(), Mutex::default());
            let story = Arc::new(Self { name, seed, hub, past });
            stories.push(Arc::downgrade(&story));
            story
        })
    }

    pub(super) fn lives(&self, hub: &Arc<Hub>) {
        *self.hub.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(hub));
    }

    /// Keeps what the recorders hold: the life is about to be dropped.
    pub(super) fn ends(&self) {
        let hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.extend(hub.iter().flat_map(|hub| entries(hub)));
        past.sort_by_key(|(_, entry)| entry.id);
        let surplus = past.len().saturating_sub(LINES_MAX);
        past.drain(..surplus);
    }

    fn entries(&self) -> Vec<(Arc<str>, Entry)> {
        let mut all = self.past.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(hub.iter().flat_map(|hub| entries(hub)));
        all
    }
}

fn entries(hub: &Hub) -> Vec<(Arc<str>, Entry)> {
    let of_one = |recorder: Arc<crate::observe::Recorder>| {
        let path = Arc::clone(recorder.path_text());
        recorder.ring().into_iter().map(move |entry| (Arc::clone(&path), entry))
    };
    hub.recorders().into_iter().flat_map(of_one).collect()
}

/// Prints the stories of all nodes of this thread, once, if it is panicking.
#[allow(clippy::print_stderr, reason = "what a failing test has to say goes where panics go")]
pub(super) fn tell_if_panicking() {
    if std::thread::panicking() && !IS_TOLD.replace(true) {
        eprintln!("{}", tell());
    }
}

/// The stories of all nodes of this thread, merged.
pub(super) fn tell() -> String {
    let stories: Vec<Arc<Story>> =
        STORIES.with_borrow(|stories| stories.iter().filter_map(Weak::upgrade).collect());
    let mut lines: Vec<(usize, Arc<str>, Entry)> = Vec::new();
    let mut text = String::new();
    let variable = super::SEED_VARIABLE;
    for (number, story) in stories.iter().enumerate() {
        let Story { name, seed, .. } = &**story;
        writeln!(text, "{name}: seed {seed}; the same again with {variable}={seed}")
            .expect("a string takes any text");
        lines.extend(story.entries().into_iter().map(|(path, entry)| (number, path, entry)));
    }
    lines.sort_by_key(|(_, _, entry)| (entry.id, entry.taken_ns));
    let surplus = lines.len().saturating_sub(LINES_MAX);
    if surplus > 0 {
        writeln!(text, "({surplus} earlier messages are left out)")
            .expect("a string takes any text");
    }
    for (number, path, entry) in &lines[surplus..] {
        let Entry { id, cause, sender, message, request, items, bytes, .. } = entry;
        let sender = sender.path();
        let from = if sender.is_empty() { "outside" } else { &*sender };
        writeln!(
            text,
            "{:>8} {} {path} {message} {} ({items} items, {bytes}B) from {from}, cause {}, \
             request {request}, waited {}us, took {}us",
            id.0,
            stories[*number].name,
            entry.outcome_name(),
            cause.0,
            entry.waited_ns() / 1000,
            entry.took_ns() / 1000,
        )
        .expect("a string takes any text");
    }
    text
}
