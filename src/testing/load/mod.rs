//! Load through real gRPC clients, with a ledger: what was acknowledged must be there, once, in the
//! order of its producer; what was refused for certain must not.

mod clients;
mod ledger;

pub use ledger::{Ledger, Violation};

use super::wait::until_or;
use crate::model::FIRST_TOPIC;
use clients::Shared;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// What load is put on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadPlan {
    /// Clients that append, each on a connection of its own with one request outstanding.
    pub producers: usize,
    /// Clients that follow the log from its start, each on a connection of its own.
    pub consumers: usize,
    /// Records in a request.
    pub records: u32,
    /// Bytes of a record's value, at least those of its name.
    pub value_bytes: usize,
}

impl Default for LoadPlan {
    fn default() -> Self {
        Self { producers: 64, consumers: 8, records: 1, value_bytes: 100 }
    }
}

/// What load is put on.
#[derive(Debug, Clone)]
pub(super) struct Aim {
    /// Of nodes that take it, as they are at the time: clients go on to another one when theirs
    /// fails them.
    pub addresses: Arc<RwLock<Vec<String>>>,
    /// Its partition 0.
    pub topic: String,
}

impl Aim {
    /// The topic `log` at one node.
    pub fn at(addr: SocketAddr) -> Self {
        let addresses = Arc::new(RwLock::new(vec![addr.to_string()]));
        Self { addresses, topic: FIRST_TOPIC.into() }
    }
}

/// Load that goes on until it is finished.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Ledger>>,
    patience: Duration,
}

impl Load {
    pub(super) fn start(aim: Aim, plan: LoadPlan, patience: Duration) -> Self {
        let shared = Arc::new(Shared::new(aim, plan));
        let mine = Arc::clone(&shared);
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a test process can have a runtime");
            runtime.block_on(clients::run(mine, patience))
        };
        let thread = std::thread::Builder::new()
            .name("test-load".into())
            .spawn(body)
            .expect("a test process can have a thread");
        Self { shared, thread: Some(thread), patience }
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }

    /// Records read so far, by all consumers together.
    pub fn consumed(&self) -> u64 {
        self.shared.consumed.load(Ordering::Acquire)
    }

    /// Errors so far, of producers and consumers.
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Acquire)
    }

    /// Waits until so many more records are acknowledged. Blocks.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn await_acknowledged(&self, more: u64) {
        let goal = self.acknowledged() + more;
        let reached = || (self.acknowledged() >= goal).then_some(());
        until_or(self.patience, reached, || {
            format!(
                "{goal} records acknowledged, there are {}; errors: {:?}",
                self.acknowledged(),
                self.shared.errors_by_kind()
            )
        });
    }

    /// Ends the load: producers get their last answers, consumers read to the end, and the whole
    /// log is read back. Needs a node that serves. Blocks.
    ///
    /// # Panics
    /// When the log cannot be read to its end in time.
    pub fn finish(mut self) -> Ledger {
        self.shared.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("finished once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A test that fails, or lost interest: the clients are dropped by themselves.
        self.shared.stop.store(true, Ordering::Release);
        self.shared.is_abandoned.store(self.thread.is_some(), Ordering::Release);
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Load({} acknowledged, {} errors)", self.acknowledged(), self.errors())
    }
}
