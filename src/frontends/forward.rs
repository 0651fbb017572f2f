//! Passes requests to append on to the nodes that take them, once: what was passed on says so, and is
//! not passed on again. One stream to each node carries those of all clients in order.

use crate::actors::partition::{Ack, AckSender, LeaderHint, PendingAck, ProduceError};
use crate::guards::tls::ClientTls;
use crate::model::{NodeId, Offset, Timestamp};
use crate::wire::convert::durability_from_wire;
use crate::wire::dial;
use crate::wire::pb::duramen::v1 as pb;
use crate::wire::peer::PeerProof;
use pb::log_client::LogClient;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Streaming};

/// Says, among a call's metadata, that its requests were passed on.
const FORWARDED: &str = "duramen-forwarded";
/// What may be under way, of all clients to all nodes (KiB) …
const ROOM_KIB: usize = 64 << 10;
/// … and what a request counts at least.
const REQUEST_KIB_MIN: u32 = 16;
/// Requests sent to one node and not yet answered.
const OUTSTANDING_MAX: usize = 256;
/// How long a node may take to answer a connection: longer, and clients are better told.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A connection that carries nothing for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The largest answer: they hold numbers and a sentence.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Whether a call's requests were passed on to this node.
pub fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

/// The same, of a call that was not looked at yet.
pub fn is_forwarded_call(headers: &http::HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}

/// See the module. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Forwarder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    links: Mutex<BTreeMap<NodeId, Link>>,
    room: Arc<Semaphore>,
    request_bytes_max: usize,
    tls: Option<ClientTls>,
    proof: PeerProof,
}

/// The way to a node.
#[derive(Debug)]
struct Link {
    address: String,
    jobs: mpsc::UnboundedSender<Job>,
}

/// A request on its way.
#[derive(Debug)]
struct Job {
    request: pb::ProduceRequest,
    answer: AckSender,
    place: String,
    room: OwnedSemaphorePermit,
}

impl Forwarder {
    /// Of requests of at most so many bytes; within TLS where that is given. Whoever they are passed on
    /// to believes on whose behalf they are by this node's certificate, or by `proof`.
    pub fn new(request_bytes_max: usize, tls: Option<ClientTls>, proof: PeerProof) -> Self {
        let room = Arc::new(Semaphore::new(ROOM_KIB));
        Self(Arc::new(Inner { links: Mutex::default(), room, request_bytes_max, tls, proof }))
    }

    /// Passes a request on to a leader; `place` names its partition for people. Never waits. Must be
    /// called on a thread with a runtime.
    ///
    /// # Errors
    /// Too much is under way: nothing is stored.
    pub fn forward(
        &self,
        leader: &LeaderHint,
        place: &str,
        request: pb::ProduceRequest,
    ) -> Result<PendingAck, ProduceError> {
        let bytes = prost::Message::encoded_len(&request);
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        // One larger than all the room there is goes alone.
        let kib = kib.max(REQUEST_KIB_MIN).min(ROOM_KIB as u32);
        let room = Arc::clone(&self.0.room).try_acquire_many_owned(kib);
        let Ok(room) = room else {
            let message = format!(
                "too much is being passed on to leaders on other nodes; send to {} directly",
                leader.rpc_addr
            );
            return Err(ProduceError::Overloaded { message, retry_after: RETRY_AFTER });
        };
        let (answer, pending) = PendingAck::channel();
        let mut job = Job { request, answer, place: place.to_owned(), room };
        let mut links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&leader.node).filter(|link| link.address == leader.rpc_addr) {
            match link.jobs.send(job) {
                Ok(()) => return Ok(pending),
                // It had ended: it was idle, or its node went away.
                Err(mpsc::error::SendError(unsent)) => job = unsent,
            }
        }
        // Unbounded, yet bounded by the room that each job holds.
        let (jobs, queue) = mpsc::unbounded_channel();
        let address = leader.rpc_addr.clone();
        // Its own receiver is not dropped before it runs.
        let _ = jobs.send(job);
        tokio::spawn(carry(leader.node, address.clone(), queue, Arc::clone(&self.0)));
        links.insert(leader.node, Link { address, jobs });
        Ok(pending)
    }
}

