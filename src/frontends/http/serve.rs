//! Serves the HTTP port on the current thread's runtime, from a bound socket to the last goodbye.

use super::door::{self, Client};
use super::error::Mistake;
use super::{book, error, health, measured, observe, records};
use crate::actors::observer::ObserveApi;
use crate::actors::readiness::{NodeInfo, Readiness};
use crate::actors::topics::TopicsApi;
use crate::frontends::access::Door;
use crate::frontends::calls::Calls;
use crate::frontends::counted::Counted;
use crate::frontends::drain::Drain;
use crate::frontends::forward::Forwarder;
use crate::frontends::handshake::Secured;
use crate::frontends::intake::Intake;
use crate::frontends::listener::{Admitted, ConnectionCounters, Listener};
use crate::frontends::route::Route;
use crate::frontends::stream::Stream;
use crate::frontends::unsent::{Taker, Unsent};
use crate::guards::tls::{ExpectedServer, Tls};
use crate::model::Clock;
use crate::observe::metrics::{Measure, Metrics, Protocol};
use crate::observe::{Complaints, Instruments};
use axum::Router;
use axum::response::Response;
use axum::routing::{any, get};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use slog::{Logger, debug};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tower::{Service, ServiceExt};

/// Read of a connection at a time, and the most that a request's head may have (unit: bytes). Each
/// connection that sends a large body holds so much beside what is counted of it.
const READ_BYTES: usize = 64 << 10;

/// Limits of the HTTP port.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Connections open at once; where more come those give way that are not used, or they are closed.
    pub connections_max: usize,
    /// What may be half-way in.
    pub intake: Intake,
    /// The largest request body.
    pub body_bytes_max: usize,
    /// Pass on to its leader what another node leads.
    pub forward: bool,
    /// How long a client may take to send a request's head; also how long it may stay silent
    /// between two requests.
    pub header_read_max: Duration,
    /// How long a new connection may take for its handshake.
    pub handshake_max: Duration,
    /// How long a connection may stay after the certificates it was made with are replaced.
    pub rotation_grace: Duration,
    /// How long a request may take, the reading of its body and any waiting included.
    pub request_deadline: Duration,
    /// Records in one answer where the client does not say.
    pub records_default: usize,
    /// Records in one answer whatever the client says.
    pub records_max: usize,
    /// Payload in one answer where the client does not say.
    pub answer_bytes_default: usize,
    /// Payload in one answer whatever the client says; a single larger record is still sent.
    pub answer_bytes_max: usize,
    /// How long open requests may take to finish after the drain began.
    pub grace: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            intake: Intake::default(),
            body_bytes_max: 16 << 20,
            forward: true,
            header_read_max: Duration::from_secs(30),
            handshake_max: Duration::from_secs(10),
            rotation_grace: Duration::from_secs(30),
            request_deadline: Duration::from_secs(30),
            records_default: 100,
            records_max: 10_000,
            answer_bytes_default: 1 << 20,
            answer_bytes_max: 2 << 20,
            grace: Duration::from_secs(10),
        }
    }
}

/// The HTTP front end of a node.
pub struct HttpFrontend<T> {
    /// Where records go and come from.
    pub topics: T,
    /// Who this node says it is.
    pub node: Arc<NodeInfo>,
    /// How its parts are.
    pub readiness: Arc<dyn Readiness>,
    /// Stamps records that bring no time.
    pub clock: Arc<dyn Clock>,
    /// What clients may ask of it.
    pub limits: HttpLimits,
    /// Counts connections.
    pub counters: Arc<ConnectionCounters>,
    /// Where clients' mistakes are noted.
    pub complaints: Arc<Complaints>,
    /// The inside of the node; without it the port shows only records.
    pub observer: Option<Arc<dyn ObserveApi>>,
    /// Lets pass who may.
    pub door: Arc<Door>,
    /// Counts requests and traces them.
    pub instruments: Instruments,
    /// What `/metrics` shows.
    pub measure: Arc<dyn Measure>,
    /// What it shows and trusts; without it nothing is encrypted and nobody is asked who they are.
    pub tls: Option<Arc<Tls>>,
    /// Where it tells what happens.
    pub logger: Logger,
}

/// What the handlers know.
pub struct App<T> {
    pub route: Route<T>,
    pub node: Arc<NodeInfo>,
    pub readiness: Arc<dyn Readiness>,
    pub clock: Arc<dyn Clock>,
    pub limits: HttpLimits,
    pub observer: Option<Arc<dyn ObserveApi>>,
    pub drain: Drain,
    pub calls: Arc<Calls>,
    pub measure: Arc<dyn Measure>,
    pub unsent: Unsent,
}

