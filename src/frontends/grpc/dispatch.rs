//! Finds the service that a call's path names. The two log services are reached without a box
//! or a routing table; the others are not on a hot path.

use super::ahead::{Ahead, Pace, Taken};
use super::methods;
use super::places::{AllTaken, OwnPlaces, Place, Places};
use super::refusal::Refusal;
use super::reply::{self, ReplyBody, Unread, rewritten};
use super::stalled::Whose;
use super::whole::Whole;
use crate::access::Denied;
use crate::frontends::access::{Door, Needed};
use crate::frontends::calls::{Caller, Calls, OpenCall};
use crate::frontends::forward::is_forwarded_call;
use crate::frontends::intake::{self, Intake, MessageMax, NotTakenIn};
use crate::frontends::seats::{Seat, Use};
use crate::frontends::unsent::Unsent;
use crate::model;
use crate::observe::Complaints;
use crate::observe::metrics::{Method, Outcome, Protocol};
use crate::wire::pb::duramen::v1::log_server as duramen;
use crate::wire::pb::log::v1::log_server as book;
use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::Status;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

/// The largest message of all other methods: gRPC's default, which the book's clients count on.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// What other nodes call.
const PEER_SERVICE: &str = "duramen.v1.Peer";
/// What nodes call for clients of theirs.
const PASSED_ON: &str = "/duramen.v1.Log/Produce";

type Body = Whole<MapErr<intake::Incoming<Taken<Incoming>>, fn(NotTakenIn) -> Status>>;
type Call = http::Request<Body>;
type Reply = http::Response<tonic::body::Body>;
type NamedServices = Vec<(&'static str, BoxCloneSyncService<Call, Reply, Infallible>)>;

/// How much of requests and answers lies in memory on the port, and for how long.
#[derive(Debug, Clone)]
pub struct Room {
    /// Requests of clients that are not whole.
    pub of_clients: Intake,
    /// Those of nodes, apart: clients must not push them out.
    pub of_nodes: Intake,
    /// How long a request may take to come in.
    pub time: Duration,
    /// How large a message of `duramen.v1.Log` may be.
    pub bytes_max: MessageMax,
    /// Answers that are not read.
    pub unsent: Unsent,
    /// How fast connections of clients are read …
    pub pace: Pace,
    /// … and those of nodes that have proved to be some, apart.
    pub pace_of_nodes: Pace,
    /// Calls of clients that are open.
    pub calls: Places,
    /// Those of nodes, apart.
    pub calls_of_nodes: Places,
}

impl Room {
    /// Those of a new connection.
    fn places(&self) -> [OwnPlaces; 2] {
        [self.calls.of_connection(), self.calls_of_nodes.of_connection()]
    }
}

/// All services of the port, as one service of a connection.
pub struct Dispatch<B: book::Log, D: duramen::Log> {
    book: book::LogServer<B>,
    duramen: duramen::LogServer<D>,
    others: Arc<NamedServices>,
    calls: Arc<Calls>,
    door: Arc<Door>,
    room: Room,
    /// Of this connection, for calls of clients and of nodes.
    places: [OwnPlaces; 2],
    /// What is read of it.
    ahead: Ahead,
    /// Whose connection this is.
    client: Option<Client>,
    /// Set on a connection that is kept for other nodes.
    kept: Option<KeptForPeers>,
}

/// A connection beyond the limit for clients: only other nodes are served on it, so that clients,
/// however many there are, lock no node out. Becomes true when somebody else calls on it.
pub type KeptForPeers = Arc<AtomicBool>;

/// A client, and where its mistakes are noted.
#[derive(Debug, Clone)]
pub struct Client {
    /// From where.
    pub peer: SocketAddr,
    /// Who, as far as they have proved it.
    pub caller: model::Caller,
    /// Where.
    pub complaints: Arc<Complaints>,
    /// Counts the calls, and takes the answers.
    pub seat: Seat,
}

impl Client {
    /// Whether it has proved to be another node.
    pub fn is_node(&self) -> bool {
        self.caller.peer.is_some()
    }
}

impl<B: book::Log, D: duramen::Log> Clone for Dispatch<B, D> {
    fn clone(&self) -> Self {
        Self {
            book: self.book.clone(),
            duramen: self.duramen.clone(),
            others: Arc::clone(&self.others),
            client: self.client.clone(),
            calls: Arc::clone(&self.calls),
            door: Arc::clone(&self.door),
            room: self.room.clone(),
            places: self.places.clone(),
            ahead: self.ahead.clone(),
            kept: self.kept.clone(),
        }
    }
}

impl<B: book::Log, D: duramen::Log> Dispatch<B, D> {
    /// The two log services.
    pub fn new(
        book: book::LogServer<B>,
        duramen: duramen::LogServer<D>,
        calls: Arc<Calls>,
        door: Arc<Door>,
        room: Room,
    ) -> Self {
        let (others, places) = (Arc::default(), room.places());
        let ahead = room.pace.of_connection();
        Self { book, duramen, others, calls, door, room, places, ahead, client: None, kept: None }
    }

    /// The same services for one client, on a connection that may be kept for other nodes.
    #[must_use]
    pub fn of(&self, client: Client, kept: Option<KeptForPeers>) -> Self {
        let Room { pace, pace_of_nodes, .. } = &self.room;
        let ahead = if client.is_node() { pace_of_nodes } else { pace }.of_connection();
        Self { client: Some(client), ahead, kept, places: self.room.places(), ..self.clone() }
    }

    /// What is read of the connection.
    pub fn ahead(&self) -> Ahead {
        self.ahead.clone()
    }

    /// Adds a service that is called now and then.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Call, Response = Reply, Error = Infallible> + NamedService,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let service = BoxCloneSyncService::new(service);
        Arc::make_mut(&mut self.others).push((S::NAME, service));
        self
    }
}

