//! How long ago it was known that this node's catalogue is the cluster's newest. The answer of the
//! controller's leader counts, which a majority still follows: a connection that is there says less.

use crate::actors::control::ControlApi;
use crate::cluster::Catalogue;
use crate::model::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often, within the time after which a catalogue is stale, it is asked for. More than twice, so that
/// an election in between does no harm.
const CONFIRMED_TIMES: u32 = 3;
/// When to ask again where there was no answer.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What is asked, and when it matters.
pub(super) struct Freshness<F> {
    /// The longest that a catalogue is good for.
    pub stale_after: Duration,
    /// Whether a catalogue is relied on: else nothing is asked.
    pub matters: F,
    pub control: Arc<dyn ControlApi>,
    pub clock: Arc<dyn Clock>,
}

impl<F: Fn(&Catalogue) -> bool> Freshness<F> {
    /// Tells `true` when it has not been known for too long, and `false` when it is again. The time
    /// counts from the question. Ends with the controller.
    pub async fn watch(self, doubts: watch::Sender<bool>) {
        let mut catalogues = self.control.watch();
        let mut sure = self.clock.monotonic();
        loop {
            if !(self.matters)(&catalogues.borrow_and_update()) {
                doubts.send_if_modified(std::mem::take);
                if catalogues.changed().await.is_err() {
                    return;
                }
                sure = self.clock.monotonic();
                continue;
            }
            let asked = self.clock.monotonic();
            let left = self.stale_after.saturating_sub(asked.saturating_sub(sure));
            let patience = if left.is_zero() { self.stale_after } else { left };
            let answer = tokio::time::timeout(patience, self.control.confirm()).await;
            let is_sure = matches!(answer, Ok(Ok(())));
            if is_sure {
                sure = asked;
            }
            let is_stale = self.clock.monotonic().saturating_sub(sure) >= self.stale_after;
            doubts.send_if_modified(|doubts| std::mem::replace(doubts, is_stale) != is_stale);
            let pause = if is_sure { self.stale_after / CONFIRMED_TIMES } else { ASK_AGAIN };
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::control::{Answered, Answering, ControlError, JoinAsked, Joined};
    use crate::cluster::{Command, OnBehalf, Outcome};
    use crate::model::{ManualClock, NodeId, Timestamp};
    use bytes::Bytes;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    const STALE_AFTER: Duration = Duration::from_millis(30);
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A controller that answers or does not; each answer takes a third of the time that there is.
    #[derive(Debug)]
    struct Leader {
        catalogue: watch::Sender<Arc<Catalogue>>,
        clock: Arc<ManualClock>,
        is_there: AtomicBool,
        asked: AtomicU64,
    }

    impl ControlApi for Leader {
        fn catalogue(&self) -> Arc<Catalogue> {
            self.catalogue.borrow().clone()
        }

        fn watch(&self) -> watch::Receiver<Arc<Catalogue>> {
            self.catalogue.subscribe()
        }

        fn node(&self) -> Option<NodeId> {
            None
        }

        fn leader(&self) -> Option<NodeId> {
            None
        }

        fn confirm(&self) -> Answering<()> {
            self.asked.fetch_add(1, Ordering::AcqRel);
            self.clock.advance(STALE_AFTER / CONFIRMED_TIMES);
            let message = "nobody leads".into();
            let answer = match self.is_there.load(Ordering::Acquire) {
                true => Ok(()),
                false => Err(ControlError::Unavailable { message, retry_after: ASK_AGAIN }),
            };
            Box::pin(std::future::ready(answer))
        }

        fn change_for(&self, _: Option<OnBehalf>, _: Command) -> Answering<Outcome> {
            unreachable!("nothing is changed")
        }

        fn change_here(&self, _: Bytes) -> Answering<Answered<Bytes>> {
            unreachable!("nothing is changed")
        }

        fn join_here(&self, _: JoinAsked) -> Answering<Answered<Joined>> {
            unreachable!("nobody joins")
        }
    }

    impl Leader {
        fn switch(&self, is_on: bool) {
            self.catalogue.send_modify(|known| Arc::make_mut(known).access.is_on = is_on);
        }

        async fn until_asked(&self, more: u64) {
            let goal = self.asked.load(Ordering::Acquire) + more;
            while self.asked.load(Ordering::Acquire) < goal {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[test]
    fn who_is_answered_never_doubts_and_who_is_not_does_until_it_is_where_that_matters() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let leader = Arc::new(Leader {
            catalogue: watch::Sender::default(),
            clock: Arc::new(ManualClock::at(Timestamp(0))),
            is_there: AtomicBool::new(true),
            asked: AtomicU64::new(0),
        });
        let freshness = Freshness {
            stale_after: STALE_AFTER,
            matters: |catalogue: &Catalogue| catalogue.access.is_on,
            control: Arc::clone(&leader) as Arc<dyn ControlApi>,
            clock: Arc::clone(&leader.clock) as Arc<dyn Clock>,
        };
        let (tell, mut doubts) = watch::channel(false);
        let story = async {
            // Nothing is asked while nothing is judged, however long that lasts.
            leader.clock.advance(100 * STALE_AFTER);
            tokio::task::yield_now().await;
            assert_eq!(leader.asked.load(Ordering::Acquire), 0);
            leader.switch(true);
            leader.until_asked(50).await;
            assert!(!doubts.has_changed().unwrap(), "all is well, and was never said not to be");
            leader.is_there.store(false, Ordering::Release);
            doubts.wait_for(|doubts| *doubts).await.unwrap();
            leader.is_there.store(true, Ordering::Release);
            doubts.wait_for(|doubts| !*doubts).await.unwrap();
            leader.is_there.store(false, Ordering::Release);
            doubts.wait_for(|doubts| *doubts).await.unwrap();
            leader.switch(false);
            doubts.wait_for(|doubts| !*doubts).await.unwrap();
        };
        runtime.block_on(async {
            tokio::select! {
                () = freshness.watch(tell) => panic!("it ended"),
                ended = tokio::time::timeout(PATIENCE, story) => ended.expect("in time"),
            }
        });
    }
}