impl<T: TopicsApi> HttpFrontend<T> {
    /// Serves connections until the drain begins; then readiness says so, no connection takes
    /// another request, and what is under way may finish within the grace time. Dropped, it
    /// closes everything at once.
    ///
    /// # Errors
    /// When the socket cannot be used with the runtime.
    pub async fn serve(self, socket: std::net::TcpListener, drain: Drain) -> io::Result<()> {
        let listener = Listener {
            socket,
            connections_max: self.limits.connections_max,
            kept: 0,
            grace: self.limits.grace,
            counters: self.counters,
            clock: Arc::clone(&self.clock),
            logger: self.logger.clone(),
            drain: drain.clone(),
            secured: self.tls.clone().map(|tls| {
                Arc::new(Secured {
                    tls,
                    protocol: Protocol::Http,
                    handshake_max: self.limits.handshake_max,
                    rotation_grace: self.limits.rotation_grace,
                    clock: Arc::clone(&self.clock),
                })
            }),
        };
        let header_read_max = self.limits.header_read_max;
        let metrics = Arc::clone(&self.instruments.metrics);
        let tls = self.tls.map(|tls| tls.client().expecting(ExpectedServer::Node));
        let request_max = 2 * self.limits.body_bytes_max;
        let proof = self.door.proof().clone();
        let forwarder = self.limits.forward.then(|| Forwarder::new(request_max, tls, proof));
        let app = App {
            route: Route { topics: self.topics, forwarder },
            node: self.node,
            readiness: self.readiness,
            clock: self.clock,
            limits: self.limits,
            observer: self.observer,
            drain: drain.clone(),
            calls: Arc::new(Calls::new(self.instruments, "node/frontends/http")),
            measure: self.measure,
            unsent: Unsent::default(),
        };
        let router = router(self.door, app);
        let (logger, complaints) = (self.logger, self.complaints);
        listener
            .run(|Admitted { stream, peer, caller, drain, seat, .. }| {
                let taker = seat.taker().clone();
                let client = Client { peer, caller, seat };
                let router = noting(router.clone(), client, Arc::clone(&complaints));
                let logger = logger.clone();
                let complaints = Arc::clone(&complaints);
                let stream = Accepted { stream, metrics: Arc::clone(&metrics) };
                async move {
                    let served =
                        serve_connection(stream, router, header_read_max, drain, taker).await;
                    if let Err(error) = served {
                        if error.is_parse() {
                            complaints.note(peer, &format!("it does not speak HTTP/1.1: {error}"));
                        }
                        debug!(logger, "connection ended"; "peer" => %peer, "error" => %error);
                    }
                }
            })
            .await
    }
}

/// A connection, and where its bytes are counted.
struct Accepted {
    stream: Stream,
    metrics: Arc<Metrics>,
}

fn router<T: TopicsApi>(door: Arc<Door>, app: App<T>) -> Router {
    let admit = axum::middleware::from_fn_with_state(door, door::admit);
    let note = axum::middleware::from_fn_with_state(Arc::clone(&app.calls), measured::note);
    Router::new()
        .route("/", any(book::handle::<T>))
        .route("/metrics", get(measured::metrics::<T>))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz::<T>))
        .route("/observe/tree", get(observe::tree::<T>))
        .route("/observe/explain", get(observe::explain::<T>))
        .route(
            "/v1/topics/{topic}/records",
            get(records::read::<T>).post(records::append::<T>).fallback(error::method_not_allowed),
        )
        .fallback(error::no_such_path)
        .layer(admit)
        .layer(note)
        .with_state(Arc::new(app))
}

/// The router for one client, who is made known to it, and whose mistakes are noted.
fn noting(
    router: Router,
    client: Client,
    complaints: Arc<Complaints>,
) -> impl Service<http::Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone
{
    let router =
        ServiceExt::<http::Request<Incoming>>::map_response(router, move |reply: Response| {
            if let Some(Mistake(reason)) = reply.extensions().get() {
                complaints.note(client.peer, reason);
            }
            reply
        });
    ServiceExt::<http::Request<Incoming>>::map_request(
        router,
        move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(client.clone());
            request
        },
    )
}

async fn serve_connection<R>(
    Accepted { stream, metrics }: Accepted,
    router: R,
    header_read_max: Duration,
    drain: Drain,
    taker: Taker,
) -> Result<(), hyper::Error>
where
    R: Service<http::Request<Incoming>, Response = Response, Error = Infallible> + Clone,
{
    // Within TLS the first request may have been read with the end of the handshake.
    if let Stream::Plain(tcp) = &stream {
        tokio::select! {
            // The first bytes of a request, or the client's goodbye: hyper sees which.
            _ = tokio::time::timeout(header_read_max, tcp.readable()) => {}
            // It has asked for nothing yet: there is nothing to wait for.
            () = drain.clone().begun() => return Ok(()),
        }
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_read_max).max_buf_size(READ_BYTES);
    let service = TowerToHyperService::new(router);
    let stream = Counted::new(stream, metrics, Protocol::Http);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut drain = drain.poller();
    let mut told = false;
    poll_fn(|cx| {
        if !told && drain.poll_begun(cx) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        // It did not read what it asked for, and others needed the room.
        if taker.poll_gave_way(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        connection.as_mut().poll(cx)
    })
    .await
}
