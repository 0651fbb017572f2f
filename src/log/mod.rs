//! The commit log library.

pub mod batch;
pub mod disk;
