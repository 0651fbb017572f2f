//! Where a request goes: to the partition that is here, to the leader that is elsewhere, or nowhere,
//! with the reason.

use super::forward::Forwarder;
use crate::actors::partition::{LeaderHint, PartitionApi, PendingAck, ProduceError, ReadError};
use crate::actors::topics::{Found, TopicError, TopicsApi};
use crate::model::{Offset, Record};
use crate::wire::convert::record_to_duramen;
use crate::wire::pb::duramen::v1 as pb;
use bytes::Bytes;
use std::time::Duration;

/// See the module.
#[derive(Debug, Clone)]
pub struct Route<T> {
    /// What is where.
    pub topics: T,
    /// Passes on what another node takes; `None` where that is turned off.
    pub forwarder: Option<Forwarder>,
}

/// What a request appends.
#[derive(Debug)]
pub enum ToAppend {
    /// Records.
    Records(Vec<Record>),
    /// Whole record batches in Kafka's layout.
    Batches(Bytes),
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// There is no such topic or partition.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The partition does not take it.
    #[error(transparent)]
    Produce(#[from] ProduceError),
}

/// Why nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// There is no such topic or partition.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The partition cannot be read here.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl<T: TopicsApi> Route<T> {
    /// Has records appended by the partition here if it leads, else by the leader, once, on behalf of
    /// whoever asks; `None`: it was passed on already, or must not be. Never waits.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing is stored.
    pub fn append(
        &self,
        topic: &str,
        partition: u32,
        what: ToAppend,
        forward_for: Option<&str>,
    ) -> Result<PendingAck, NotTaken> {
        let leader = match self.topics.partition(topic, partition)? {
            Found::Here(here) if !here.is_follower() => {
                return Ok(match what {
                    ToAppend::Records(records) => here.propose_records(records)?,
                    ToAppend::Batches(batches) => here.propose_batches(batches)?,
                });
            }
            Found::Here(_) => self.topics.leader(topic, partition),
            Found::Elsewhere(there) => there.leader,
        };
        let leader = leader.filter(|leader| !leader.rpc_addr.is_empty());
        match (&self.forwarder, leader, forward_for) {
            (Some(forwarder), Some(leader), Some(asker)) => {
                let place = format!("{topic}/{partition}");
                let request = request(topic, partition, what, asker);
                Ok(forwarder.forward(&leader, &place, request)?)
            }
            (_, leader, _) => Err(not_leader(topic, partition, leader).into()),
        }
    }

    /// The partition that is here.
    ///
    /// # Errors
    /// [`NotRead`]: there is none here.
    pub fn readable(&self, topic: &str, partition: u32) -> Result<T::Partition, NotRead> {
        match self.topics.partition(topic, partition)? {
            Found::Here(here) => Ok(here),
            Found::Elsewhere(there) => {
                Err(ReadError::Elsewhere { message: there.sentence() }.into())
            }
        }
    }

    /// The same error with the address of the leader that it names.
    pub fn with_address(&self, mut error: ProduceError) -> ProduceError {
        if let ProduceError::NotLeader { leader: Some(leader), .. } = &mut error
            && leader.rpc_addr.is_empty()
        {
            leader.rpc_addr = self.topics.address_of(leader.node);
        }
        error
    }
}

fn not_leader(topic: &str, partition: u32, leader: Option<LeaderHint>) -> ProduceError {
    let message = match &leader {
        Some(LeaderHint { node, rpc_addr, .. }) => {
            format!("this node does not lead {topic}/{partition}; {node} does, at {rpc_addr}")
        }
        None => format!("no node is known to lead {topic}/{partition} at present"),
    };
    ProduceError::NotLeader { message, leader }
}

fn request(topic: &str, partition: u32, what: ToAppend, asker: &str) -> pb::ProduceRequest {
    let (records, batch) = match what {
        ToAppend::Records(records) => {
            let records = records.into_iter();
            (records.map(|record| record_to_duramen(Offset(0), record)).collect(), Bytes::new())
        }
        ToAppend::Batches(batches) => (Vec::new(), batches),
    };
    pb::ProduceRequest {
        topic: topic.into(),
        partition,
        correlation_id: 0,
        records,
        batch,
        no_forward: true,
        on_behalf_of: asker.into(),
    }
}

/// Waits until the replica has what was acknowledged anywhere before now, at most so long.
///
/// # Errors
/// The leader cannot be asked, or the replica is too far behind.
pub async fn catch_up<P: PartitionApi>(partition: &P, time: Duration) -> Result<(), ReadError> {
    let unavailable = |message: &str| ReadError::Unavailable {
        message: message.into(),
        retry_after: Duration::from_millis(100),
    };
    let caught_up = async {
        let wanted = partition.read_index().await?;
        let moved = partition.watch().wait_for(|end| *end >= wanted).await.map(drop);
        moved.map_err(|_| unavailable("the partition has stopped"))
    };
    let late = "this replica did not learn in time what was acknowledged: ask again, or read what \
                it has without asking for linearizable answers";
    tokio::time::timeout(time, caught_up).await.unwrap_or_else(|_| Err(unavailable(late)))
}
