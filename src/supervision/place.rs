//! Where actors live: the control thread, or a shard whose thread can be given up and replaced.

use super::slot::locked;
use actix_rt::{Arbiter, ArbiterHandle};
use std::cell::OnceCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Where an actor lives.
#[derive(Clone, Debug)]
pub enum Place {
    /// On the thread that runs the tree. Nothing can be done about an actor that hangs there.
    Control,
    /// On a shard, with others.
    Shard(Arc<Shard>),
}

thread_local! {
    static FENCE: OnceCell<Arc<AtomicBool>> = const { OnceCell::new() };
}

/// Whether the calling thread was given up by its shard: what it still does must reach nobody.
pub fn thread_is_abandoned() -> bool {
    FENCE.with(|fence| fence.get().is_some_and(|fence| fence.load(Ordering::Acquire)))
}

/// A thread with an event loop that several actors share, and that is replaced when it hangs.
///
/// A hung thread cannot be ended, only left: it is never joined, nothing more is sent to it, its
/// references refuse, and its writers are fenced off ([`super::Fence`]).
pub struct Shard {
    name: String,
    current: Mutex<Current>,
    abandoned: AtomicU64,
    threads: ShardThreads,
}

struct Current {
    generation: u64,
    thread: Option<Thread>,
}

struct Thread {
    arbiter: Arbiter,
    fence: Arc<AtomicBool>,
    /// How often anything supervised was run on it.
    polls: Arc<AtomicU64>,
}

impl Shard {
    /// A shard whose thread starts when it is first needed. The first 15 bytes of the name become
    /// the thread's.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            current: Mutex::new(Current { generation: 1, thread: None }),
            abandoned: AtomicU64::new(0),
            threads: ShardThreads::default(),
        })
    }

    /// The shard's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The present thread, started if there is none, and its generation. Blocks while a thread
    /// starts.
    ///
    /// # Panics
    /// When the calling thread belongs to no actix system, or a thread cannot be started.
    pub fn current(&self) -> (u64, ArbiterHandle) {
        let mut current = locked(&self.current);
        if current.thread.as_ref().is_some_and(|thread| !thread.arbiter.alive()) {
            current.generation += 1;
            current.thread = None;
        }
        let generation = current.generation;
        let thread = current.thread.get_or_insert_with(|| {
            let thread = start(&self.name);
            self.threads.note(&thread.fence);
            thread
        });
        (generation, thread.arbiter.handle())
    }

    /// The count of supervised calls on the present thread.
    pub(super) fn polls(&self) -> Arc<AtomicU64> {
        let current = locked(&self.current);
        current.thread.as_ref().map(|thread| Arc::clone(&thread.polls)).unwrap_or_default()
    }

    /// Gives up the thread of this generation; the next [`Shard::current`] starts another. Returns
    /// false when it was given up before.
    pub fn abandon(&self, generation: u64) -> bool {
        let mut current = locked(&self.current);
        if current.generation != generation {
            return false;
        }
        current.generation += 1;
        if let Some(thread) = current.thread.take() {
            thread.fence.store(true, Ordering::Release);
            // Should it ever wake, its event loop ends; the thread is not joined.
            thread.arbiter.stop();
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// The count of its threads that are not at their end, which outlives the shard.
    pub fn threads(&self) -> ShardThreads {
        self.threads.clone()
    }

    /// How many threads were given up since the beginning.
    pub fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Ends the thread when its event loop comes to it; actors on it are killed.
    pub fn stop(&self) {
        let mut current = locked(&self.current);
        if let Some(thread) = current.thread.take() {
            current.generation += 1;
            thread.arbiter.stop();
        }
    }
}

/// Knows which of a shard's threads still run: the present one, and those that were given up.
#[derive(Clone, Debug, Default)]
pub struct ShardThreads(Arc<Mutex<Vec<Weak<AtomicBool>>>>);

impl ShardThreads {
    fn note(&self, fence: &Arc<AtomicBool>) {
        let mut threads = locked(&self.0);
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(Arc::downgrade(fence));
    }

    /// How many run. A thread holds its fence until its very end.
    pub fn alive(&self) -> usize {
        locked(&self.0).iter().filter(|thread| thread.strong_count() > 0).count()
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({})", self.name)
    }
}

fn start(name: &str) -> Thread {
    let arbiter = Arbiter::new();
    let fence = Arc::new(AtomicBool::new(false));
    let (mine, name) = (Arc::clone(&fence), name.to_owned());
    arbiter.spawn_fn(move || {
        name_thread(&name);
        FENCE.with(|fence| fence.set(mine)).expect("a new thread has no fence yet");
    });
    Thread { arbiter, fence, polls: Arc::default() }
}

/// Names the calling thread, as `top -H` shows it. actix names its threads itself and offers no
/// say in it.
#[allow(clippy::disallowed_methods, reason = "procfs, not a file of the log")]
fn name_thread(name: &str) {
    let short: String = name.chars().filter(char::is_ascii).take(15).collect();
    // A machine without procfs has threads with dull names; nothing depends on it.
    drop(std::fs::write("/proc/thread-self/comm", short));
}