/// Carries requests to one node until it fails or there are none for a while.
async fn carry(
    node: NodeId,
    address: String,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    inner: Arc<Inner>,
) {
    let mut ended = "the connection is closed".to_owned();
    let opened = tokio::time::timeout(CONNECT_MAX, open(&address, &inner)).await;
    match opened.unwrap_or_else(|_| Err("it does not answer".into())) {
        Err(reason) => ended = reason,
        Ok((outgoing, mut responses)) => {
            // Whoever is left in it when it is dropped is told that the outcome is unknown.
            let mut unanswered: VecDeque<(AckSender, OwnedSemaphorePermit)> = VecDeque::new();
            loop {
                tokio::select! {
                    job = jobs.recv(), if unanswered.len() < OUTSTANDING_MAX => {
                        let Some(Job { request, answer, room, .. }) = job else { break };
                        // As wide as the bound on what is unanswered: never full.
                        if outgoing.try_send(request).is_err() {
                            break;
                        }
                        unanswered.push_back((answer, room));
                    }
                    response = responses.message() => match response {
                        Ok(Some(response)) => {
                            let Some((answer, _room)) = unanswered.pop_front() else { break };
                            answer.send(outcome(response));
                        }
                        Ok(None) => break,
                        Err(status) => {
                            ended = status.message().to_owned();
                            break;
                        }
                    },
                    () = tokio::time::sleep(IDLE_MAX), if unanswered.is_empty() => break,
                }
            }
        }
    }
    // From here on whoever has a request makes a new link.
    jobs.close();
    while let Some(Job { answer, place, .. }) = jobs.recv().await {
        let message = format!(
            "{node} at {address}, which leads {place}, cannot be reached ({ended}); nothing was stored"
        );
        answer.send(Err(ProduceError::Restarting { message, retry_after: RETRY_AFTER }));
    }
}

type Opened = (mpsc::Sender<pb::ProduceRequest>, Streaming<pb::ProduceResponse>);

async fn open(address: &str, inner: &Inner) -> Result<Opened, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| error.to_string())?.tcp_nodelay(true);
    let channel = dial::connect(endpoint, address, inner.tls.as_ref()).await;
    let channel = channel.map_err(|error| crate::model::with_causes(&*error))?;
    let mut client = LogClient::new(channel)
        .max_encoding_message_size(inner.request_bytes_max)
        .max_decoding_message_size(ANSWER_BYTES_MAX);
    let (outgoing, requests) = mpsc::channel(OUTSTANDING_MAX);
    let mut call = Request::new(ReceiverStream::new(requests));
    call.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
    inner.proof.show(&mut call);
    let opened = client.produce(call).await;
    let responses = opened.map_err(|status| status.message().to_owned())?.into_inner();
    Ok((outgoing, responses))
}

/// What a leader answers, in the words that its own front end had for it.
fn outcome(response: pb::ProduceResponse) -> Result<Ack, ProduceError> {
    if let Some(error) = response.error {
        return Err(refusal(error));
    }
    let Some(durability) = durability_from_wire(response.durability) else {
        let message = "the leader's answer does not say how safe the records are".into();
        return Err(ProduceError::Unknown { message });
    };
    Ok(Ack {
        base_offset: Offset(response.base_offset),
        records: response.record_count,
        timestamp: Timestamp(response.timestamp_ms),
        durability,
    })
}

fn refusal(error: pb::Error) -> ProduceError {
    let pb::Error { code, message, retry_after_ms, definite, leader } = error;
    let retry_after = match retry_after_ms {
        0 => RETRY_AFTER,
        millis => Duration::from_millis(millis.into()),
    };
    let code = Code::from(code);
    if !definite {
        return match code {
            Code::DeadlineExceeded => ProduceError::Deadline,
            _ => ProduceError::Unknown { message },
        };
    }
    if let Some(pb::Leader { node, rpc_addr, term }) = leader {
        let hint = LeaderHint { node: NodeId(node), rpc_addr, term: crate::model::Term(term) };
        return ProduceError::NotLeader { message, leader: (node > 0).then_some(hint) };
    }
    match code {
        Code::InvalidArgument => ProduceError::Invalid { message },
        Code::PermissionDenied | Code::Unauthenticated => ProduceError::Denied { message },
        Code::FailedPrecondition => ProduceError::Sequence { message },
        Code::ResourceExhausted if retry_after_ms == 0 => ProduceError::DiskFull { message },
        Code::ResourceExhausted => ProduceError::Overloaded { message, retry_after },
        Code::Unavailable if retry_after_ms == 0 => ProduceError::Quarantined { message },
        // Among them a topic that the leader does not know yet, or any more.
        _ => ProduceError::Restarting { message, retry_after },
    }
}
