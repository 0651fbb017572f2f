//! Negative controls: sins that a test makes the log commit, to see that the checks of its rung
//! notice. A check that lets one pass proves nothing. Outside of tests nothing is ever committed,
//! and the compiler removes the question.

/// What the log can be made to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sin {
    /// Checksums of stored bytes are taken as right.
    IgnoreChecksums,
    /// Recovery gives up one whole frame before the first bad place.
    DropWholeFrame,
    /// Recovery takes any whole frame for the next one.
    TakeStaleFrames,
    /// Recovery does not look for what follows damage.
    StopAtDamage,
    /// Recovery takes frames of another log for its own.
    IgnoreIdentity,
    /// Recovery takes an index that ends early for the whole segment.
    TrustShortIndex,
    /// A log that begins anew gives up what it holds before that is written down.
    DropBeforeTheTurn,
    /// A write that meets a full disk leaves behind what went through.
    LeaveHalfAWrite,
}

#[cfg(test)]
pub(crate) use committed::{commits, committing};

/// True while a test has this thread commit `sin`.
#[cfg(not(test))]
pub(super) const fn commits(_: Sin) -> bool {
    false
}

#[cfg(test)]
mod committed {
    use super::Sin;
    use std::cell::Cell;

    thread_local!(static COMMITTED: Cell<Option<Sin>> = const { Cell::new(None) });

    /// Runs `what` while the log commits `sin` on this thread.
    pub fn committing<T>(sin: Sin, what: impl FnOnce() -> T) -> T {
        COMMITTED.set(Some(sin));
        let outcome = what();
        COMMITTED.set(None);
        outcome
    }

    pub fn commits(sin: Sin) -> bool {
        COMMITTED.get() == Some(sin)
    }
}
