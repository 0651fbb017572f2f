//! Accepts connections for a front end: so many at most, and a bounded farewell at the end.

use super::drain::Drain;
use super::handshake::{Entrance, LetIn, Secured};
use super::seats::{Room, Seat, Seats};
use super::stream::Stream;
use super::tenure::Tenure;
use crate::model::{Caller, Clock};
use crate::observe::metrics::Counter;
use slog::{Logger, debug, info, warn};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

/// Connections that wait to be accepted: what comes beyond is dropped by the system, and its client tries
/// again after a second.
const BACKLOG: i32 = 4096;

/// A socket that listens at this address.
///
/// # Errors
/// The system's: it is in use, or not this machine's.
pub fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// How long accepting rests after an error such as "too many open files".
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there are and were. Shared with whoever reports them.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    handshakes_open: AtomicUsize,
    /// Clients that were let in by TLS.
    pub handshakes_ok: Counter,
    /// Handshakes that failed.
    pub handshakes_failed: Counter,
    /// Handshakes that gave way to newer ones.
    pub handshakes_crowded: Counter,
    /// Connections that did.
    pub crowded: Counter,
}

impl ConnectionCounters {
    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Handshakes under way now.
    pub fn handshakes_open(&self) -> usize {
        self.handshakes_open.load(Ordering::Relaxed)
    }

    pub(super) fn set_handshakes_open(&self, count: usize) {
        self.handshakes_open.store(count, Ordering::Relaxed);
    }

    /// Connections closed at once because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A connection that is to be served.
#[derive(Debug)]
pub struct Admitted {
    /// What to read and write.
    pub stream: Stream,
    /// Where it is from.
    pub peer: SocketAddr,
    /// Who is at its other end.
    pub caller: Caller,
    /// When to say goodbye.
    pub drain: Drain,
    /// Where calls on it are counted: whoever makes none gives way where others need the place.
    pub seat: Seat,
    /// The place is one of those that are kept.
    pub is_kept: bool,
}

/// Accepts connections until the drain begins.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub socket: std::net::TcpListener,
    /// So many connections may be open; where more come others give way, or they are closed at once.
    pub connections_max: usize,
    /// So many more may be, for whoever is only known by the first call.
    pub kept: usize,
    /// How long open connections may take to finish after the drain began.
    pub grace: Duration,
    /// What is counted.
    pub counters: Arc<ConnectionCounters>,
    /// Tells for how long a connection is without a call.
    pub clock: Arc<dyn Clock>,
    /// Where it is told.
    pub logger: Logger,
    /// When to end.
    pub drain: Drain,
    /// Lets in by TLS only whoever shows a certificate; `None`: everybody, and nothing is encrypted.
    pub secured: Option<Arc<Secured>>,
}

