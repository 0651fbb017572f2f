//! What Erlang/OTP gives its processes, given to actix actors: a tree of supervisors, restart
//! policy, references that survive restarts, and the end of anything that hangs.
//!
//! actix's own `Supervisor` restarts neither after a panic nor with fresh state, so nothing here
//! uses it. Who restarts, when, and when to give up is the pure [`policy`]; the tree carries it
//! out. Actors meet this room through [`ActorRef`], [`Reply`] and [`Seat`]; the node through
//! [`Supervisor`] and [`TreeHandle`].

mod envelope;
mod error;
mod exit;
mod fence;
mod life;
mod line;
mod path;
mod place;
pub mod policy;
mod reference;
mod reply;
mod run;
mod seat;
mod slot;
mod spec;
mod status;
mod supervisor;
mod tally;
mod tree;
mod watchdog;

#[cfg(test)]
mod tests;

pub use envelope::{Envelope, Receives};
pub(crate) use envelope::{mail, receives};
pub use error::{AskError, Escalation, Load, Refused, TreeError};
pub use exit::{ExitReason, PanicTrace, contain};
pub use fence::{Fence, FenceError, FenceGuard, FencePass};
pub use life::Fault;
pub use line::Line;
pub use path::ActorPath;
pub use place::{Place, Shard, ShardThreads};
pub use reference::ActorRef;
pub use reply::{Pending, Reply};
pub use seat::{Child, Seat};
pub use slot::Permit;
pub use spec::{
    Admission, Backoff, ChildSpec, Exhausted, Intensity, Order, Restart, Strategy, SupervisorSpec,
};
pub use status::{Event, EventKind, Kind, State, TreeStatus};
pub use supervisor::{Environment, Supervisor};
pub use tally::Tally;
pub use tree::TreeHandle;
