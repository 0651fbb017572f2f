//! One replica's Raft state machine: events in, effects out, no I/O, no clock, no runtime.
//!
//! The engine is TiKV's `raft`, behind this seam so that it can be changed: no other room names it.
//! The log on disk *is* the Raft log. The engine sees an entry as its index and term (and a handle
//! of a few bytes); payloads never pass through it.

mod bytes;
mod effects;
mod hard_state;
mod membership;
mod messages;
mod outbox;
mod partition;
mod reconcile;
mod standing;
mod step;
mod storage;
mod suspicion;
mod term_runs;
#[cfg(test)]
mod tests;

pub use effects::{
    Content, Effects, EntrySizes, Handle, LogStart, NewEntry, RaftConfig, RaftError, ReadReady,
    Recovered, ReplicaProgress, Role,
};
pub use hard_state::{
    HARD_STATE_FILE, HARD_STATE_MAGIC, HARD_STATE_VERSION, HardState, HardStateError, PendingChange,
};
pub use membership::{ChangeError, MemberStep, Membership, MembershipChange};
pub use messages::PeerFault;
pub use partition::PartitionRaft;
pub use reconcile::{Step, reconcile};
pub use term_runs::TermRuns;
