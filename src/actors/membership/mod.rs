//! The membership actor: gossip with the other nodes, and what it shows of them on the
//! [`PresenceBoard`]. It hints; who is a member is the catalogue's affair, and nothing is decided here.
//!
//! It keeps reaching out to those it misses: where any node gossips (settings), members of the
//! catalogue that are not seen, and whoever announces himself in the local network. What it cannot
//! do (a port that is taken, a peer that does not answer) it tries again, ever more seldom: a node
//! serves its records without gossip.

mod discovery;
mod frame;
mod gate;
mod gossip;
mod meta;
mod panics;
mod transport;

#[cfg(test)]
mod tests;

use super::presence::{Presence, PresenceBoard, Present, Seen, Told, view};
use crate::cluster::{Catalogue, NodeState};
use crate::model::{Disposition, NodeId};
use crate::observe::metrics::Metrics;
use crate::supervision::{Backoff, ChildSpec, Restart, Seat, mail, receives};
use actix::prelude::*;
use discovery::Found;
use gate::Gate;
pub use gossip::Pace;
use gossip::{Gossip, Sighting};
use meta::Meta;
pub use panics::count as panics_counted;
use slog::{debug, info, warn};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Gossip waits so long, so that the way of the first record is not held up.
const BEGIN_AFTER: Duration = Duration::from_millis(20);
/// Addresses tried in one attempt; the others have their turn in the next one.
const TRIED_AT_ONCE: usize = 3;
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Nodes shown; gossip of more is not what this program is for.
const PRESENT_MAX: usize = 1024;
const FOUND_MAX: usize = 8;
const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);
/// Between two announcements that are read: whoever is on the network may send them, as fast as it can.
const HEARD_PAUSE: Duration = Duration::from_millis(20);

/// Restart policy: always, ever more seldom. It holds no state that matters.
pub fn spec() -> ChildSpec {
    ChildSpec {
        restart: Restart::Permanent,
        backoff: Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30),
            jitter: 0.2,
        },
        ..ChildSpec::new("gossip")
    }
}

/// How a node gossips.
#[derive(Clone)]
pub struct MembershipOptions {
    /// Where it listens, by TCP and UDP; port 0 takes a free one.
    pub addr: SocketAddr,
    /// What it tells others; `None`: where it listens.
    pub advertise: Option<SocketAddr>,
    /// `host:port` of nodes that may know others.
    pub join: Vec<String>,
    /// Encrypts, and keeps out who does not have it.
    pub key: Option<[u8; 32]>,
    /// Where it looks for others while it knows nobody.
    pub multicast: Option<SocketAddr>,
    /// How fast.
    pub pace: Pace,
    /// Connections that are read at once, and as many that are answered.
    pub connections_max: usize,
    /// Largest message on a connection (unit: bytes).
    pub message_bytes_max: usize,
    /// How long a message on a connection may take.
    pub message_timeout: Duration,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
    /// Counts panics of the library's own tasks: when there are more, all begins anew.
    pub panics: fn() -> u64,
}

/// Without the key.
impl std::fmt::Debug for MembershipOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { addr, join, key, .. } = self;
        write!(f, "MembershipOptions({addr}, join {join:?}, encrypted: {})", key.is_some())
    }
}

/// What a node says of itself that does not change while it runs. Its number and its cluster are
/// in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The identity of its data directory.
    pub uuid: String,
    /// What people call it.
    pub name: String,
    /// Where clients and nodes reach it.
    pub rpc_addr: String,
    /// The newest protocol that it speaks.
    pub protocol_max: u32,
    /// As `rack`.
    pub labels: BTreeMap<String, String>,
    /// Its cluster and number by its directory: of account until the catalogue is there.
    pub known: Option<(String, NodeId)>,
}

/// Gossip, or the catalogue, has news. At most one is under way.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Noticed;

/// Somebody looks for others in the network.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Announced(Found);

mail!(Noticed, Announced);
receives!(MembershipActor: Noticed, Announced);

/// The actor.
#[derive(Debug)]
pub struct MembershipActor {
    seat: Seat<Self>,
    options: Arc<MembershipOptions>,
    me: Me,
    board: PresenceBoard,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    gossip: Option<Arc<Gossip>>,
    /// What was told of this node last.
    told: Meta,
    is_noticed: Arc<AtomicBool>,
    /// Read by whoever announces this node.
    is_alone: Arc<AtomicBool>,
    found: Vec<Found>,
    attempt: Attempt,
    /// Nodes whose meta data were complained of.
    ignored: BTreeSet<String>,
    panics_before: u64,
    ending: Ending,
}