impl Listener {
    /// Serves every connection with `serve` on the current runtime until the drain begins, then
    /// waits for them for the grace time and ends the rest. Dropped, it ends all of them at once.
    ///
    /// # Errors
    /// When the socket cannot be used with the runtime, or the thread of the handshakes ends.
    pub async fn run<S, F>(self, serve: S) -> io::Result<()>
    where
        S: Fn(Admitted) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        self.socket.set_nonblocking(true)?;
        let socket = self.socket.try_clone()?;
        let mut door = match &self.secured {
            None => Door::Open(TcpListener::from_std(socket)?),
            Some(secured) => {
                let (counters, logger) = (Arc::clone(&self.counters), self.logger.clone());
                Door::Guarded(Entrance::open(socket, Arc::clone(secured), counters, logger)?)
            }
        };
        let mut open = Open {
            connections: JoinSet::new(),
            seats: Seats::new(
                (self.connections_max, self.kept),
                &self.counters,
                Arc::clone(&self.clock),
                self.logger.clone(),
            ),
        };
        let mut drained = std::pin::pin!(self.drain.clone().begun());
        loop {
            tokio::select! {
                () = &mut drained => break,
                Some(_) = open.connections.join_next() => {}
                came = door.next() => match came? {
                    Came::Accepted(found) => {
                        if let Some((stream, peer)) = accepted(found, &self.logger).await {
                            self.admit(&mut open, &serve, stream, peer);
                        }
                    }
                    Came::LetIn(let_in) => self.admit_secured(&mut open, &serve, let_in),
                },
            }
            // Whoever gave way is to be closed before the next one is accepted.
            if open.seats.has_given_way() {
                tokio::task::yield_now().await;
            }
        }
        door.close().await;
        self.farewell(open.connections).await;
        Ok(())
    }

    /// Whether there is room for one more connection, which is ready for small writes then.
    fn room(&self, seats: &mut Seats, stream: &TcpStream, peer: SocketAddr) -> Room {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(self.logger, "connection lost"; "peer" => %peer, "error" => %error);
            return Room::None;
        }
        let room = seats.room();
        if room == Room::None {
            let refused = self.counters.refused.fetch_add(1, Ordering::Relaxed) + 1;
            // Powers of two: a flood of connections must not become a flood of log lines.
            if refused.is_power_of_two() {
                warn!(self.logger, "connection refused: too many are open and in use";
                    "peer" => %peer, "connections_max" => self.connections_max, "refused" => refused);
            }
        }
        room
    }

    fn admit<S, F>(&self, open: &mut Open, serve: &S, stream: TcpStream, peer: SocketAddr)
    where
        S: Fn(Admitted) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let room = self.room(&mut open.seats, &stream, peer);
        if room == Room::None {
            return;
        }
        let (stream, drain, seat) = (Stream::Plain(stream), self.drain.clone(), Seat::default());
        let (is_kept, caller) = (room == Room::Kept, Caller::nobody());
        let admitted = Admitted { stream, peer, caller, drain, seat: seat.clone(), is_kept };
        open.begin(&seat, is_kept, serve(admitted));
    }

    fn admit_secured<S, F>(&self, open: &mut Open, serve: &S, let_in: LetIn)
    where
        S: Fn(Admitted) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let LetIn { stream, peer, caller, shown } = let_in;
        let Some(secured) = self.secured.clone() else { return };
        let room = self.room(&mut open.seats, stream.tcp(), peer);
        if room == Room::None {
            return;
        }
        let (farewell, drain) = Drain::channel();
        let (is_kept, seat) = (room == Room::Kept, Seat::default());
        let (lives, ended) = oneshot::channel::<()>();
        let connection = {
            let (caller, seat) = (caller.clone(), seat.clone());
            serve(Admitted { stream, peer, caller, drain, seat, is_kept })
        };
        let handle = open.begin(&seat, is_kept, async move {
            let _lives = lives;
            connection.await;
        });
        let logger = self.logger.clone();
        let tenure = Tenure { secured, shown, peer, caller, farewell, logger };
        // Ends with its connection.
        tokio::spawn(tenure.watch_over(handle, ended, self.drain.clone()));
    }

    async fn farewell(&self, mut connections: JoinSet<()>) {
        let all_gone = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.grace, all_gone).await.is_err() {
            info!(self.logger, "connections closed at the end of the grace time";
                "connections" => connections.len(), "grace" => ?self.grace);
            connections.shutdown().await;
        }
    }
}

/// The connections that are open.
struct Open {
    connections: JoinSet<()>,
    seats: Seats,
}

impl Open {
    /// Begins to serve one.
    fn begin<F>(&mut self, seat: &Seat, is_kept: bool, connection: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let sitting = self.seats.sit(seat, is_kept);
        // Apart, so that what is known of a connection that is gone holds none of its memory.
        let connection = Box::pin(connection);
        let handle = self.connections.spawn(async move {
            let _sitting = sitting;
            connection.await;
        });
        self.seats.taken(seat, is_kept, handle.clone());
        handle
    }
}

/// By what clients come in.
enum Door {
    Open(TcpListener),
    Guarded(Entrance),
}

enum Came {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    LetIn(LetIn),
}

impl Door {
    async fn next(&mut self) -> io::Result<Came> {
        match self {
            Self::Open(listener) => Ok(Came::Accepted(listener.accept().await)),
            Self::Guarded(entrance) => entrance.next().await.map(Came::LetIn),
        }
    }

    async fn close(self) {
        if let Self::Guarded(entrance) = self {
            entrance.close().await;
        }
    }
}

/// What was accepted; after an error such as "too many open files" rests a while.
pub(super) async fn accepted(
    found: io::Result<(TcpStream, SocketAddr)>,
    logger: &Logger,
) -> Option<(TcpStream, SocketAddr)> {
    if let Err(error) = &found {
        warn!(logger, "cannot accept a connection"; "error" => %error);
        tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
    }
    found.ok()
}
