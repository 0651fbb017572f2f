//! Whether the same call may succeed later. An error says it itself, or is marked.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may.
    Retryable,
    /// It will not: trying again only adds load.
    Permanent,
}

/// An error that knows its class.
pub trait Classify {
    /// Whether the same call may succeed later.
    fn class(&self) -> ErrorClass;

    /// The least wait before it may, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// An error with the class that somebody gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked<E> {
    /// The class.
    pub class: ErrorClass,
    /// The error.
    pub error: E,
}

/// Marks an error as one that may pass.
pub const fn retryable<E>(error: E) -> Marked<E> {
    Marked { class: ErrorClass::Retryable, error }
}

/// Marks an error as one that will not pass.
pub const fn permanent<E>(error: E) -> Marked<E> {
    Marked { class: ErrorClass::Permanent, error }
}

impl<E> Classify for Marked<E> {
    fn class(&self) -> ErrorClass {
        self.class
    }
}

impl<E: fmt::Display> fmt::Display for Marked<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<E: Error> Error for Marked<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_changes_the_class_and_not_the_words() {
        let error = std::io::Error::other("the cable is out");
        let marked = retryable(error);
        assert_eq!(
            (marked.class(), marked.to_string().as_str()),
            (ErrorClass::Retryable, "the cable is out")
        );
        assert_eq!(permanent("no").class(), ErrorClass::Permanent);
    }
}