/// The attempt to reach somebody, or to begin at all.
#[derive(Debug, Default)]
struct Attempt {
    is_under_way: bool,
    /// On the tree's clock.
    not_before: Duration,
    /// Zero after success.
    pause: Duration,
    /// How many there were: addresses take turns.
    count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Not,
    Leaving,
    Gone,
}

impl MembershipActor {
    /// The factory. This life's generation is the wall clock's, or more than what others remember.
    pub fn new(
        seat: Seat<Self>,
        options: Arc<MembershipOptions>,
        me: Me,
        board: PresenceBoard,
        catalogue: watch::Receiver<Arc<Catalogue>>,
    ) -> Self {
        panics::watch();
        let told = Meta {
            generation: seat.clock().wall().0.unsigned_abs(),
            name: me.name.clone(),
            rpc_addr: me.rpc_addr.clone(),
            protocol_max: me.protocol_max,
            labels: me.labels.clone(),
            ..Meta::default()
        };
        Self {
            seat,
            me,
            board,
            catalogue,
            gossip: None,
            told,
            is_noticed: Arc::default(),
            is_alone: Arc::new(AtomicBool::new(true)),
            found: Vec::new(),
            attempt: Attempt::default(),
            ignored: BTreeSet::new(),
            panics_before: (options.panics)(),
            options,
            ending: Ending::Not,
        }
    }

    fn now(&self) -> Duration {
        self.seat.clock().monotonic()
    }

    /// What gossip calls: one message, however much there is to notice.
    fn noticing(&self, context: &Context<Self>) -> Box<dyn Fn() + Send + Sync> {
        let (line, is_noticed) = (self.seat.line(context), Arc::clone(&self.is_noticed));
        Box::new(move || {
            if !is_noticed.swap(true, Ordering::AcqRel) {
                line.complete(Noticed);
            }
        })
    }

    /// Brings what is told of this node up to date; true where that changed.
    fn renew(&mut self) -> bool {
        let heard = self.gossip.as_ref().map_or(0, |gossip| gossip.generation_heard());
        let catalogue = self.catalogue.borrow_and_update().clone();
        let mine = catalogue
            .nodes
            .iter()
            .find(|(_, node)| node.uuid == self.me.uuid && node.state != NodeState::Removed);
        let mine = mine.map(|(number, _)| (catalogue.cluster_id.clone(), *number));
        // The others must find a member before it can hear the catalogue from them.
        let known = self.me.known.clone().filter(|_| !catalogue.is_founded());
        let mut new = self.told.clone();
        (new.cluster_id, new.node) =
            mine.or(known).map_or_else(Default::default, |(cluster, number)| (cluster, number.0));
        if heard > new.generation {
            (new.generation, new.version) = (heard + 1, 0);
        }
        let is_news = new != self.told || new.version == 0;
        if is_news {
            new.version += 1;
            self.told = new;
        }
        is_news
    }

    fn begin(&mut self, context: &mut Context<Self>) {
        self.renew();
        self.attempt.is_under_way = true;
        let (options, uuid) = (Arc::clone(&self.options), self.me.uuid.clone());
        let (meta, noticed) = (self.told.encode_bounded(), self.noticing(context));
        let (clock, logger) = (Arc::clone(self.seat.clock()), self.seat.logger().clone());
        let gate = Gate::new(&options, self.catalogue.clone(), clock, logger);
        let starting = async move { Gossip::start(&options, uuid, gate, meta, noticed).await };
        context.spawn(starting.into_actor(self).map(|started, actor, context| match started {
            Ok(gossip) => actor.began(gossip, context),
            Err(error) => {
                let (addr, logger) = (actor.options.addr, actor.seat.logger());
                if actor.attempt.pause.is_zero() {
                    warn!(logger, "cannot gossip, and tries again"; "addr" => %addr,
                        "error" => error, "advice" => "set gossip.addr to an address that is free");
                } else {
                    debug!(logger, "still cannot gossip"; "addr" => %addr, "error" => error);
                }
                actor.attempted(false);
            }
        }));
    }

    fn began(&mut self, gossip: Gossip, context: &mut Context<Self>) {
        info!(self.seat.logger(), "gossips"; "addr" => %gossip.addr(),
            "encrypted" => self.options.key.is_some());
        let gossip = Arc::new(gossip);
        self.gossip = Some(Arc::clone(&gossip));
        self.attempted(true);
        self.attempt.not_before = Duration::ZERO;
        if let Some(group) = self.options.multicast {
            self.discover(group, gossip.addr(), context);
        }
        self.survey(context);
    }