impl<B: book::Log, D: duramen::Log> hyper::service::Service<http::Request<Incoming>>
    for Dispatch<B, D>
{
    type Response = http::Response<ReplyBody>;
    type Error = Infallible;
    type Future = Replying;

    fn call(&self, call: http::Request<Incoming>) -> Replying {
        let needed = methods::needed(call.uri().path());
        let mut call = self.taken_in(call, needed);
        if let Some(client) = &self.client {
            call.extensions_mut().insert(client.caller.clone());
            call.extensions_mut().insert(client.clone());
        }
        let open = self.note(&mut call);
        let seat = self.client.as_ref().map(|client| &client.seat);
        let taker = seat.map(|seat| seat.taker().clone()).unwrap_or_default();
        let mut replying = Replying {
            reply: unimplemented(),
            client: self.client.clone(),
            open,
            place: None,
            used: None,
            streams: None,
            unread: (self.room.unsent.clone(), taker),
        };
        let uri = call.uri().clone();
        let service = uri.path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let name = service.map(|(name, _)| name);
        if let Some(kept) = &self.kept
            && name != Some(PEER_SERVICE)
        {
            kept.store(true, Ordering::Release);
            replying.reply = crowded();
            return replying;
        }
        match self.place(needed) {
            Ok(place) => replying.place = Some(place),
            Err(taken) => {
                replying.reply = refused(taken);
                return replying;
            }
        }
        let used = self.client.as_ref().map(|client| client.seat.call());
        if let Err(denied) = self.admit(&mut call, needed) {
            replying.reply = refused(denied);
            return replying;
        }
        // Whoever only looks whether the node is there does not need a connection.
        replying.used = if needed == Needed::Nothing { used } else { used.map(Use::let_in) };
        if methods::is_stream(uri.path()) {
            let is_of_node = needed == Needed::Node;
            replying.streams = Some(if is_of_node { Whose::Node } else { Whose::Client });
        }
        match name {
            Some(<duramen::LogServer<D> as NamedService>::NAME) => {
                replying.reply = self.duramen.clone().call(call);
            }
            Some(<book::LogServer<B> as NamedService>::NAME) => {
                replying.reply = self.book.clone().call(call);
            }
            Some(name) => {
                if let Some((_, service)) = self.others.iter().find(|(known, _)| *known == name) {
                    replying.reply = Box::pin(service.clone().oneshot(call));
                    // What operators and probes mistype says nothing of a client of the log.
                    replying.client = None;
                }
            }
            None => {}
        }
        replying
    }
}

impl<B: book::Log, D: duramen::Log> Dispatch<B, D> {
    /// Bounds what comes in of a call.
    fn taken_in(&self, call: http::Request<Incoming>, needed: Needed) -> Call {
        let (head, body) = call.into_parts();
        let (path, room) = (head.uri.path(), &self.room);
        let (intake, bytes_max) = match needed {
            Needed::Node => (&room.of_nodes, MessageMax::Other),
            _ if path.starts_with("/duramen.v1.Log/") => (&room.of_clients, room.bytes_max),
            _ => (&room.of_clients, MessageMax::Fixed(MESSAGE_BYTES_MAX)),
        };
        let body = intake.of_call(
            self.ahead.of_call(body),
            room.time,
            bytes_max,
            methods::is_stream(path),
        );
        let status: fn(NotTakenIn) -> Status = |error| match error {
            NotTakenIn::Broken(error) => Status::from_error(error),
            told => Refusal::from(told).into(),
        };
        http::Request::from_parts(head, Whole::new(body.map_err(status)))
    }

