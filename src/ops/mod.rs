//! Operations: what the person who runs a node touches. Settings, the logger, readiness notices,
//! the data directory, crash reports, telemetry, signals.
//!
//! Knows the model, and what is observed. These are edges: files and clocks are the machine's own
//! here.

pub mod audit;
pub mod crash;
pub mod data_dir;
pub mod logger;
pub mod notify;
pub mod settings;
pub mod signals;
pub mod telemetry;
