//! The ways to the other nodes: a replicator for each member of the cluster, as the catalogue says.

use crate::actors::addresses::{Addresses, Whereabouts};
use crate::actors::groups::Groups;
use crate::actors::raft::{PeerFound, PeerLost};
use crate::actors::replicator::{PeerEvents, Peers, PeersParts};
use crate::model::NodeId;
use crate::supervision::{
    Exhausted, Intensity, Order, Place, Strategy, Supervisor, SupervisorSpec, TreeError,
};
use slog::{Logger, debug, warn};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Tells every replica of this node that a peer is out of reach, or there again.
pub struct TellReplicas(pub Arc<Groups>);

impl PeerEvents for TellReplicas {
    fn unreachable(&self, node: NodeId) {
        for (_, here) in self.0.all() {
            // One that takes nothing now will find out by itself, by what is not answered.
            let _ = here.raft.tell(PeerLost { node });
        }
    }

    fn reachable(&self, node: NodeId) {
        for (_, here) in self.0.all() {
            // One that takes nothing now is awake.
            let _ = here.raft.tell(PeerFound { node });
        }
    }
}

/// The members as this node knew them when it ran the last time, in its data directory: what it
/// needs to find a leader again when all nodes start at once. A hint, which may be old or missing.
#[derive(Debug, Clone)]
pub struct KnownMembers(PathBuf);

type Members = BTreeMap<NodeId, Whereabouts>;

impl KnownMembers {
    /// Kept in this data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("members.json"))
    }

    /// What was saved; nothing where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is not what was saved.
    #[allow(clippy::disallowed_methods, reason = "a hint of a few nodes, no file of the log")]
    pub fn load(&self) -> io::Result<Members> {
        match std::fs::read(&self.0) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Members::new()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, members: &Members) -> io::Result<()> {
        let directory = self.0.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(members)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.0).map_err(|error| error.error)?;
        Ok(())
    }
}

/// The supervisor of replicators, below the root. A replicator is never given up: it crashes, at
/// worst, as often as its backoff lets it.
pub fn replicators_below(root: &Supervisor) -> Supervisor {
    root.supervisor(SupervisorSpec {
        order: Order::Together,
        intensity: Intensity { restarts_max: 1000, window: Duration::from_secs(60) },
        ..SupervisorSpec::new("replicators", Strategy::OneForOne, Exhausted::Quarantine)
    })
}

/// Keeps a replicator for each other member, and the file of members, until the tree ends. To be
/// spawned once this node knows who it is.
pub async fn follow_members(
    peers: Arc<Peers>,
    above: Supervisor,
    place: Place,
    parts: PeersParts,
    known: KnownMembers,
    logger: Logger,
) {
    let (tree, me) = (above.handle(), parts.me.node);
    let addresses: Arc<Addresses> = Arc::clone(&parts.addresses);
    let mut changes = addresses.changes();
    let follow = async {
        let mut saved = Members::new();
        loop {
            let members = addresses.members();
            if members != saved {
                if let Err(error) = known.save(&members) {
                    warn!(logger, "the members cannot be saved for the next start";
                        "error" => %error);
                }
                saved.clone_from(&members);
            }
            let others: BTreeSet<NodeId> = members.into_keys().filter(|node| *node != me).collect();
            match peers.set(&others, &above, &place, &parts).await {
                Ok(()) => debug!(logger, "peers"; "nodes" => ?peers.nodes()),
                Err(TreeError::Ended) => return,
                Err(error) => warn!(logger, "a replicator is not as it should be";
                    "error" => %error),
            }
            changes.next().await;
        }
    };
    tokio::select! {
        () = follow => {}
        _ = tree.outcome() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_again_and_a_file_that_is_none_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownMembers::of(directory.path());
        assert!(known.load().unwrap().is_empty());
        let place = Whereabouts { uuid: "u".into(), rpc_addr: "host:1".into(), name: "n".into() };
        let members = Members::from([(NodeId(7), place)]);
        known.save(&Members::new()).unwrap();
        known.save(&members).unwrap();
        assert_eq!(known.load().unwrap(), members);
        #[allow(clippy::disallowed_methods, reason = "damages what no disk of a log is")]
        std::fs::write(&known.0, b"not json").unwrap();
        assert_eq!(known.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
