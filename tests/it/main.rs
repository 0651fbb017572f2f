//! duramen's promises, tested from outside the rooms: one file a promise, one binary.

#![allow(clippy::disallowed_methods, reason = "tests use real files and clocks")]
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod bad_days;
mod bench;
mod cluster;
mod controller;
mod crash_reports;
mod dry_run;
mod fault_domains;
mod frontends;
mod harness;
mod hostile;
mod log_lines;
mod mirror;
mod observe;
mod panic_storm;
mod partitions;
mod producers;
mod real_input;
mod stories;
mod strangers;
mod telemetry;
mod tidy;
mod tls;
