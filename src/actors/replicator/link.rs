//! The connection to one peer: made, driven, lost and made again, for as long as the actor lives.
//!
//! All that is queued when the way is free goes in one frame: that is what makes one frame of the
//! heartbeats of a thousand groups.

use super::fill::{Filling, Held, Unread};
use super::outbox::Outbox;
use super::{Connected, ConnectionLost, PeersParts, ReplicatorActor};
use crate::actors::addresses::Whereabouts;
use crate::actors::leadership::Leadership;
use crate::guards::tls::ExpectedServer;
use crate::model::{Chance, Clock, GroupId, NodeId, ReplicaId, Term, with_causes};
use crate::supervision::Line;
use crate::wire::client::ClientError;
use crate::wire::pb::duramen::v1 as pb;
use crate::wire::peer::{
    Denial, Notices, PROTOCOL_MAX, PROTOCOL_MIN, PeerClient, message_to_pb, wire_bytes,
};
use slog::{Logger, warn};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// The log tells of messages that were dropped this often.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Link {
    pub peer: NodeId,
    pub parts: Arc<PeersParts>,
    pub outbox: Arc<Outbox>,
    pub line: Line<ReplicatorActor>,
    pub clock: Arc<dyn Clock>,
    pub logger: Logger,
}

/// Why an exchange is over.
enum Ended {
    /// The peer has another address now, or is no member any more.
    Moved,
    /// The peer does not want to talk to this node.
    TurnedAway(String),
    /// The peer says that this node is no member any more.
    Removed(String),
    /// There is no way, or no longer.
    Broken(String),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => match Denial::of(&refusal) {
                Denial::NotFound => Self::Removed(refusal.message),
                Denial::NotNow | Denial::Foreign => Self::TurnedAway(refusal.message),
                _ => Self::Broken(refusal.message),
            },
            other => Self::Broken(with_causes(&other)),
        }
    }
}

/// What an exchange has in hand.
#[derive(Default)]
struct Hand {
    ready: VecDeque<Held>,
    ready_bytes: u64,
    leads: Leads,
    leads_due: bool,
}

/// What the peer was told of the groups that are led here.
#[derive(Default)]
struct Leads(BTreeMap<GroupId, (Term, ReplicaId)>);

impl Leads {
    /// What is news to the peer.
    fn news(&mut self, leadership: &Leadership) -> Vec<pb::Leads> {
        let here = leadership.led_here().into_iter();
        let here = here.filter_map(|(group, known)| Some((group, (known.term, known.leader?))));
        let now: BTreeMap<_, _> = here.collect();
        let is_news = |(group, leads): &(&GroupId, &_)| self.0.get(*group) != Some(*leads);
        let news = now.iter().filter(is_news).map(|(group, (term, replica))| pb::Leads {
            group: group.raw(),
            term: term.0,
            replica: replica.raw(),
        });
        let news = news.collect();
        self.0 = now;
        news
    }
}

/// Waits between attempts, doubled each time, a part of each left to chance.
struct Waits {
    attempts: u32,
    chance: Chance,
}

impl Waits {
    fn next(&mut self, parts: &PeersParts) -> Duration {
        let backoff = parts.options.backoff;
        let doubled =
            backoff.min.saturating_mul(1u32.checked_shl(self.attempts).unwrap_or(u32::MAX));
        self.attempts = self.attempts.saturating_add(1).min(31);
        let share = backoff.jitter.clamp(0.0, 1.0) * self.chance.fraction();
        doubled.min(backoff.max).mul_f64(1.0 - share)
    }
}