    fn discover(&self, group: SocketAddr, gossip_addr: SocketAddr, context: &mut Context<Self>) {
        let logger = self.seat.logger().clone();
        let socket = match discovery::open(group, gossip_addr) {
            Ok(socket) => socket,
            Err(error) => {
                warn!(logger, "cannot look for nodes by multicast"; "group" => %group,
                    "error" => %error, "advice" => "name one of them with --join instead");
                return;
            }
        };
        let me = Found { uuid: self.me.uuid.clone(), gossip_addr };
        let (to_me, is_alone) = (self.seat.me().clone(), Arc::clone(&self.is_alone));
        let looking = async move {
            let mut every = tokio::time::interval(ANNOUNCE_EVERY);
            let mut buffer = [0; discovery::BYTES_MAX];
            loop {
                tokio::select! {
                    _ = every.tick() => if is_alone.load(Ordering::Acquire) {
                        let said = discovery::announcement(&me);
                        if let Err(error) = socket.send_to(said.as_bytes(), group).await {
                            debug!(logger, "nobody heard the announcement"; "error" => %error);
                        }
                    },
                    heard = socket.recv_from(&mut buffer) => {
                        let found = heard.ok()
                            .and_then(|(len, from)| discovery::heard(&buffer[..len], from))
                            .filter(|found| found.uuid != me.uuid);
                        // A mailbox that is full refuses, and counts it.
                        if let Some(Err(refused)) = found.map(|found| to_me.tell(Announced(found)))
                        {
                            debug!(logger, "an announcement was missed"; "refused" => %refused);
                        }
                        tokio::time::sleep(HEARD_PAUSE).await;
                    }
                }
            }
        };
        context.spawn(looking.into_actor(self));
    }

    /// Reads who is there, and what they say.
    fn survey(&mut self, context: &mut Context<Self>) {
        // Who leaves sees the others go.
        let gossip = self.gossip.clone().filter(|_| self.ending == Ending::Not);
        let Some(gossip) = gossip else { return };
        let surveying = async move { gossip.survey().await };
        context.spawn(surveying.into_actor(self).map(|sightings, actor, context| {
            actor.learn(sightings);
            actor.look(context);
        }));
    }

    fn learn(&mut self, sightings: Vec<Sighting>) {
        let (now, known) = (self.now(), self.board.now());
        let mut presence = Presence::new();
        let own = self.told.cluster_id.clone();
        for sighting in sightings {
            match Meta::decode_checked(&sighting.meta) {
                Ok(meta) if meta.is_foreign_to(&own) => self.ignore(&sighting, meta.foreign(&own)),
                Ok(meta) => {
                    let old = known.get(&sighting.uuid);
                    let present = present(sighting, meta, old, now);
                    presence.insert(present.uuid.clone(), present);
                }
                Err(why) => self.ignore(&sighting, why),
            }
        }
        while presence.len() > PRESENT_MAX {
            let gone = presence.values().find(|present| present.seen > Seen::Suspect);
            let excess = gone.or(presence.values().next()).map(|present| present.uuid.clone());
            presence.retain(|uuid, _| Some(uuid) != excess.as_ref());
        }
        self.tell_of_changes(&known, &presence);
        let others = presence.values().filter(|present| present.uuid != self.me.uuid);
        let is_alone = !others.clone().any(|present| present.seen == Seen::Alive);
        self.is_alone.store(is_alone, Ordering::Release);
        self.board.tell(presence);
    }

    fn ignore(&mut self, sighting: &Sighting, why: impl std::fmt::Display) {
        if self.ignored.len() < PRESENT_MAX && self.ignored.insert(sighting.uuid.clone()) {
            warn!(self.seat.logger(), "what a node tells of itself is ignored";
                "gossip_addr" => %sighting.gossip_addr, "bytes" => sighting.meta.len(),
                "error" => %why);
        }
    }

    fn tell_of_changes(&self, known: &Presence, presence: &Presence) {
        for present in presence.values().filter(|present| present.uuid != self.me.uuid) {
            let before = known.get(&present.uuid);
            let generation = |present: &Present| (present.seen, present.told.generation);
            if before.map(generation) == Some(generation(present)) {
                continue;
            }
            let what = match (before, present.seen) {
                (_, Seen::Alive | Seen::Suspect) => "member seen",
                (None, _) => continue,
                (Some(_), Seen::Dead) => "member is gone",
                (Some(_), Seen::Left) => "member has left",
            };
            let node = present.node.map_or_else(|| "none".into(), |node| node.to_string());
            info!(self.seat.logger(), "{what}"; "name" => &present.name, "node" => node,
                "uuid" => &present.uuid, "gossip_addr" => &present.gossip_addr,
                "rpc_addr" => &present.rpc_addr, "view" => format!("{:08x}", view(presence)));
        }
    }

