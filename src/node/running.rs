//! What a running node gives to whoever holds it: its parts, its state, and its end.

use super::partition::Partition;
use super::partitions::Partitions;
use super::{ClusterView, FAREWELL, Node};
use crate::actors::handle::PartitionHandle;
use crate::actors::observer::ObserveApi;
use crate::actors::partition::PartitionState;
use crate::actors::presence::PresenceBoard;
use crate::actors::replicator::Peers;
use crate::model::FIRST_TOPIC;
use crate::observe::Hub;
use crate::ops::crash::CrashStore;
use crate::ops::data_dir::DataDir;
use crate::supervision::{ShardThreads, TreeHandle};
use slog::warn;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

impl Node {
    /// Reads the certificates again, whether they have changed or not; faulty ones change nothing.
    /// Blocks shortly.
    pub fn reload_certificates(&self) {
        if let Some(certificates) = &self.certificates {
            certificates.reload(true);
        }
    }

    /// Who is there, as gossip sees it.
    pub fn presence(&self) -> &PresenceBoard {
        &self.view.presence
    }

    /// What it knows of its cluster.
    pub fn cluster(&self) -> &ClusterView {
        &self.view
    }

    /// The ways to the other nodes.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Where gRPC is served.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The node's identity, kept in its data directory.
    pub fn node_id(&self) -> &str {
        self.data_dir.node_id()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// The topic `log`, partition 0: append, read and describe without a network.
    ///
    /// # Panics
    /// When this node has no replica of it; see [`Node::partitions`].
    pub fn log(&self) -> PartitionHandle {
        let log = self.partitions.get(FIRST_TOPIC, 0);
        log.expect("this node has no replica of log/0")
    }

    /// The partitions that it has replicas of.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// The supervision tree: look at it, subscribe to it, act on it.
    pub fn tree(&self) -> &TreeHandle {
        &self.tree
    }

    /// The recorders of its actors, and taps on them.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What its front ends show of its inside, and what they let an operator do.
    pub fn observer(&self) -> &Arc<dyn ObserveApi> {
        &self.observer
    }

    /// Where reports of crashes go.
    pub fn crashes(&self) -> &Arc<CrashStore> {
        &self.crashes
    }

    /// The threads of its shard, those that were given up included.
    pub fn shard_threads(&self) -> ShardThreads {
        self.shard_threads.clone()
    }

    /// What is to be gone when the node has stopped and all that it gave out is dropped, by name.
    pub fn traces(&self) -> Vec<(&'static str, Weak<dyn Any + Send + Sync>)> {
        let mut traces = self.tree.traces();
        traces.extend(self.partitions.traces());
        traces
    }

    /// Waits until recovery is over and says how it ended: serving, or, where a replica is out of
    /// service, what it is.
    pub async fn ready(&self) -> PartitionState {
        let is_under_way =
            |state| matches!(state, PartitionState::Recovering | PartitionState::Restarting);
        loop {
            let states = self.partitions.registry().states();
            if !states.iter().any(|state| is_under_way(*state)) {
                let out = states.into_iter().find(|state| *state != PartitionState::Serving);
                return out.unwrap_or(PartitionState::Serving);
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    /// Waits until the node is a member of its cluster and knows what was decided there by now. Waits
    /// for ever where it joins and nobody lets it in.
    pub async fn settled(&self) {
        let control = &self.view.control;
        while control.node().is_none() || !control.is_current() || !control.catalogue().is_founded()
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Resolves, with the reason, when the root supervisor has given up.
    pub async fn failed(&self) -> String {
        match self.tree.outcome().await {
            Err(escalation) => escalation.to_string(),
            // A shutdown: whoever waits here is cancelled by it.
            Ok(()) => std::future::pending().await,
        }
    }

    /// Stops in order: others lead what this node led, no new connections, requests under way finish
    /// within the configured grace time, the log is flushed and closed. Waits for the actors for at
    /// most `grace` and a few seconds, then for the log for at most `grace`; what is not done by then
    /// is given up, which loses nothing that was acknowledged.
    pub async fn shutdown(self, grace: Duration) {
        self.hand_over.run().await;
        let patience = grace + 3 * FAREWELL;
        let stopped = tokio::time::timeout(patience, self.tree.shutdown());
        let is_late = tokio::select! {
            stopped = stopped => stopped.is_err(),
            () = self.hand_over.keep_on() => false,
        };
        if is_late {
            warn!(self.logger, "the grace time is over"; "grace" => ?grace);
        }
        let is_open = |group: &Partition| !group.plan.is_closed();
        let are_closed = || {
            let controller = self.home.as_ref().and_then(|home| home.group());
            self.partitions.registry().are_closed() && !controller.as_ref().is_some_and(is_open)
        };
        if !comes_true(grace, are_closed).await {
            warn!(self.logger, "a log was not closed in time; it will be recovered");
        }
        if !comes_true(FAREWELL, || self.crashes.is_idle()).await {
            warn!(self.logger, "the last crash report was not written in time");
        }
        if !comes_true(FAREWELL, || self.audit.is_idle()).await {
            warn!(self.logger, "the last lines of the audit log were not written in time");
        }
        if let Some(telemetry) = self.telemetry {
            telemetry.shutdown(grace.max(FAREWELL)).await;
        }
    }
}

/// Whether something becomes true within a time.
async fn comes_true(within: Duration, is_true: impl Fn() -> bool) -> bool {
    let until = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(within, until).await.is_ok()
}