    /// Takes a place for a call.
    fn place(&self, needed: Needed) -> Result<Place, AllTaken> {
        let [of_clients, of_nodes] = &self.places;
        if needed == Needed::Node { of_nodes.take() } else { of_clients.take() }
    }

    /// Finds out who calls, and whether they may. What is about a topic its handler finds out.
    fn admit(&self, call: &mut Call, needed: Needed) -> Result<(), Denied> {
        // Only in the process itself is there a call without a connection.
        let Some(client) = &self.client else { return Ok(()) };
        let path = call.uri().path();
        if needed == Needed::Nothing {
            return Ok(());
        }
        let asker =
            self.door.ask(call.headers(), &client.caller, client.peer, (Protocol::Grpc, path))?;
        if !is_for_nodes(needed, call) {
            asker.is_client()?;
        }
        let is_of_the_book = path.starts_with("/log.v1.");
        let admitted = asker.has(needed).map_err(|denied| match is_of_the_book {
            true => denied.of_the_book(),
            false => denied,
        });
        if !methods::is_stream(path) && !matches!(needed, Needed::Topic(_)) {
            let again = asker.clone();
            call.body_mut().judge_again(again, needed);
        }
        call.extensions_mut().insert(asker);
        admitted
    }

    /// Gives a call its number and its place in a trace. The requests of a produce stream are
    /// begun where they are read.
    fn note(&self, call: &mut Call) -> Option<OpenCall> {
        let method = Method::of_call(call.uri().path());
        let caller = Caller::of(call.headers());
        if method.counts_requests() {
            call.extensions_mut().insert(caller);
            return None;
        }
        let open = self.calls.open(method, caller);
        call.extensions_mut().insert(open.call());
        Some(open)
    }
}

/// Whether a node may make this call as a node: also to pass on what a client asked of it.
fn is_for_nodes<B>(needed: Needed, call: &http::Request<B>) -> bool {
    needed == Needed::Node || (call.uri().path() == PASSED_ON && is_forwarded_call(call.headers()))
}

fn refused(why: impl Into<Refusal>) -> BoxFuture<Reply, Infallible> {
    Box::pin(std::future::ready(Ok(Status::from(why.into()).into_http())))
}

fn crowded() -> BoxFuture<Reply, Infallible> {
    let message = "too many connections are open; try another node, or again later";
    Box::pin(std::future::ready(Ok(Status::resource_exhausted(message).into_http())))
}

fn unimplemented() -> BoxFuture<Reply, Infallible> {
    let message = "this port has no such service; ask its reflection service for the list";
    Box::pin(std::future::ready(Ok(Status::unimplemented(message).into_http())))
}

/// A reply on its way through [`rewritten`].
pub struct Replying {
    reply: BoxFuture<Reply, Infallible>,
    client: Option<Client>,
    /// Of a call that is counted as one; until it is answered.
    open: Option<OpenCall>,
    /// Of a call that was not refused; until its answer is at its end.
    place: Option<Place>,
    used: Option<Use>,
    /// Of a stream of requests: whose it is.
    streams: Option<Whose>,
    unread: Unread,
}

impl Future for Replying {
    type Output = Result<http::Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(Ok(reply)) = self.reply.as_mut().poll(cx) else { return Poll::Pending };
        if let Some(open) = self.open.take() {
            // A call that is refused at once has its status in the head.
            let status = Status::from_header_map(reply.headers());
            let outcome = status.as_ref().map_or(Outcome::Ok, reply::outcome_of);
            open.finish(outcome, || {
                status.map_or_else(String::new, |status| status.message().to_owned())
            });
        }
        let held = (self.place.take(), self.used.take());
        Poll::Ready(Ok(rewritten(reply, &self.client, &self.unread, held, self.streams)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_passes_on_appends_and_nothing_else_that_clients_ask_for() {
        let is_for_nodes = |path: &'static str, forwarded: bool| {
            let call = http::Request::builder().uri(path);
            let call = if forwarded { call.header("duramen-forwarded", "1") } else { call };
            super::is_for_nodes(methods::needed(path), &call.body(()).unwrap())
        };
        assert!(is_for_nodes("/duramen.v1.Peer/Exchange", false));
        assert!(is_for_nodes("/duramen.v1.Log/Produce", true));
        assert!(!is_for_nodes("/duramen.v1.Log/Produce", false));
        for path in
            ["/duramen.v1.Log/Fetch", "/duramen.v1.Admin/DeleteTopic", "/log.v1.Log/Produce"]
        {
            assert!(!is_for_nodes(path, true), "{path}");
        }
    }
}
