//! Subcommands.

pub mod bench;
