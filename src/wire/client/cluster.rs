//! A client of a whole cluster: from any addresses it learns where things are, keeps a connection
//! to each node that it needs, and follows leaders as they change.

mod fetch;
mod key;
mod lane;
mod producer;
mod routes;
mod stamp;
mod window;

#[cfg(test)]
mod tests;

pub use fetch::ClusterChunks;
pub use key::partition_of_key;
pub use producer::{ClusterProducer, Delivered, Place, ProducerOptions, Receipt};

use super::{Admin, Client, ClientError, ClientOptions, LeaderHint, Target, TurnedAway};
use crate::guards::{Breaker, BreakerOptions, BreakerState, RetryPolicy};
use crate::model::{Clock, SystemClock};
use crate::wire::pb::duramen::v1::DescribeResponse;
use routes::Routes;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Connections kept: more nodes than this are asked over new ones each time.
const CONNECTIONS_MAX: usize = 1024;
/// How long a node may take to tell where things are.
const METADATA_MAX: Duration = Duration::from_secs(2);

/// How a client of a cluster behaves towards its nodes.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How it connects to each.
    pub client: ClientOptions,
    /// When it leaves a node alone that cannot be reached. Shorter than a breaker's default: a node
    /// that comes back may be the only one that can answer.
    pub breaker: BreakerOptions,
    /// The pauses between tries. How often is a matter of deadlines: `retries_max` is not looked at.
    pub pauses: RetryPolicy,
    /// Who is told when the way to a node opens or closes. Default: nobody.
    pub told: Option<WayTold>,
}

/// Is told of the breaker of the way to a node: its address, from which state to which.
#[derive(Clone)]
pub struct WayTold(Arc<TellWay>);

type TellWay = dyn Fn(&str, BreakerState, BreakerState) + Send + Sync;

impl WayTold {
    /// Calls this.
    pub fn by(tell: impl Fn(&str, BreakerState, BreakerState) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for WayTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WayTold")
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self {
            client: ClientOptions { connect_timeout: millis(1000), ..ClientOptions::default() },
            breaker: BreakerOptions { open_for: millis(500), ..BreakerOptions::default() },
            pauses: RetryPolicy {
                initial: millis(25),
                // A new leader is found late by a part of the time that it took, not by twice that.
                factor: 1.5,
                pause_max: millis(250),
                ..RetryPolicy::default()
            },
            told: None,
        }
    }
}

/// A cluster, as a client sees it. Clones share connections and what was learned.
#[derive(Debug, Clone)]
pub struct ClusterClient(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    seeds: Vec<String>,
    options: ClusterOptions,
    clock: Arc<dyn Clock>,
    traceparent: Option<String>,
    routes: Mutex<Routes>,
    nodes: Mutex<HashMap<String, Node>>,
    /// Whose turn it is among several that could answer.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Node {
    breaker: Breaker,
    client: Option<Client>,
    /// Why it and this client did not let each other in, the last time that they met.
    turned_away: Option<TurnedAway>,
}

/// A node to send appends to.
#[derive(Debug)]
struct Way {
    client: Client,
    /// It is to refuse what it does not lead: so that this client learns who does.
    no_forward: bool,
}

impl ClusterClient {
    /// Connects to the first of `addresses` (each `host:port`) that answers, and asks it for the
    /// others. `traceparent` is sent with each request (W3C Trace Context).
    ///
    /// # Errors
    /// None answers, or none lets this client in: what the last one failed with.
    pub async fn connect(
        addresses: &[String],
        options: ClusterOptions,
        traceparent: Option<String>,
    ) -> Result<Self, ClientError> {
        let cluster = Self(Arc::new(Shared {
            seeds: addresses.to_vec(),
            options,
            clock: Arc::new(SystemClock::new()),
            traceparent,
            routes: Mutex::default(),
            nodes: Mutex::default(),
            turn: AtomicUsize::new(0),
        }));
        cluster.any().await?;
        cluster.refresh().await;
        match cluster.turned_away(false) {
            Some(error) => Err(error),
            None => Ok(cluster),
        }
    }

    /// A client for appends to a topic.
    pub fn producer(&self, topic: &str, options: ProducerOptions) -> ClusterProducer {
        ClusterProducer::new(self.clone(), topic, options)
    }

    /// Reads whole batches, from followers in turn where there are some.
    ///
    /// # Errors
    /// The read was refused for good, or nobody could be asked for as long as `patience`.
    pub async fn fetch(
        &self,
        target: &Target,
        options: super::FetchOptions,
        patience: Duration,
    ) -> Result<ClusterChunks, ClientError> {
        ClusterChunks::open(self.clone(), target, options, patience).await
    }

