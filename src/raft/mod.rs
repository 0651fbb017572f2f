//! One partition's Raft state machine: events in, effects out, no I/O, no clock, no runtime.
//!
//! The engine is TiKV's `raft`, behind this seam so that it can be changed: no other room names it.
//! The log on disk *is* the Raft log. The engine sees an entry as its index and term (and a handle
//! of a few bytes); payloads never pass through it.

mod hard_state;
mod membership;
mod partition;
mod storage;
mod term_runs;

pub use hard_state::{
    HARD_STATE_FILE, HARD_STATE_MAGIC, HARD_STATE_VERSION, HardState, HardStateError,
};
pub use membership::Membership;
pub use partition::{Effects, Handle, NewEntry, PartitionRaft, RaftError, Recovered, Role};
pub use term_runs::TermRuns;
