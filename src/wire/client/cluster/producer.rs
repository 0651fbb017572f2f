//! Appends to the partitions of a topic, each stored once and in order, whoever leads.

use super::lane::{self, Lane, Submitted};
use super::stamp::sequences;
use super::{ClusterClient, key};
use crate::guards::Limiter;
use crate::wire::client::{Ack, ClientError, Refusal, Target};
use bytes::Bytes;
use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::Code;

/// As many batches as a server remembers of a producer.
const OUTSTANDING_NUMBERED_MAX: usize = 5;

/// How appends are made.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// Batches are numbered, and what was not answered is sent again: stored once. Without it, what
    /// was not answered is the caller's to find out. Default: true.
    pub idempotent: bool,
    /// Batches of one partition sent and not answered; 5 at most where they are numbered.
    pub outstanding_max: usize,
    /// How long a batch is tried. Default: 30 s.
    pub deadline: Duration,
    /// How long a numbered batch may be unanswered before it is tried elsewhere. Default: 5 s.
    pub answer_max: Duration,
    /// Send to whoever leads. Without it, to the first address only, which refuses what it does not
    /// lead. Default: true.
    pub follow_leader: bool,
    /// After a batch that failed, those behind it fail too, so that order holds without a gap.
    /// Default: false.
    pub stop_at_failure: bool,
    /// What paces batches. Default: nothing.
    pub limiter: Option<Limiter>,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            idempotent: true,
            outstanding_max: OUTSTANDING_NUMBERED_MAX,
            deadline: Duration::from_secs(30),
            answer_max: Duration::from_secs(5),
            follow_leader: true,
            stop_at_failure: false,
            limiter: None,
        }
    }
}

/// Which partition a batch goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'k> {
    /// This one.
    Partition(u32),
    /// The one of this key, as Kafka's clients choose it.
    Key(&'k [u8]),
    /// Each in turn.
    Any,
}

/// Where a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// Its place there, and how safe it is.
    pub ack: Ack,
}

/// A batch's fate, once it is known. Dropping it changes nothing.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Delivered, ClientError>>);

impl Future for Receipt {
    type Output = Result<Delivered, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or_else(|_| Err(lane::ended())))
    }
}

/// See the module. What it was given is sent on after it is dropped, as long as the runtime lives.
#[derive(Debug)]
pub struct ClusterProducer {
    cluster: ClusterClient,
    topic: String,
    options: ProducerOptions,
    lanes: HashMap<u32, mpsc::Sender<Submitted>>,
    turn: u32,
}

impl ClusterProducer {
    pub(super) fn new(cluster: ClusterClient, topic: &str, options: ProducerOptions) -> Self {
        Self { cluster, topic: topic.into(), options, lanes: HashMap::new(), turn: 0 }
    }

    /// Sends one encoded batch, once there is room for it. Batches of one partition are stored in
    /// the order of these calls.
    ///
    /// # Errors
    /// The bytes are not one batch. Everything else the receipt tells.
    pub async fn send(&mut self, place: Place<'_>, batch: Bytes) -> Result<Receipt, ClientError> {
        let records = sequences(&batch).map_err(|error| {
            ClientError::Refused(Refusal {
                code: Code::InvalidArgument,
                message: error.to_string(),
                retry_after: None,
                definite: true,
                leader: None,
            })
        })?;
        if let Some(limiter) = &self.options.limiter {
            limiter.wait().await;
        }
        let partition = match place {
            Place::Partition(partition) => partition,
            Place::Key(bytes) => key::partition_of_key(bytes, self.partitions().await),
            Place::Any => {
                self.turn = self.turn.wrapping_add(1);
                self.turn % self.partitions().await
            }
        };
        let (reply, receipt) = oneshot::channel();
        // A lane ends only with its runtime; the receipt tells that.
        let _ended = self.lane(partition).send(Submitted { batch, records, reply }).await;
        Ok(Receipt(receipt))
    }

    /// How many partitions there are to choose from.
    async fn partitions(&self) -> u32 {
        self.cluster.partitions(&self.topic).await.unwrap_or(1).max(1)
    }

    fn lane(&mut self, partition: u32) -> &mpsc::Sender<Submitted> {
        self.lanes.entry(partition).or_insert_with(|| {
            let (sender, incoming) = mpsc::channel(1);
            let mut options = self.options.clone();
            if options.idempotent {
                options.outstanding_max = options.outstanding_max.min(OUTSTANDING_NUMBERED_MAX);
            }
            let target = Target { topic: self.topic.clone(), partition };
            tokio::spawn(Lane::new(self.cluster.clone(), target, options, incoming).run());
            sender
        })
    }
}
