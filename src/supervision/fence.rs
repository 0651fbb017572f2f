//! Keeps the writers of past lives from the disk.
//!
//! A hung thread cannot be ended. It may wake at any time, in the middle of what it did. So every
//! call that changes the disk is made inside a [`FenceGuard`], and a new life first
//! [advances](Fence::advance) the fence: from then on older lives are refused for ever, and the new
//! one gets its pass only once no older guard is held.

use super::slot::locked;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// One partition's fence. Outlives the lives of its writers.
#[derive(Debug, Default)]
pub struct Fence {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The newest generation that was announced; older ones are refused.
    current: u64,
    /// Whose guards are held, and how many. Never of two generations at a time.
    holder: u64,
    held: usize,
}

/// Why a writer may not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// The writer belongs to a past life: it must stop, for ever.
    #[error("generation {generation} is fenced off by generation {current}; it must not write")]
    Fenced {
        /// Whose writer asked.
        generation: u64,
        /// The newest life.
        current: u64,
    },
    /// A past life is inside a disk call and has not come back in time.
    #[error(
        "generation {holder} is still inside a disk call after {waited:?}; generation \
         {generation} cannot write before it returns"
    )]
    Busy {
        /// Whose writer asked.
        generation: u64,
        /// Who is inside.
        holder: u64,
        /// How long was waited.
        waited: Duration,
    },
}

impl FenceError {
    /// Who must act: the life that was refused ends; the tree decides on the next.
    pub fn disposition(&self) -> crate::model::Disposition {
        crate::model::Disposition::RebuildActor
    }
}

impl Fence {
    /// A fence that no generation has passed.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Shuts out every generation before this one, and waits until none of them is inside a disk
    /// call: at most `wait`, blocking the calling thread.
    ///
    /// # Errors
    /// [`FenceError::Fenced`] when this or a newer generation has advanced before;
    /// [`FenceError::Busy`] when the wait was too short (older ones stay shut out, and a later
    /// generation may try again).
    #[allow(clippy::disallowed_methods, reason = "a condition variable waits in real time")]
    pub fn advance(
        self: &Arc<Self>,
        generation: u64,
        wait: Duration,
    ) -> Result<FencePass, FenceError> {
        let mut state = locked(&self.state);
        if generation <= state.current {
            return Err(FenceError::Fenced { generation, current: state.current });
        }
        state.current = generation;
        let deadline = Instant::now() + wait;
        while state.held > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FenceError::Busy { generation, holder: state.holder, waited: wait });
            }
            let waited = self.released.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        if state.current != generation {
            return Err(FenceError::Fenced { generation, current: state.current });
        }
        Ok(FencePass { fence: Arc::clone(self), generation })
    }

    /// Enters for one call that changes the disk. Use [`FencePass::enter`] where there is a pass.
    ///
    /// # Errors
    /// [`FenceError::Fenced`] unless this generation was the last to advance;
    /// [`FenceError::Busy`] while a past life is inside.
    pub fn enter(&self, generation: u64) -> Result<FenceGuard<'_>, FenceError> {
        let mut state = locked(&self.state);
        if generation != state.current {
            return Err(FenceError::Fenced { generation, current: state.current });
        }
        if state.held > 0 && state.holder != generation {
            let (holder, waited) = (state.holder, Duration::ZERO);
            return Err(FenceError::Busy { generation, holder, waited });
        }
        state.holder = generation;
        state.held += 1;
        Ok(FenceGuard { fence: self })
    }
}

/// The proof that a generation has advanced, kept by its writer.
#[derive(Debug, Clone)]
pub struct FencePass {
    fence: Arc<Fence>,
    generation: u64,
}

impl FencePass {
    /// The generation it was given to.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Enters for one call that changes the disk.
    ///
    /// # Errors
    /// As [`Fence::enter`].
    pub fn enter(&self) -> Result<FenceGuard<'_>, FenceError> {
        self.fence.enter(self.generation)
    }
}

