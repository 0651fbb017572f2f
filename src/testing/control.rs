//! The thread that a test's node lives on: its own actix system, from the start to the end.

use super::history::History;
use super::wait::eventually;
use crate::actors::handle::PartitionHandle;
use crate::actors::replicator::Peers;
use crate::model::FIRST_TOPIC;
use crate::node::{ClusterView, Node, NodeError, Partitions, Surroundings};
use crate::observe::Hub;
use crate::ops::settings::Settings;
use crate::supervision::{ShardThreads, TreeHandle};
use std::any::Any;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a test holds of a running node.
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) rpc_addr: SocketAddr,
    pub(super) http_addr: SocketAddr,
    pub(super) node_id: String,
    pub(super) tree: TreeHandle,
    /// The topic `log`, partition 0, once it is here.
    partition: OnceLock<PartitionHandle>,
    pub(super) partitions: Partitions,
    pub(super) hub: Arc<Hub>,
    pub(super) shard: ShardThreads,
    pub(super) traces: Vec<(&'static str, Weak<dyn Any + Send + Sync>)>,
    pub(super) history: Arc<History>,
    pub(super) view: ClusterView,
    pub(super) peers: Arc<Peers>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ControlThread {
    /// Told nothing, the node is dropped as it is.
    end: Option<oneshot::Sender<Duration>>,
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// Starts a node and returns once its ports are open.
    pub(super) fn start(
        settings: Settings,
        surroundings: Surroundings,
    ) -> Result<(Self, Handles), NodeError> {
        let (tell, told) = sync_channel(1);
        let (end, ended) = oneshot::channel();
        let body = move || {
            actix_rt::System::new().block_on(async move {
                let node = match Node::start_with(&settings, surroundings) {
                    Ok(node) => node,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                // Before the tree first runs: not one event is missed.
                let history = Arc::new(History::of(node.tree().subscribe()));
                let bell = node.tree().subscribe();
                let following = {
                    let history = Arc::clone(&history);
                    actix_rt::spawn(async move { history.follow(bell).await })
                };
                if tell.send(Ok(Handles::of(&node, history))).is_err() {
                    return;
                }
                match ended.await {
                    Ok(grace) => node.shutdown(grace).await,
                    Err(_) => drop(node),
                }
                following.abort();
            });
        };
        let thread = std::thread::Builder::new()
            .name("test-node".into())
            .spawn(body)
            .expect("a test process can have a thread for a node");
        let handles = told.recv().expect("a node starts or says why not")?;
        Ok((Self { end: Some(end), thread }, handles))
    }

    /// Ends the node: in order, or, without a grace time, as it is. False when the thread is still
    /// there after so long.
    pub(super) fn end(mut self, grace: Option<Duration>, patience: Duration) -> bool {
        if let (Some(end), Some(grace)) = (self.end.take(), grace) {
            // A thread that has ended by itself needs no telling.
            end.send(grace).ok();
        }
        let is_over = eventually(patience, || self.thread.is_finished().then_some(())).is_some();
        // A panic on that thread has been printed; the test goes on to see what is left.
        is_over && self.thread.join().is_ok()
    }
}

impl Handles {
    fn of(node: &Node, history: Arc<History>) -> Self {
        Self {
            rpc_addr: node.rpc_addr(),
            http_addr: node.http_addr(),
            node_id: node.node_id().to_owned(),
            tree: node.tree().clone(),
            partition: OnceLock::new(),
            partitions: node.partitions().clone(),
            hub: Arc::clone(node.hub()),
            shard: node.shard_threads(),
            traces: node.traces(),
            history,
            view: node.cluster().clone(),
            peers: Arc::clone(node.peers()),
        }
    }

    /// The topic `log`, partition 0, where it is here.
    pub(super) fn log(&self) -> Option<&PartitionHandle> {
        if let Some(here) = self.partitions.get(FIRST_TOPIC, 0) {
            return Some(self.partition.get_or_init(|| here));
        }
        self.partition.get()
    }
}