    /// Whom to reach out to, each once.
    fn missing(&self) -> Vec<String> {
        let presence = self.board.now();
        let is_here = |uuid: &str| presence.get(uuid).is_some_and(|p| p.seen == Seen::Alive);
        let catalogue = self.catalogue.borrow().clone();
        let members = catalogue.nodes.values().filter(|node| {
            node.state != NodeState::Removed && !node.gossip_addr.is_empty() && !is_here(&node.uuid)
        });
        let found = self.found.iter().filter(|found| !is_here(&found.uuid));
        let mut wanted: BTreeSet<String> = members.map(|node| node.gossip_addr.clone()).collect();
        wanted.extend(found.map(|found| found.gossip_addr.to_string()));
        if self.is_alone.load(Ordering::Acquire) {
            wanted.extend(self.options.join.iter().cloned());
            let lost = presence.values().filter(|p| p.uuid != self.me.uuid && p.seen == Seen::Dead);
            wanted.extend(lost.map(|present| present.gossip_addr.clone()));
        }
        if let Some(gossip) = &self.gossip {
            wanted.remove(&gossip.addr().to_string());
        }
        wanted.into_iter().collect()
    }

    /// Sees to it that gossip is at work, and reaches out to whom it misses.
    fn look(&mut self, context: &mut Context<Self>) {
        if (self.options.panics)() != self.panics_before {
            // What it knows of itself can be wrong from here on; leaving would need it.
            self.seat.fail("gossip has panicked within its library", Disposition::RebuildActor);
            self.ending = Ending::Gone;
            return context.stop();
        }
        let is_too_soon = self.attempt.is_under_way || self.now() < self.attempt.not_before;
        if is_too_soon || self.ending != Ending::Not {
            return;
        }
        let Some(gossip) = self.gossip.clone() else { return self.begin(context) };
        let missing = self.missing();
        if missing.is_empty() {
            return;
        }
        self.attempt.is_under_way = true;
        let first = self.attempt.count * TRIED_AT_ONCE % missing.len();
        let turn = missing.iter().cycle().skip(first).take(TRIED_AT_ONCE.min(missing.len()));
        let turn: Vec<String> = turn.cloned().collect();
        let reaching = async move {
            let tried = turn.into_iter().map(|address| {
                let gossip = Arc::clone(&gossip);
                async move { (gossip.reach(&address).await, address) }
            });
            futures_util::future::join_all(tried).await
        };
        context.spawn(reaching.into_actor(self).map(|tried, actor, context| {
            let is_reached = tried.iter().any(|(outcome, _)| outcome.is_ok());
            for (outcome, address) in &tried {
                actor.tell_of_attempt(address, outcome);
            }
            actor.found.retain(|found| {
                let address = found.gossip_addr.to_string();
                !tried.iter().any(|(_, tried)| *tried == address)
            });
            actor.attempted(is_reached);
            actor.refresh(context);
        }));
    }

    fn tell_of_attempt(&self, address: &str, outcome: &Result<(), String>) {
        let logger = self.seat.logger();
        match outcome {
            Ok(()) => info!(logger, "has reached a node"; "gossip_addr" => address),
            // Of many attempts the first one tells.
            Err(error) if self.attempt.pause.is_zero() => {
                warn!(logger, "cannot reach a node, and tries again"; "gossip_addr" => address,
                    "error" => error,
                    "advice" => "is it up, and do both have the same gossip.key?");
            }
            Err(error) => debug!(logger, "cannot reach a node"; "gossip_addr" => address,
                "error" => error),
        }
    }

    fn attempted(&mut self, is_done: bool) {
        let look = self.options.pace.look;
        let pause = if is_done { Duration::ZERO } else { (self.attempt.pause * 2).max(look) };
        let pause = pause.min(PAUSE_MAX);
        let count = self.attempt.count.wrapping_add(1);
        // Nodes that lost each other at the same time do not all come back at the same time.
        let salt = crc32c::crc32c_append(count as u32, self.me.uuid.as_bytes());
        let wait = pause.max(look).mul_f64(0.75 + f64::from(salt % 512) / 1024.0);
        let not_before = self.now() + wait;
        self.attempt = Attempt { is_under_way: false, not_before, pause, count };
    }