/// Held while a call changes the disk.
#[must_use = "the call must happen while the guard is held"]
#[derive(Debug)]
pub struct FenceGuard<'a> {
    fence: &'a Fence,
}

impl Drop for FenceGuard<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.fence.state);
        state.held -= 1;
        if state.held == 0 {
            self.fence.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn only_the_last_generation_to_advance_may_enter() {
        let fence = Fence::new();
        assert!(matches!(fence.enter(1), Err(FenceError::Fenced { current: 0, .. })));
        let old = fence.advance(1, LONG).unwrap();
        drop((old.enter().unwrap(), old.enter().unwrap()));
        let new = fence.advance(5, LONG).unwrap();
        assert_eq!(old.enter().unwrap_err(), FenceError::Fenced { generation: 1, current: 5 });
        assert!(fence.enter(6).is_err(), "it has not advanced");
        assert!(fence.advance(5, LONG).is_err() && fence.advance(2, LONG).is_err());
        assert_eq!((new.enter().is_ok(), new.generation()), (true, 5));
    }

    #[test]
    fn a_new_generation_waits_until_the_old_one_is_out_of_its_disk_call() {
        let fence = Fence::new();
        let old = fence.advance(1, LONG).unwrap();
        let (entered, has_entered) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let guard = old.enter().unwrap();
            entered.send(()).unwrap();
            may_leave.recv().unwrap();
            drop(guard);
            old.enter().map(drop)
        });
        has_entered.recv().unwrap();
        let busy = fence.advance(2, Duration::from_millis(5)).unwrap_err();
        assert!(matches!(busy, FenceError::Busy { generation: 2, holder: 1, .. }), "{busy}");
        assert!(matches!(fence.enter(2), Err(FenceError::Busy { .. })), "one writer at a time");
        leave.send(()).unwrap();
        let new = fence.advance(3, LONG).unwrap();
        assert!(matches!(writer.join().unwrap(), Err(FenceError::Fenced { .. })));
        assert!(new.enter().is_ok());
    }

    /// Goal: with real threads, no write of an older generation follows one of a newer. Method:
    /// each thread is a life that advances and writes its generation until it is fenced off.
    #[test]
    fn writes_of_many_threads_never_go_back_in_generation() {
        let fence = Fence::new();
        let disk = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for generation in 1..=8 {
                let (fence, disk) = (&fence, &disk);
                scope.spawn(move || {
                    let Ok(pass) = fence.advance(generation, LONG) else { return };
                    for _ in 0..2_000 {
                        let Ok(guard) = pass.enter() else { return };
                        let before = disk.swap(generation, Ordering::SeqCst);
                        assert!(before <= generation, "{before} wrote before {generation}");
                        drop(guard);
                    }
                });
            }
        });
        assert!(disk.load(Ordering::SeqCst) > 0);
    }

    proptest! {
        /// Goal: in any interleaving of calls only one generation is inside, and never one that
        /// was superseded before it entered. Method: calls at random that do not wait, against a
        /// model of who is inside.
        #[test]
        fn no_interleaving_lets_an_old_generation_in(
            calls in prop::collection::vec((0..3u8, 1..6u64), 0..60),
        ) {
            let fence = Fence::new();
            let (mut current, mut inside) = (0, Vec::<(u64, FenceGuard<'_>)>::new());
            for (call, generation) in calls {
                match call {
                    0 => {
                        let passed = fence.advance(generation, Duration::ZERO).is_ok();
                        prop_assert_eq!(passed, generation > current && inside.is_empty());
                        current = current.max(generation);
                    }
                    1 => {
                        let alone = inside.iter().all(|(holder, _)| *holder == generation);
                        let entered = fence.enter(generation);
                        prop_assert_eq!(entered.is_ok(), generation == current && alone);
                        inside.extend(entered.ok().map(|guard| (generation, guard)));
                    }
                    _ => drop(inside.pop()),
                }
            }
        }
    }
}
