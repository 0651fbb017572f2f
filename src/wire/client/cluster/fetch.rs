//! Reads that outlive the replica that they began on: they go on at the next offset on another.

use super::ClusterClient;
use crate::guards::{Classify, ErrorClass, chance_of_machine};
use crate::model::{Chance, Offset};
use crate::wire::client::{
    Chunk, Chunks, ClientError, Consistency, FetchOptions, Position, Refusal, Target,
};
use bytes::Buf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Code;

/// How long a replica may take to begin an answer.
const OPEN_MAX: Duration = Duration::from_secs(5);
const HEADER_BYTES: usize = 61;
const LENGTH_BASE_BYTES: usize = 12;

/// See the module. No offset comes twice, and none is left out.
#[derive(Debug)]
pub struct ClusterChunks {
    cluster: ClusterClient,
    target: Target,
    options: FetchOptions,
    /// How long nobody may answer before it is given up.
    patience: Duration,
    chunks: Option<(String, Chunks)>,
    next: Option<Offset>,
    /// Records of whole batches read so far.
    read: u64,
    /// Replicas tried in a row without a chunk, and since when.
    fruitless: u32,
    since: Duration,
    chance: Chance,
}

impl ClusterChunks {
    pub(super) async fn open(
        cluster: ClusterClient,
        target: &Target,
        options: FetchOptions,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let since = cluster.now();
        let mut opened = Self {
            cluster,
            target: target.clone(),
            options,
            patience,
            chunks: None,
            next: None,
            read: 0,
            fruitless: 0,
            since,
            chance: chance_of_machine(),
        };
        opened.ensure_open().await?;
        Ok(opened)
    }