    /// Tells others where this node has changed, and reads what others tell.
    fn refresh(&mut self, context: &mut Context<Self>) {
        self.is_noticed.store(false, Ordering::Release);
        let is_here = self.gossip.is_some() && self.ending == Ending::Not;
        let is_news = is_here && self.renew();
        if is_news && let Some(gossip) = self.gossip.clone() {
            let meta = self.told.encode_bounded();
            let telling = async move { gossip.tell(meta).await };
            context.spawn(telling.into_actor(self).map(|told, actor, context| {
                if let Err(error) = told {
                    // Others hear it with the next exchange of everything.
                    debug!(actor.seat.logger(), "a change was not told at once"; "error" => error);
                }
                actor.survey(context);
            }));
        }
        self.survey(context);
    }

    fn leave(&mut self, gossip: Arc<Gossip>, context: &mut Context<Self>) {
        self.ending = Ending::Leaving;
        self.told.leaves = true;
        self.told.version += 1;
        let last = self.told.encode_bounded();
        let leaving = async move {
            let left = gossip.leave(last).await;
            left.and(gossip.end().await)
        };
        context.spawn(leaving.into_actor(self).map(|left, actor, context| {
            if let Err(error) = left {
                debug!(actor.seat.logger(), "the farewell was not heard"; "error" => error);
            }
            (actor.ending, actor.gossip) = (Ending::Gone, None);
            context.stop();
        }));
    }
}

/// How a node is to be shown, after what was known of it.
fn present(sighting: Sighting, meta: Meta, old: Option<&Present>, now: Duration) -> Present {
    let seen = match (sighting.is_alive, meta.leaves) {
        (true, _) => Seen::Alive,
        (false, true) => Seen::Left,
        (false, false) => Seen::Dead,
    };
    let told: Told = meta.told();
    // An older claim comes late, by a way round: what is newer stays while its node is there.
    if let Some(old) = old.filter(|old| old.seen == Seen::Alive && !old.told.yields_to(told)) {
        return Present { seen, ..old.clone() };
    }
    let same = old.filter(|old| old.seen == seen && old.told.generation == told.generation);
    Present {
        uuid: sighting.uuid,
        node: (meta.node > 0).then_some(NodeId(meta.node)),
        cluster_id: meta.cluster_id,
        name: meta.name,
        rpc_addr: meta.rpc_addr,
        gossip_addr: sighting.gossip_addr.to_string(),
        protocol_max: meta.protocol_max,
        labels: meta.labels,
        told,
        seen,
        since: same.map_or(now, |old| old.since),
    }
}

impl Actor for MembershipActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let (mut catalogue, noticed) = (self.catalogue.clone(), self.noticing(context));
        let changes = async move {
            while catalogue.changed().await.is_ok() {
                noticed();
            }
        };
        context.spawn(changes.into_actor(self));
        context.run_later(BEGIN_AFTER, |actor, context| {
            actor.begin(context);
            context.run_interval(actor.options.pace.look, Self::look);
        });
    }

    /// A stop begins the farewell; its end is the stop.
    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        match (self.ending, self.gossip.clone()) {
            (Ending::Not, Some(gossip)) => self.leave(gossip, context),
            (Ending::Leaving, _) => {}
            (Ending::Not, None) | (Ending::Gone, _) => return Running::Stop,
        }
        Running::Continue
    }
}

impl Handler<Noticed> for MembershipActor {
    type Result = ();

    fn handle(&mut self, _: Noticed, context: &mut Self::Context) {
        self.refresh(context);
    }
}

impl Handler<Announced> for MembershipActor {
    type Result = ();

    fn handle(&mut self, Announced(found): Announced, context: &mut Self::Context) {
        let present = self.board.now();
        let is_here = |uuid: &str| present.get(uuid).is_some_and(|p| p.seen == Seen::Alive);
        // Who came by another way is looked for no more.
        self.found.retain(|known| !is_here(&known.uuid));
        let is_here = is_here(&found.uuid);
        let is_known = self.found.iter().any(|known| known.gossip_addr == found.gossip_addr);
        if !is_here && !is_known && self.found.len() < FOUND_MAX {
            info!(self.seat.logger(), "a node looks for others"; "uuid" => &found.uuid,
                "gossip_addr" => %found.gossip_addr);
            self.found.push(found);
        }
        self.look(context);
    }
}
