//! Which cluster a data directory belongs to, and which replicas it was given: what a node must
//! know before it hears of anybody, and what tells that files were lost.

use super::{DataDir, DataDirError, read_small, sync_directory, write_version, write_whole};
use crate::model::{GroupId, NodeId, ReplicaId, TopicName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::PoisonError;

const CLUSTER: &str = "CLUSTER";
const MIRROR: &str = "MIRROR";
const REPLICAS: &str = "replicas.json";
/// A node holds thousands of replicas, not millions: what is longer is not ours.
const REPLICAS_BYTES_MAX: u64 = 16 << 20;

/// A cluster, and one of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's identity; never empty.
    pub cluster_id: String,
    /// The node's number; never 0.
    pub node: NodeId,
}

/// A replica that the node was given. It is recorded once its directory is marked as its own, and
/// before anything else is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// Its group.
    #[serde(serialize_with = "group_to_number", deserialize_with = "group_from_number")]
    pub group: GroupId,
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: u32,
    /// Which replica.
    pub replica: ReplicaId,
    /// The voters that its group begins with, where it has not voted yet.
    #[serde(default)]
    pub founders: Vec<ReplicaId>,
    /// What differs from the node's own settings.
    pub settings: BTreeMap<String, String>,
}

/// All replicas that the node was given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replicas {
    /// The newest incarnation that the cluster had given out when this was written. One that is not
    /// newer and not here was dropped: an old catalogue that lists it is no order to make it again.
    pub seen_incarnation: u32,
    /// The replicas.
    pub replicas: Vec<ReplicaRecord>,
}

/// The topic of another cluster that a mirror copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorOf {
    /// The source's identity.
    pub cluster_id: String,
    /// The topic.
    pub topic: TopicName,
    /// Its number there: one that was made anew has another.
    pub topic_id: u32,
}

fn group_to_number<S: Serializer>(group: &GroupId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(group.raw())
}

fn group_from_number<'de, D: Deserializer<'de>>(from: D) -> Result<GroupId, D::Error> {
    let group = GroupId::from_raw(u64::deserialize(from)?);
    group.ok_or_else(|| serde::de::Error::custom("no group has this number"))
}

/// The cluster that a directory belongs to.
pub(super) fn stored(path: &Path) -> Result<Option<Cluster>, DataDirError> {
    let file = path.join(CLUSTER);
    let text = read_small(&file).map_err(|source| DataDirError::at(file.clone(), source))?;
    let Some(text) = text else { return Ok(None) };
    let cluster: Option<Cluster> = serde_json::from_str(&text).ok();
    let is_sound = |known: &Cluster| !known.cluster_id.is_empty() && known.node.0 > 0;
    let cluster = cluster.filter(is_sound);
    cluster.map(Some).ok_or(DataDirError::Damaged { file, holds: "a cluster and a node's number" })
}

/// What a directory is a mirror of.
pub(super) fn mirrored(path: &Path) -> Result<Option<MirrorOf>, DataDirError> {
    let file = path.join(MIRROR);
    let text = read_small(&file).map_err(|source| DataDirError::at(file.clone(), source))?;
    let Some(text) = text else { return Ok(None) };
    let known = serde_json::from_str(&text);
    known.map(Some).map_err(|_| DataDirError::Damaged { file, holds: "what a mirror copies" })
}

/// The replicas that the node of a directory was given.
pub(super) fn given(path: &Path, cluster: Option<&Cluster>) -> Result<Replicas, DataDirError> {
    let file = path.join(REPLICAS);
    let opened = super::open_existing(&file);
    let opened = opened.map_err(|source| DataDirError::at(file.clone(), source))?;
    let Some(opened) = opened else {
        return match cluster {
            None => Ok(Replicas::default()),
            Some(cluster) => Err(cluster.wiped(path, REPLICAS)),
        };
    };
    let mut text = Vec::new();
    let read = opened.take(REPLICAS_BYTES_MAX).read_to_end(&mut text);
    read.map_err(|source| DataDirError::at(file.clone(), source))?;
    serde_json::from_slice(&text)
        .map_err(|_| DataDirError::Damaged { file, holds: "the list of the node's replicas" })
}

impl Cluster {
    /// Something is gone from a directory of its that a member never loses.
    pub fn wiped(&self, path: &Path, missing: &str) -> DataDirError {
        let Self { cluster_id, node } = self.clone();
        DataDirError::Wiped { path: path.to_owned(), cluster_id, node, missing: missing.into() }
    }
}

impl DataDir {
    /// The cluster it belongs to; `None` until it was told.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.get()
    }

    /// Makes it a directory of this node of this cluster, for good. Blocks.
    ///
    /// # Errors
    /// [`DataDirError::OtherCluster`] where it belongs to another one, or the files cannot be
    /// written.
    pub fn set_cluster(&self, cluster: &Cluster) -> Result<(), DataDirError> {
        if let Some(Cluster { cluster_id, node }) = self.cluster() {
            if self.cluster() == Some(cluster) {
                return Ok(());
            }
            return Err(DataDirError::OtherCluster {
                path: self.path().to_owned(),
                cluster_id: cluster_id.clone(),
                node: *node,
                asked: format!("node {} of cluster {}", cluster.node, cluster.cluster_id),
            });
        }
        // First what else a member has: a file that is missing beside CLUSTER was lost.
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_replicas(&self.replicas()?)?;
        drop(recording);
        write_version(self.path())?;
        let text = serde_json::to_vec(cluster).expect("names and numbers");
        write_whole(self.path(), CLUSTER, &text)
            .map_err(|source| DataDirError::at(self.path().join(CLUSTER), source))?;
        // Only this node's start sets it, and once.
        let _ = self.cluster.set(cluster.clone());
        Ok(())
    }

    /// What it is a mirror of; `None` for a node's own directory. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn mirror(&self) -> Result<Option<MirrorOf>, DataDirError> {
        mirrored(self.path())
    }

    /// Makes it a mirror's directory, for good. Blocks; durable when it returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_mirror(&self, of: &MirrorOf) -> Result<(), DataDirError> {
        let text = serde_json::to_vec(of).expect("names and numbers");
        write_whole(self.path(), MIRROR, &text)
            .map_err(|source| DataDirError::at(self.path().join(MIRROR), source))
    }

    /// The replicas that the node was given. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is gone although the node belongs to a cluster.
    pub fn replicas(&self) -> Result<Replicas, DataDirError> {
        given(self.path(), self.cluster())
    }

    /// Records the replicas that the node was given; whole, and durable when this returns. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_replicas(&self, replicas: &Replicas) -> Result<(), DataDirError> {
        let _recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_replicas(replicas)
    }

    fn write_replicas(&self, replicas: &Replicas) -> Result<(), DataDirError> {
        let mut text = serde_json::to_vec_pretty(replicas).expect("names and numbers");
        text.push(b'\n');
        write_whole(self.path(), REPLICAS, &text)
            .map_err(|source| DataDirError::at(self.path().join(REPLICAS), source))
    }
}

/// Removes a partition's directory that holds nothing any more, and its topic's if that is empty
/// then. Blocks.
#[allow(clippy::disallowed_methods, reason = "the edge that owns the data directory")]
pub fn remove_empty(partition: &Path) {
    // What still holds something stays; what is left empty does no harm.
    for directory in partition.ancestors().take(2) {
        if fs::remove_dir(directory).is_err() {
            return;
        }
        if let Some(above) = directory.parent() {
            let _ = sync_directory(above);
        }
    }
}
