//! What a node says about itself: who it is, and how well each of its subsystems is.

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node's identity, kept in its data directory.
    pub node_id: String,
    /// Where clients reach its gRPC port, as `host:port`.
    pub rpc_addr: String,
    /// The program's version.
    pub version: String,
}

/// How well a subsystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Does its work.
    Ready,
    /// Does part of its work (a quarantined partition is read only); the node stays in service.
    Degraded,
    /// Does not do its work: the node is not ready.
    NotReady,
}

impl Condition {
    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ok",
            Self::Degraded => "degraded",
            Self::NotReady => "not ready",
        }
    }
}

/// One subsystem's condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsystemStatus {
    /// Its name, as in the supervision tree.
    pub subsystem: String,
    /// How well it is.
    pub condition: Condition,
    /// Why, where it is not ready; else empty.
    pub reason: String,
}

/// Where a front end asks how the node is. Never blocks and asks no actor, so that it answers
/// while a shard hangs.
pub trait Readiness: Send + Sync + 'static {
    /// The condition of every subsystem.
    fn readiness(&self) -> Vec<SubsystemStatus>;

    /// Whether the node serves at all. Asked many times a second.
    fn is_ready(&self) -> bool {
        self.readiness().iter().all(|part| part.condition != Condition::NotReady)
    }
}