impl Link {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let parts = Arc::clone(&self.parts);
        let mut filling = Filling::default();
        let seed = parts.seed ^ u64::from(self.peer.0) << 32;
        let mut waits = Waits { attempts: 0, chance: Chance::new(seed) };
        let mut changes = parts.addresses.changes();
        // What a life before this one left.
        self.outbox.close();
        loop {
            let Some(place) = parts.addresses.of(self.peer) else {
                changes.next().await;
                continue;
            };
            self.outbox.open();
            let mut taken = 0;
            let ended = match self.visit(&place, &mut filling, &mut taken).await {
                Ok(never) => match never {},
                Err(ended) => ended,
            };
            self.outbox.close();
            filling.clear();
            if taken > 0 {
                waits.attempts = 0;
            }
            let (reason, wait) = match ended {
                Ended::Moved => ("its address changed".to_owned(), Duration::ZERO),
                Ended::TurnedAway(reason) => (reason, parts.options.backoff.max),
                Ended::Removed(reason) => {
                    parts.addresses.told_of_removal();
                    (reason, parts.options.backoff.max)
                }
                Ended::Broken(reason) => (reason, waits.next(&parts)),
            };
            self.line.complete(ConnectionLost { address: place.rpc_addr.clone(), reason });
            let mut pause = pin!(sleep(wait));
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    () = changes.next() => {
                        let now = parts.addresses.of(self.peer);
                        if !now.is_some_and(|now| now.is_same_place(&place)) {
                            waits.attempts = 0;
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Connects and exchanges frames until that ends. `taken`: frames that the peer has taken.
    async fn visit(
        &self,
        place: &Whereabouts,
        filling: &mut Filling,
        taken: &mut u64,
    ) -> Result<std::convert::Infallible, Ended> {
        let peer = self.peer;
        let PeersParts { me, options, addresses, tls, .. } = &*self.parts;
        let tls = tls.as_ref().map(|tls| {
            // Whom nobody knows by name yet is any node.
            let name = addresses.name_of(peer);
            tls.expecting(
                name.map_or(ExpectedServer::Node, |n| ExpectedServer::NodeNamed(n.into())),
            )
        });
        let timeout = options.connect_timeout;
        let client = PeerClient::connect(&place.rpc_addr, timeout, tls.as_ref()).await?;
        let mut client = client.proving(&options.proof);
        // One frame in hand, one on its way: what waits longer waits in the outbox, where it is
        // bounded, and where heartbeats can give way.
        let (frames, receiver) = mpsc::channel(1);
        let introduction = pb::Introduction {
            cluster_id: me.cluster_id.clone(),
            node: me.node.0,
            uuid: me.uuid.clone(),
            to: peer.0,
            to_uuid: place.uuid.clone(),
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let notices = client.exchange(introduction, receiver).await?;
        self.outbox.counters.connections.one();
        self.outbox.connected();
        self.line.complete(Connected { address: place.rpc_addr.clone() });
        self.exchange(place, filling, frames, notices, taken).await
    }

    async fn exchange(
        &self,
        place: &Whereabouts,
        filling: &mut Filling,
        frames: mpsc::Sender<pb::PeerFrame>,
        mut notices: Notices,
        taken: &mut u64,
    ) -> Result<std::convert::Infallible, Ended> {
        let PeersParts { options, addresses, leadership, .. } = &*self.parts;
        let mut hand = Hand { leads_due: true, ..Hand::default() };
        let mut complaint = Complaint { told: None, untold: 0 };
        let mut led = leadership.changes();
        let mut changes = addresses.changes();
        let mut sent = 0;
        let mut silence = pin!(sleep(options.silence_max));
        loop {
            let has_work = !hand.ready.is_empty() || hand.leads_due;
            tokio::select! {
                notice = notices.next() => {
                    let Some(count) = notice? else {
                        return Err(Ended::Broken("the peer ended the exchange".into()));
                    };
                    *taken = count.min(sent);
                    silence.as_mut().reset(Instant::now() + options.silence_max);
                }
                () = self.outbox.filled(), if !has_work => {
                    // Whoever else has something to say at this moment is let speak first.
                    tokio::task::yield_now().await;
                    self.take(&mut hand, filling);
                }
                filled = filling.next(), if hand.ready_bytes < options.frame_bytes => {
                    match filled {
                        Ok(held) => hand.push(held),
                        Err(unread) => self.drop_unread(unread, &mut complaint),
                    }
                }
                permit = frames.reserve(), if has_work => {
                    let Ok(permit) = permit else {
                        // The call is over; the answer says why.
                        let last = tokio::time::timeout(options.connect_timeout, notices.next());
                        if let Ok(notice) = last.await {
                            notice?;
                        }
                        return Err(Ended::Broken("the peer ended the exchange".into()));
                    };
                    self.take(&mut hand, filling);
                    if sent == *taken {
                        silence.as_mut().reset(Instant::now() + options.silence_max);
                    }
                    if let Some(frame) = self.frame(&mut hand, &mut complaint) {
                        sent += 1;
                        permit.send(frame);
                    }
                }
                changed = led.changed() => hand.leads_due |= changed.is_ok(),
                () = changes.next() => {
                    if !addresses.of(self.peer).is_some_and(|now| now.is_same_place(place)) {
                        return Err(Ended::Moved);
                    }
                }
                () = &mut silence, if sent > *taken => {
                    let silent = options.silence_max;
                    return Err(Ended::Broken(format!("it took no frame within {silent:?}")));
                }
            }
        }
    }

    /// Takes over what waits in the outbox.
    fn take(&self, hand: &mut Hand, filling: &mut Filling) {
        for outgoing in self.outbox.take() {
            let came = wire_bytes(&outgoing.message);
            if let Some(held) = filling.sort(Held { outgoing, came }) {
                hand.push(held);
            }
        }
    }

    /// The next frame: what fits, but at least one message.
    fn frame(&self, hand: &mut Hand, complaint: &mut Complaint) -> Option<pb::PeerFrame> {
        let counters = &self.outbox.counters;
        let mut frame = pb::PeerFrame::default();
        if std::mem::take(&mut hand.leads_due) {
            frame.leads = hand.leads.news(&self.parts.leadership);
        }
        let mut bytes = 0;
        while let Some(held) = hand.ready.front() {
            let size = wire_bytes(&held.outgoing.message);
            if !frame.messages.is_empty() && bytes + size > self.parts.options.frame_bytes {
                break;
            }
            let Some(held) = hand.ready.pop_front() else { break };
            hand.ready_bytes = hand.ready_bytes.saturating_sub(size);
            self.outbox.gone(1, held.came);
            let group = held.outgoing.message.group;
            match message_to_pb(held.outgoing.message) {
                Ok(message) => {
                    bytes += size;
                    frame.messages.push(message);
                }
                Err(error) => {
                    counters.dropped.one();
                    complaint.tell(self, group, &error.to_string());
                }
            }
        }
        if frame.messages.is_empty() && frame.leads.is_empty() {
            return None;
        }
        counters.frames.one();
        counters.messages.add(frame.messages.len() as u64);
        counters.bytes.add(prost::Message::encoded_len(&frame) as u64);
        Some(frame)
    }

    fn drop_unread(&self, unread: Unread, complaint: &mut Complaint) {
        self.outbox.gone(1, unread.came);
        self.outbox.counters.dropped.one();
        complaint.tell(self, unread.group, &unread.reason);
    }
}

impl Hand {
    fn push(&mut self, held: Held) {
        self.ready_bytes += wire_bytes(&held.outgoing.message);
        self.ready.push_back(held);
    }
}

/// What the log is told of dropped messages, now and then.
struct Complaint {
    told: Option<Duration>,
    untold: u64,
}

impl Complaint {
    fn tell(&mut self, link: &Link, group: GroupId, reason: &str) {
        self.untold += 1;
        let now = link.clock.monotonic();
        if self.told.is_none_or(|told| now.saturating_sub(told) >= TELL_INTERVAL) {
            warn!(link.logger, "messages to a peer are dropped"; "messages" => self.untold,
                "group" => %group, "last" => reason);
            (self.told, self.untold) = (Some(now), 0);
        }
    }
}
