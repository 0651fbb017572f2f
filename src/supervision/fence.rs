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
