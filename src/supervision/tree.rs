//! The handle on a running tree.

use super::*;
use tokio::sync::broadcast;

/// Looks at a running tree and acts on it; from any thread.
#[derive(Clone, Debug)]
pub struct TreeHandle {}

#[expect(unused, reason = "signatures first")]
impl TreeHandle {
    /// The whole tree at this moment.
    pub fn status(&self) -> TreeStatus {
        unreachable!()
    }
    /// What happens from now on. A reader that falls behind loses the oldest, and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        unreachable!()
    }
    /// Finds a supervisor, to add children to.
    pub fn supervisor(&self, path: &ActorPath) -> Result<Supervisor, TreeError> {
        unreachable!()
    }
    /// Stops what is there and forgets it.
    pub async fn remove(&self, path: &ActorPath) -> Result<(), TreeError> {
        unreachable!()
    }
    /// Does something bad to an actor.
    pub async fn inject(&self, path: &ActorPath, fault: Fault) -> Result<(), TreeError> {
        unreachable!()
    }
    /// Stops and starts it, and those that depend on it. Not counted as a crash.
    pub async fn restart(&self, path: &ActorPath) -> Result<(), TreeError> {
        unreachable!()
    }
    /// Takes it, or the fault domain it belongs to, out of service.
    pub async fn quarantine(
        &self,
        path: &ActorPath,
        reason: impl Into<String>,
    ) -> Result<(), TreeError> {
        unreachable!()
    }
    /// Brings it back into service.
    pub async fn release(&self, path: &ActorPath) -> Result<(), TreeError> {
        unreachable!()
    }
    /// Waits until everything that was there at the start has started once (or left service).
    pub async fn ready(&self) -> Result<(), Escalation> {
        unreachable!()
    }
    /// Stops the tree: children in reverse order, each gracefully, then aborted, then abandoned.
    pub async fn shutdown(&self) -> Result<(), Escalation> {
        unreachable!()
    }
    /// Waits for the end: `Ok` after a shutdown, else why the root gave up.
    pub async fn outcome(&self) -> Result<(), Escalation> {
        unreachable!()
    }
}
