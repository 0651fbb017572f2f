//! Actors.

pub mod partition;
pub mod readiness;
