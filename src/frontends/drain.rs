//! The end of service, announced once: connections say goodbye, endless streams end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::sync::watch;

/// The side that announces the drain. Dropped, it announces it too.
#[derive(Debug)]
pub struct DrainSwitch {
    begun: Arc<AtomicBool>,
    signal: watch::Sender<bool>,
}

impl DrainSwitch {
    /// Announces the drain. Once begun it does not end.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.signal.send_replace(true);
    }
}

impl Drop for DrainSwitch {
    fn drop(&mut self) {
        self.begin();
    }
}

/// The side that hears of the drain.
#[derive(Debug, Clone)]
pub struct Drain {
    /// What a look costs on the hot path: one load, where the channel would take a lock.
    begun: Arc<AtomicBool>,
    signal: watch::Receiver<bool>,
}

impl Drain {
    /// A switch and the signal it gives.
    #[must_use]
    pub fn channel() -> (DrainSwitch, Self) {
        let begun = Arc::new(AtomicBool::new(false));
        let (sender, signal) = watch::channel(false);
        (DrainSwitch { begun: Arc::clone(&begun), signal: sender }, Self { begun, signal })
    }

    /// True once the drain was announced.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits for the drain.
    pub async fn begun(mut self) {
        // An error says that the switch is gone: nobody could announce a drain any more.
        let _ = self.signal.wait_for(|begun| *begun).await;
    }

    /// A form for hand-written futures.
    #[must_use]
    pub fn poller(self) -> DrainPoller {
        DrainPoller { signal: self.clone(), begun: Some(Box::pin(self.begun())), waker: None }
    }
}

/// Asks about a drain from a hand-written future. It sits on the hottest path there is, so it
/// registers a task's waker once and then costs one comparison.
pub struct DrainPoller {
    signal: Drain,
    /// `None` once the drain has begun.
    begun: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The waker that the future above holds.
    waker: Option<Waker>,
}

impl DrainPoller {
    /// True once the drain has begun; until then the task is woken when it does.
    pub fn poll_begun(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(begun) = &mut self.begun else { return true };
        let registered = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if registered && !self.signal.has_begun() {
            return false;
        }
        if begun.as_mut().poll(cx) == Poll::Ready(()) {
            self.begun = None;
            return true;
        }
        self.waker = Some(cx.waker().clone());
        false
    }
}

impl std::fmt::Debug for DrainPoller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrainPoller").field("begun", &self.begun.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(flavor = "current_thread")]
    async fn a_waiting_task_is_woken_by_the_drain_and_a_later_one_sees_it_at_once() {
        let (switch, drain) = Drain::channel();
        let mut poller = drain.clone().poller();
        let waiting = tokio::spawn(poll_fn(move |cx| {
            if poller.poll_begun(cx) { Poll::Ready(()) } else { Poll::Pending }
        }));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && !drain.has_begun());
        switch.begin();
        waiting.await.unwrap();
        assert!(drain.has_begun());
        drain.begun().await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_dropped_switch_counts_as_a_drain() {
        let (switch, drain) = Drain::channel();
        drop(switch);
        assert!(drain.has_begun());
        drain.begun().await;
    }
}
