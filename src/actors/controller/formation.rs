//! How a node comes to its cluster: it founds one, joins one, or is a member already; and how its
//! entry in the catalogue follows what it is at present.

use super::change::Control;
use crate::actors::control::{Answered, ControlApi, ControlError, JoinAsked, Joined, Joining};
use crate::actors::handle::PartitionHandle;
use crate::actors::presence::Seen;
use crate::cluster::{Catalogue, Command, NodeSelf, NodeState};
use crate::model::{Clock, Disposition, NodeId, ReplicaId, Seldom};
use slog::{Logger, info, warn};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Addresses asked in one round.
const ASKED_MAX: usize = 64;
/// Hops from node to node in search of the leader.
const HOPS_MAX: usize = 3;

/// What formation does to a node's directory and its tree. Called on the control thread.
pub trait Home: Send + Sync + fmt::Debug {
    /// The cluster and the number that the directory knows.
    fn cluster(&self) -> Option<(String, NodeId)>;

    /// Writes them down; durable when it returns.
    ///
    /// # Errors
    /// The reason, for people.
    fn set_cluster(&self, cluster_id: &str, node: NodeId) -> Result<(), String>;

    /// Where the members are, as the one that let this node in told.
    fn meet(&self, members: &[(NodeId, String, String)]);

    /// Puts this node's replica of group 0 into the tree, or finds it there. Where its files are
    /// there already it goes on from them, however it is born.
    fn plant(&self, me: ReplicaId, birth: Formation) -> PartitionHandle;
}

/// How a replica of group 0 comes into the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formation {
    /// As the only voter of a new cluster.
    Found,
    /// As nobody, until the group's leader makes it one of them.
    Join,
    /// From its files.
    Known,
}

/// What formation is told.
#[derive(Debug, Clone)]
pub struct FormationOptions {
    /// What this node tells of itself.
    pub me: NodeSelf,
    /// Whether it was told to join: it founds nothing then.
    pub joins: bool,
    /// Where members may be, besides those that gossip finds.
    pub rpc_addrs: Vec<String>,
    /// The identity of a cluster that it founds, drawn by chance.
    pub cluster_id: String,
    /// The shortest pause between two rounds of asking …
    pub pause_min: Duration,
    /// … and the longest, to which it doubles.
    pub pause_max: Duration,
    /// How long one call may take.
    pub call_max: Duration,
    /// How often the log tells what is waited for.
    pub told_every: Duration,
}

impl FormationOptions {
    /// With the usual times.
    pub fn new(me: NodeSelf, joins: bool, rpc_addrs: Vec<String>, cluster_id: String) -> Self {
        Self {
            me,
            joins,
            rpc_addrs,
            cluster_id,
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(1),
            call_max: Duration::from_secs(5),
            told_every: Duration::from_secs(5),
        }
    }
}

/// Why a node belongs to no cluster, and will not by waiting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    /// The directory does not keep what it must.
    #[error("the node's place in its cluster cannot be written down: {reason}")]
    Directory {
        /// Why.
        reason: String,
    },
    /// Group 0 in this directory is of another node's cluster.
    #[error(
        "the directory holds the catalogue of cluster {cluster_id}, of which this node is not the \
         founder: start it with --join, or with an empty --data-dir"
    )]
    NotOurs {
        /// Which.
        cluster_id: String,
    },
}

impl FormationError {
    /// Who must act: a person.
    pub fn disposition(&self) -> Disposition {
        Disposition::Quarantine
    }
}

/// Makes the node a member, however long that takes, and keeps its entry in the catalogue up to
/// date from then on. Resolves only with why it cannot be one.
pub async fn form(
    control: Control,
    home: Arc<dyn Home>,
    options: FormationOptions,
    clock: Arc<dyn Clock>,
    logger: Logger,
) -> FormationError {
    let mut form = Form { control, home, options, clock, told: Seldom::default(), logger };
    match form.become_member().await {
        Ok(()) => form.keep_registered().await,
        Err(error) => error,
    }
}

struct Form {
    control: Control,
    home: Arc<dyn Home>,
    options: FormationOptions,
    clock: Arc<dyn Clock>,
    /// When the log was told what is waited for.
    told: Seldom,
    logger: Logger,
}

impl Form {
    async fn become_member(&mut self) -> Result<(), FormationError> {
        let Some((_, node)) = self.home.cluster() else {
            return if self.options.joins { self.join().await } else { self.found().await };
        };
        let handle = self.home.plant(ReplicaId::new(node, 1), Formation::Known);
        self.control.open(node, handle);
        Ok(())
    }

