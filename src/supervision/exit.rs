//! How a life ended, and the panic hook that keeps what a bare unwind would lose: where it
//! happened and the way there.

use crate::model::Disposition;
use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

/// Why an actor, or a supervisor, is no more.
#[derive(Debug, Clone, PartialEq)]
pub enum ExitReason {
    /// It ended by itself, or as it was asked to.
    Normal,
    /// A handler, a future, the factory or a destructor panicked.
    Panic {
        /// The panic's text.
        message: String,
        /// `file:line:column`.
        location: String,
        /// The way there; kept unresolved until shown, as resolving takes long.
        backtrace: Option<PanicTrace>,
    },
    /// It said itself that it cannot go on.
    Failed {
        /// Why.
        reason: String,
        /// Whether a restart may help ([`Disposition::RebuildActor`]) or not
        /// ([`Disposition::Quarantine`]).
        disposition: Disposition,
    },
    /// It was aborted, or its thread ended.
    Killed,
    /// It made no progress although there was something to do.
    Hung {
        /// For how long.
        silent_for: Duration,
    },
    /// It lived on a thread that was given up because of another actor.
    Abandoned,
}

impl ExitReason {
    /// Whether this is anything but an orderly end.
    pub fn is_crash(&self) -> bool {
        *self != Self::Normal
    }

    /// All names that [`ExitReason::kind`] gives.
    pub const KINDS: [&'static str; 6] =
        ["normal", "panic", "failed", "killed", "hung", "abandoned"];

    /// The name in reports.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Panic { .. } => "panic",
            Self::Failed { .. } => "failed",
            Self::Killed => "killed",
            Self::Hung { .. } => "hung",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether a restart would not help, or would hide damage.
    pub fn forbids_restart(&self) -> bool {
        matches!(self, Self::Failed { disposition: Disposition::Quarantine, .. })
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("ended normally"),
            Self::Panic { message, location, .. } if location.is_empty() => {
                write!(f, "panicked: {message}")
            }
            Self::Panic { message, location, .. } => write!(f, "panicked at {location}: {message}"),
            Self::Failed { reason, .. } => write!(f, "failed: {reason}"),
            Self::Killed => f.write_str("killed"),
            Self::Hung { silent_for } => write!(f, "hung: no progress for {silent_for:?}"),
            Self::Abandoned => f.write_str("abandoned with its thread"),
        }
    }
}

/// A backtrace that is resolved only when it is shown. Equal to any other: where a panic came
/// from is told by its location.
#[derive(Clone)]
pub struct PanicTrace(Arc<Backtrace>);

impl PartialEq for PanicTrace {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for PanicTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PanicTrace {
    /// Does not resolve: a `Debug` of an exit must stay cheap.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PanicTrace")
    }
}

struct Note {
    location: String,
    backtrace: PanicTrace,
}

thread_local! {
    /// How many supervised calls are on this thread's stack.
    static SUPERVISED: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<Note>> = const { RefCell::new(None) };
}

/// Installs the panic hook, once in a process. A panic in supervised code is noted here and
/// logged once by the tree; any other goes to the hook that was there before.
pub(super) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if SUPERVISED.get() == 0 {
                return before(info);
            }
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let backtrace = PanicTrace(Arc::new(Backtrace::force_capture()));
            LAST.with_borrow_mut(|last| *last = Some(Note { location, backtrace }));
        }));
    });
}

/// Runs supervised code and turns a panic into the reason of an exit.
///
/// # Errors
/// The panic, as [`ExitReason::Panic`].
pub fn contain<T>(run: impl FnOnce() -> T) -> Result<T, ExitReason> {
    SUPERVISED.set(SUPERVISED.get() + 1);
    // What the closure leaves behind is dropped by the caller and never used again.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    SUPERVISED.set(SUPERVISED.get() - 1);
    outcome.map_err(reason_of)
}

fn reason_of(payload: Box<dyn Any + Send>) -> ExitReason {
    let note = LAST.with_borrow_mut(Option::take);
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic whose payload is not text".to_owned());
    // A payload may panic when dropped; the payload of that panic is given up.
    if let Err(second) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    let (location, backtrace) =
        note.map_or((String::new(), None), |note| (note.location, Some(note.backtrace)));
    ExitReason::Panic { message, location, backtrace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_keeps_its_text_its_place_and_the_way_there() {
        install_hook();
        let reason = contain(|| panic!("boom {}", 7)).unwrap_err();
        let ExitReason::Panic { message, location, backtrace } = &reason else {
            panic!("not a panic: {reason:?}")
        };
        assert_eq!(message, "boom 7");
        assert!(location.contains("supervision/exit.rs:"), "{location}");
        assert!(backtrace.is_some() && reason.is_crash() && !reason.forbids_restart());
        assert_eq!(contain(|| 3), Ok(3));
    }

    #[test]
    fn only_a_failure_that_says_so_forbids_a_restart() {
        let failed =
            |disposition| ExitReason::Failed { reason: "sync failed".to_owned(), disposition };
        assert!(failed(Disposition::Quarantine).forbids_restart());
        assert!(!failed(Disposition::RebuildActor).forbids_restart());
        assert!(!ExitReason::Normal.is_crash());
    }
}