    /// The next chunk; `None` at the end of a read that has one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The read was refused for good, or nobody answered for as long as its patience.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ClientError> {
        loop {
            self.ensure_open().await?;
            let Some((_, chunks)) = &mut self.chunks else { continue };
            // A read that follows may have to wait for ever, one that ends may not.
            let received = if self.options.follow {
                chunks.next().await
            } else {
                let within = tokio::time::timeout(self.patience, chunks.next()).await;
                within.unwrap_or_else(|_| Err(silent("")))
            };
            match received {
                Ok(Some(chunk)) => {
                    if let Some(chunk) = self.take(chunk)? {
                        return Ok(Some(chunk));
                    }
                }
                Ok(None) if !self.options.follow => return Ok(None),
                // A read that follows has no end: the replica is stopping.
                Ok(None) => {
                    let address = self.drop_replica();
                    let source = "it ended a read that has no end".into();
                    self.stumble(ClientError::Lost { address, source }).await?;
                }
                Err(error) => {
                    self.drop_replica();
                    self.stumble(error).await?;
                }
            }
        }
    }

    fn drop_replica(&mut self) -> String {
        let address = self.chunks.take().map(|(address, _)| address).unwrap_or_default();
        self.cluster.lost(&address);
        address
    }

    /// Leaves out what came before, from another replica.
    fn take(&mut self, mut chunk: Chunk) -> Result<Option<Chunk>, ClientError> {
        if let Some(next) = self.next {
            while chunk.base < next && !chunk.batches.is_empty() {
                let header = chunk.batches.first_chunk::<HEADER_BYTES>();
                let number = |at: usize| {
                    header
                        .map_or(0, |h| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]))
                };
                let length = (number(8) as usize).saturating_add(LENGTH_BASE_BYTES);
                let behind = chunk.base.plus(u64::from(number(23)) + 1);
                if length > chunk.batches.len() || behind > next {
                    break;
                }
                chunk.batches.advance(length);
                chunk.base = behind;
            }
            if chunk.batches.is_empty() {
                return Ok(None);
            }
            if chunk.base != next {
                let what = format!("records from {} on came where {next} was due", chunk.base);
                return Err(ClientError::Protocol { what });
            }
        }
        self.next = Some(chunk.next);
        self.read += chunk.next.0 - chunk.base.0;
        self.fruitless = 0;
        Ok(Some(chunk))
    }

    async fn ensure_open(&mut self) -> Result<(), ClientError> {
        while self.chunks.is_none() {
            let mut options = self.options;
            if let Some(next) = self.next {
                options.position = Position::Offset(next);
            }
            options.records_max = options.records_max.map(|most| most.saturating_sub(self.read));
            if self.next.is_some() && options.records_max == Some(0) {
                // Zero would mean no limit; the read is complete, and a follower has nothing to add.
                options.records_max = Some(1);
            }
            match self.try_open(options).await {
                Ok((address, chunks)) => self.chunks = Some((address, chunks)),
                Err(error) => self.stumble(error).await?,
            }
        }
        Ok(())
    }

    /// Followers in turn, the leader when those have failed. What is counted from the end is asked
    /// of the leader, who knows where that is.
    async fn try_open(&self, options: FetchOptions) -> Result<(String, Chunks), ClientError> {
        if self.cluster.routes().replicas(&self.target).is_empty() || self.fruitless > 0 {
            self.cluster.refresh().await;
        }
        let replicas = self.cluster.routes().replicas(&self.target);
        let leader = self.cluster.routes().leader(&self.target);
        let followers = replicas.len() - usize::from(leader.is_some() && !replicas.is_empty());
        let wants_leader = matches!(options.position, Position::End | Position::BeforeEnd(_));
        let turn = self.cluster.0.turn.fetch_add(1, Ordering::Relaxed);
        let is_leaders_turn = wants_leader || self.fruitless as usize >= followers;
        let mut client = match (leader, replicas.get(turn % followers.max(1))) {
            (Some(leader), _) if is_leaders_turn && self.fruitless.is_multiple_of(2) => {
                self.cluster.node(&leader).await?
            }
            (_, Some(follower)) => self.cluster.node(follower).await?,
            (_, None) => self.cluster.any().await?,
        };
        let address = client.address().to_owned();
        let opened = tokio::time::timeout(OPEN_MAX, client.fetch(&self.target, options)).await;
        let chunks = opened.unwrap_or_else(|_| Err(silent(&address)));
        match &chunks {
            Ok(_) | Err(ClientError::Refused(_)) => self.cluster.let_in(&address),
            Err(ClientError::Lost { .. }) => self.cluster.lost(&address),
            Err(_) => {}
        }
        Ok((address, chunks?))
    }

    /// Decides whether to go on after an error, and pauses.
    async fn stumble(&mut self, error: ClientError) -> Result<(), ClientError> {
        if self.fruitless == 0 {
            self.since = self.cluster.now();
        }
        self.fruitless = self.fruitless.saturating_add(1);
        let has_others = self.cluster.routes().replicas(&self.target).len() > 1;
        let may_pass = match &error {
            ClientError::Refused(refusal) => self.may_pass(refusal, has_others),
            // Where there is nowhere else to go and nothing was read, the caller is not held up.
            ClientError::Unavailable { .. } | ClientError::Lost { .. } => {
                has_others || self.next.is_some() && self.options.follow
            }
            error => error.class() == ErrorClass::Retryable,
        };
        let waited = self.cluster.now().saturating_sub(self.since);
        if let Some(error) = self.cluster.ends_with(&error, false) {
            return Err(error);
        }
        if !may_pass || waited >= self.patience {
            return Err(error);
        }
        if let ClientError::Refused(Refusal { leader: Some(leader), .. }) = &error {
            self.cluster.follow(&self.target, leader);
        }
        let asked = error.retry_after().unwrap_or_default();
        let pause = self.cluster.0.options.pauses;
        let pause = pause.pause(self.fruitless - 1, self.chance.fraction()).max(asked);
        tokio::time::sleep(pause.min(self.patience.saturating_sub(waited))).await;
        Ok(())
    }

    fn may_pass(&self, refusal: &Refusal, has_others: bool) -> bool {
        match refusal.code {
            // A follower may lag behind, or be new; the leader's word is the last.
            Code::OutOfRange | Code::NotFound => has_others && self.fruitless <= 3,
            Code::Unavailable => has_others || refusal.retry_after.is_some(),
            Code::FailedPrecondition if self.options.consistency == Consistency::Linearizable => {
                has_others
            }
            _ => refusal.leader.is_some(),
        }
    }
}

/// The node is there and says nothing.
fn silent(address: &str) -> ClientError {
    ClientError::Lost { address: address.into(), source: "the node does not answer".into() }
}