    async fn found(&mut self) -> Result<(), FormationError> {
        let me = ReplicaId::FIRST;
        let handle = self.home.plant(me, Formation::Found);
        self.control.open(me.node(), handle);
        let mut pause = self.options.pause_min;
        // A node that died between founding and writing it down finds its cluster in the catalogue.
        while !self.control.catalogue().is_founded() {
            let (cluster_id, node) = (self.options.cluster_id.clone(), self.options.me.clone());
            match self.control.change(Command::Found { cluster_id, node }).await {
                Ok(_) | Err(ControlError::Rejected(_)) => {}
                Err(error) => self.waits_for(&format!("its own first record ({error})")),
            }
            if !self.control.catalogue().is_founded() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(self.options.pause_max);
            }
        }
        let catalogue = self.control.catalogue();
        let founder = catalogue.nodes.get(&me.node());
        if founder.is_none_or(|node| node.uuid != self.options.me.uuid) {
            let cluster_id = catalogue.cluster_id.clone();
            return Err(FormationError::NotOurs { cluster_id });
        }
        self.write_down(&catalogue.cluster_id, me.node())?;
        info!(self.logger, "a cluster of one"; "cluster" => &catalogue.cluster_id,
            "node" => %me.node());
        Ok(())
    }

    /// The replica of group 0 is there before it is written down that there is one: a node whose
    /// directory names a cluster and has no such replica was wiped.
    async fn join(&mut self) -> Result<(), FormationError> {
        let Joined { cluster_id, node, members } = self.be_joined().await;
        self.home.meet(&members);
        let handle = self.home.plant(ReplicaId::new(node, 1), Formation::Join);
        self.write_down(&cluster_id, node)?;
        self.control.open(node, handle);
        info!(self.logger, "joined"; "cluster" => cluster_id, "node" => %node,
            "members" => members.len());
        Ok(())
    }

    fn write_down(&self, cluster_id: &str, node: NodeId) -> Result<(), FormationError> {
        let written = self.home.set_cluster(cluster_id, node);
        written.map_err(|reason| FormationError::Directory { reason })
    }

    async fn be_joined(&mut self) -> Joined {
        let mut pause = self.options.pause_min;
        let mut presence = self.control.parts().presence.watch();
        let since = self.clock.monotonic();
        let mut answer = "none yet".to_owned();
        loop {
            presence.mark_unchanged();
            let asks = self.candidates();
            let tell = |answer: &str| Joining { asks: asks.clone(), since, answer: answer.into() };
            self.control.joins(Some(tell(&answer)));
            let mut waits_for = "a member of a cluster: gossip shows none yet".to_owned();
            for addr in &asks {
                match self.ask(addr.clone()).await {
                    Ok(joined) => {
                        self.control.joins(None);
                        return joined;
                    }
                    Err(error) => {
                        answer = format!("{addr}: {error}");
                        waits_for.clone_from(&answer);
                    }
                }
            }
            self.control.joins(Some(tell(&answer)));
            self.waits_for(&waits_for);
            tokio::select! {
                _ = presence.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            // However often gossip has news.
            tokio::time::sleep(self.options.pause_min).await;
            pause = (pause * 2).min(self.options.pause_max);
        }
    }

    /// Whether the log is to be told again what is waited for.
    fn is_due(&mut self) -> bool {
        self.told.take(self.clock.monotonic(), self.options.told_every)
    }

    fn waits_for(&mut self, what: &str) {
        if self.is_due() {
            warn!(self.logger, "not a member of a cluster yet"; "waits_for" => what);
        }
    }

    fn candidates(&self) -> Vec<String> {
        let presence = self.control.parts().presence.now();
        let members = presence.values().filter(|present| {
            !present.cluster_id.is_empty()
                && !present.rpc_addr.is_empty()
                && present.uuid != self.options.me.uuid
                && matches!(present.seen, Seen::Alive | Seen::Suspect)
        });
        let seen = members.map(|present| present.rpc_addr.clone());
        let mut addrs: Vec<_> = self.options.rpc_addrs.iter().cloned().chain(seen).collect();
        addrs.sort();
        addrs.dedup();
        addrs.truncate(ASKED_MAX);
        addrs
    }

    async fn ask(&self, mut addr: String) -> Result<Joined, String> {
        for _ in 0..HOPS_MAX {
            // Only who belongs to none asks.
            let asked = JoinAsked { node: self.options.me.clone(), cluster_id: String::new() };
            let asking = self.control.parts().calls.join(addr, asked);
            match tokio::time::timeout(self.options.call_max, asking).await {
                Err(_) => return Err("it does not answer".into()),
                Ok(Err(error)) => return Err(error.to_string()),
                Ok(Ok(Answered::Here(joined))) => return Ok(joined),
                Ok(Ok(Answered::AskAt(elsewhere))) => addr = elsewhere,
            }
        }
        Err("the controller's leader changes at present".into())
    }

    async fn keep_registered(&mut self) -> FormationError {
        let mut catalogue = self.control.watch();
        let mut pause = self.options.pause_min;
        loop {
            let known = catalogue.borrow_and_update().clone();
            match entry_is(&known, &self.options.me) {
                Entry::Removed => {
                    if self.is_due() {
                        warn!(
                            self.logger,
                            "this node was removed from its cluster: stop it, or \
                            start it with an empty --data-dir to join as a new one"
                        );
                    }
                }
                Entry::Differs => {
                    match self.control.change(Command::Register(self.options.me.clone())).await {
                        Ok(_) => pause = self.options.pause_min,
                        Err(error) => {
                            if self.is_due() {
                                warn!(self.logger, "the cluster does not know this node's address yet";
                                "error" => %error);
                            }
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(self.options.pause_max);
                            continue;
                        }
                    }
                }
                Entry::Matches => {}
            }
            if catalogue.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

enum Entry {
    /// As the node is, or not known yet.
    Matches,
    Differs,
    Removed,
}

fn entry_is(catalogue: &Catalogue, me: &NodeSelf) -> Entry {
    let Some(node) = catalogue.nodes.values().find(|node| node.uuid == me.uuid) else {
        return Entry::Matches;
    };
    if node.state == NodeState::Removed {
        return Entry::Removed;
    }
    let is_as_told = node.name == me.name
        && node.rpc_addr == me.rpc_addr
        && node.gossip_addr == me.gossip_addr
        && node.version == me.version
        && node.protocol_max == me.protocol_max
        && node.labels == me.labels;
    if is_as_told { Entry::Matches } else { Entry::Differs }
}