    /// How many partitions a topic has; `None` where nobody tells.
    pub async fn partitions(&self, topic: &str) -> Option<u32> {
        if let Some(count) = self.routes().partitions(topic) {
            return Some(count);
        }
        self.refresh().await;
        self.routes().partitions(topic)
    }

    /// A connection to any node, for calls that all of them take.
    ///
    /// # Errors
    /// None can be reached: what the last one failed with.
    pub async fn any(&self) -> Result<Client, ClientError> {
        self.any_from(0).await
    }

    /// As [`ClusterClient::any`]; `turn` decides among those that are connected already.
    async fn any_from(&self, turn: usize) -> Result<Client, ClientError> {
        let mut addresses = self.addresses();
        {
            // Who is connected answers at once; who is away may take a while to be missed; who lets
            // nobody in is connected to all the same, and does not answer.
            let nodes = self.nodes();
            let is_connected =
                |address: &String| nodes.get(address).is_some_and(|node| node.client.is_some());
            addresses.sort_by_key(|address| {
                let turns_away = nodes.get(address).is_some_and(|node| node.turned_away.is_some());
                (turns_away, !is_connected(address))
            });
            let connected = addresses.iter().filter(|address| is_connected(address)).count();
            addresses[..connected].rotate_left(turn % connected.max(1));
        }
        let mut failed = None;
        for address in &addresses {
            match self.node(address).await {
                Ok(client) => return Ok(client),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(ClientError::Address { address: String::new() }))
    }

    /// For looking after the cluster, over any node.
    ///
    /// # Errors
    /// As [`ClusterClient::any`].
    pub async fn admin(&self) -> Result<Admin, ClientError> {
        Ok(self.any().await?.admin())
    }

    /// The state of a topic's partitions: of each as its leader sees it, where that can be asked,
    /// else as any node does.
    ///
    /// # Errors
    /// There is no such topic, or no node can be reached.
    pub async fn describe(&self, topic: &str) -> Result<DescribeResponse, ClientError> {
        self.refresh().await;
        let leaders = self.routes().leaders(topic);
        let mut merged: Option<DescribeResponse> = None;
        let mut add = |described: DescribeResponse, leader: Option<&str>| {
            let merged = merged.get_or_insert_with(|| DescribeResponse {
                partitions: Vec::new(),
                ..described.clone()
            });
            for partition in described.partitions {
                let leads = leaders.get(partition.id as usize).map(String::as_str);
                let known = merged.partitions.iter().position(|known| known.id == partition.id);
                match known {
                    None => merged.partitions.push(partition),
                    Some(at) if leads == leader => merged.partitions[at] = partition,
                    Some(_) => {}
                }
            }
        };
        let first = self.any().await?;
        add(first.clone().describe(topic).await?, Some(first.address()));
        let mut others: Vec<&String> = leaders
            .iter()
            .filter(|leader| !leader.is_empty() && leader.as_str() != first.address())
            .collect();
        others.sort();
        others.dedup();
        for address in others {
            // A leader that cannot be asked leaves what the first node knows of its partitions.
            if let Ok(mut client) = self.node(address).await
                && let Ok(described) = client.describe(topic).await
            {
                add(described, Some(address));
            }
        }
        let mut described = merged.expect("the first answer is in it");
        described.partitions.sort_by_key(|partition| partition.id);
        Ok(described)
    }

    /// Asks one node after the other, one each time, for what it knows: who is cut off from the
    /// others does not know who leads. Nobody's answer leaves what was known.
    async fn refresh(&self) {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let Ok(mut client) = self.any_from(turn).await else { return };
        let address = client.address().to_owned();
        match tokio::time::timeout(METADATA_MAX, client.metadata(Vec::new())).await {
            Ok(Ok(metadata)) => {
                self.let_in(&address);
                self.routes().learn(metadata);
            }
            Ok(Err(ClientError::Refused(_))) => self.let_in(&address),
            Ok(Err(error)) => {
                self.met(&error);
                self.lost(&address);
            }
            Err(_) => self.lost(&address),
        }
    }

    /// Where nodes are, as far as known: what was given first.
    fn addresses(&self) -> Vec<String> {
        let mut learned = self.routes().addresses();
        learned.retain(|address| !self.0.seeds.contains(address));
        [self.0.seeds.clone(), learned].concat()
    }

    /// Notes whether the node that an error tells of and this client do not let each other in.
    fn met(&self, error: &ClientError) {
        if let ClientError::Unavailable { address, .. } | ClientError::Lost { address, .. } = error
            && let Some(turned_away) = error.turned_away()
            && let Some(node) = self.nodes().get_mut(address)
        {
            node.turned_away = Some(turned_away);
        }
    }

    /// Notes that a node has let this client in.
    fn let_in(&self, address: &str) {
        if let Some(node) = self.nodes().get_mut(address) {
            node.turned_away = None;
        }
    }

    /// Notes what an error tells, and gives what to end with, as [`ClusterClient::turned_away`]: not
    /// where a node has refused, which let this client in for that.
    fn ends_with(&self, error: &ClientError, is_unknown: bool) -> Option<ClientError> {
        if matches!(error, ClientError::Refused(_)) {
            return None;
        }
        self.met(error);
        self.turned_away(is_unknown)
    }

    /// What to end with where no known node and this client let each other in: no further try would
    /// change that. `is_unknown`: something was sent, and not answered.
    fn turned_away(&self, is_unknown: bool) -> Option<ClientError> {
        let addresses = self.addresses();
        let nodes = self.nodes();
        let turned_away = |address: &String| nodes.get(address)?.turned_away.clone();
        let reasons: Option<Vec<TurnedAway>> = addresses.iter().map(turned_away).collect();
        let (address, source) = (addresses.first()?.clone(), Box::new(reasons?.swap_remove(0)));
        Some(match is_unknown {
            true => ClientError::Lost { address, source },
            false => ClientError::Unavailable { address, source },
        })
    }

    /// Where appends go: the leader, as far as known; else anybody, who knows more or passes it on.
    async fn way_to(&self, target: &Target) -> Result<Way, ClientError> {
        let mut unreachable = None;
        for is_fresh in [false, true] {
            if is_fresh {
                self.refresh().await;
            }
            let leader = self.routes().leader(target);
            if let Some(leader) = leader.filter(|leader| unreachable.as_ref() != Some(leader)) {
                match self.node(&leader).await {
                    Ok(client) => return Ok(Way { client, no_forward: true }),
                    Err(_) => unreachable = Some(leader),
                }
            }
        }
        let client = self.next_of(target).await?;
        Ok(Way { client, no_forward: unreachable.is_none() })
    }

    /// Where appends go that are to be refused where they must not be taken: the first address.
    async fn only_way(&self) -> Result<Way, ClientError> {
        let address = self.0.seeds.first().cloned().unwrap_or_default();
        Ok(Way { client: self.node(&address).await?, no_forward: true })
    }

    /// The nodes that hold a partition, in turn; any where none is known.
    async fn next_of(&self, target: &Target) -> Result<Client, ClientError> {
        let replicas = self.routes().replicas(target);
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..replicas.len() {
            if let Ok(client) = self.node(&replicas[(turn + step) % replicas.len()]).await {
                return Ok(client);
            }
        }
        self.any().await
    }

    /// A connection to one node: the one there is, or a new one where its breaker lets it through.
    async fn node(&self, address: &str) -> Result<Client, ClientError> {
        let (breaker, client) = {
            let mut nodes = self.nodes();
            if nodes.len() >= CONNECTIONS_MAX {
                nodes.retain(|known, _| known == address);
            }
            let node = nodes.entry(address.into()).or_insert_with(|| Node {
                breaker: self.breaker(address),
                client: None,
                turned_away: None,
            });
            (node.breaker.clone(), node.client.clone())
        };
        if let Some(client) = client {
            return Ok(client);
        }
        let permit = breaker.enter().map_err(|open| ClientError::Unavailable {
            address: address.into(),
            source: Box::new(open),
        })?;
        match Client::connect(address, self.0.options.client.clone()).await {
            Ok(client) => {
                permit.succeeded();
                let client = match &self.0.traceparent {
                    Some(traceparent) => client.traced(traceparent),
                    None => client,
                };
                if let Some(node) = self.nodes().get_mut(address) {
                    node.client = Some(client.clone());
                }
                Ok(client)
            }
            Err(error) => {
                permit.failed();
                self.met(&error);
                Err(error)
            }
        }
    }

    fn breaker(&self, address: &str) -> Breaker {
        let (options, clock) = (self.0.options.breaker, self.0.clock.clone());
        let Some(WayTold(tell)) = self.0.options.told.clone() else {
            return Breaker::new(options, clock);
        };
        let address = address.to_owned();
        Breaker::on_change(options, clock, move |from, to| tell(&address, from, to))
    }

    /// Notes that a connection broke, or that a node does not answer on it.
    fn lost(&self, address: &str) {
        if let Some(node) = self.nodes().get_mut(address) {
            node.client = None;
        }
    }

    /// Notes that nobody is known to lead any more.
    fn leaderless(&self, target: &Target) {
        self.routes().leaderless(target);
    }

    /// Notes who leads; whether that is news.
    fn follow(&self, target: &Target, leader: &LeaderHint) -> bool {
        self.routes().follow(target, leader)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.0.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Node>> {
        self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.0.clock.monotonic()
    }
}
