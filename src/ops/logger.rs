//! Diagnostics on standard error.

mod spec;

pub use spec::{LevelSpec, LevelSpecError};
