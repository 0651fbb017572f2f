//! Waiting in tests: for conditions and for futures, never for time to pass.

use crate::model::{Clock, SystemClock};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// How long a condition may take to come true before a test gives up. Not a promise of speed:
/// machines that run tests are slow at times.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// Looks again and again until the condition holds. Blocks.
///
/// # Panics
/// After half a minute, with `what` was waited for.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_or(PATIENCE, || holds().then_some(()), || what.to_owned());
}

/// As [`until`], for a value, with words for what was seen instead.
pub(super) fn until_or<T>(
    patience: Duration,
    mut find: impl FnMut() -> Option<T>,
    seen: impl FnOnce() -> String,
) -> T {
    match eventually(patience, &mut find) {
        Some(found) => found,
        None => panic!("waited for {patience:?} in vain: {}", seen()),
    }
}

/// Looks until there is something, or the time is over.
pub(super) fn eventually<T>(patience: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let clock = SystemClock::new();
    let begun = clock.monotonic();
    loop {
        if let Some(found) = find() {
            return Some(found);
        }
        if clock.monotonic() - begun >= patience {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// The runtime of clients in tests: sockets and timers of what [`block_on`] runs.
pub fn runtime() -> tokio::runtime::Handle {
    static RUNTIME: LazyLock<tokio::runtime::Handle> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a test process can have a runtime");
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("test-clients".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .expect("a test process can have a thread");
        handle
    });
    RUNTIME.clone()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on the calling thread, with the sockets and timers of [`runtime`].
/// Unlike a runtime's own it may be called anywhere, also inside of another runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = runtime();
    let _entered = runtime.enter();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}
