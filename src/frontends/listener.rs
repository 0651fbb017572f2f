//! Accepts connections for a front end: so many at most, and a bounded farewell at the end.

use super::drain::Drain;
use slog::{Logger, debug, info, warn};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long accepting rests after an error such as "too many open files".
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there are and were. Shared with whoever reports them.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl ConnectionCounters {
    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Counts a connection as open for as long as it lives, however it ends.
struct OpenConnection(Arc<ConnectionCounters>);

impl OpenConnection {
    fn new(counters: &Arc<ConnectionCounters>) -> Self {
        counters.open.fetch_add(1, Ordering::Relaxed);
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the drain begins.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub socket: std::net::TcpListener,
    /// More connections than this are closed as soon as they come.
    pub connections_max: usize,
    /// How long open connections may take to finish after the drain began.
    pub grace: Duration,
    /// What is counted.
    pub counters: Arc<ConnectionCounters>,
    /// Where it is told.
    pub logger: Logger,
    /// When to end.
    pub drain: Drain,
}

impl Listener {
    /// Serves every connection with `serve` on the current runtime until the drain begins, then
    /// waits for them for the grace time and ends the rest. Dropped, it ends all of them at once.
    ///
    /// # Errors
    /// When the socket cannot be used with the runtime.
    pub async fn run<S, F>(self, serve: S) -> io::Result<()>
    where
        S: Fn(TcpStream, SocketAddr) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        self.socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(self.socket.try_clone()?)?;
        let mut connections = JoinSet::new();
        let mut drained = std::pin::pin!(self.drain.clone().begun());
        loop {
            tokio::select! {
                () = &mut drained => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, &serve, stream, peer),
                    Err(error) => {
                        warn!(self.logger, "cannot accept a connection"; "error" => %error);
                        tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        self.farewell(connections).await;
        Ok(())
    }

    fn admit<S, F>(
        &self,
        connections: &mut JoinSet<()>,
        serve: &S,
        stream: TcpStream,
        peer: SocketAddr,
    ) where
        S: Fn(TcpStream, SocketAddr) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        if self.counters.open() >= self.connections_max {
            let refused = self.counters.refused.fetch_add(1, Ordering::Relaxed) + 1;
            // Powers of two: a flood of connections must not become a flood of log lines.
            if refused.is_power_of_two() {
                warn!(self.logger, "connection refused: too many are open";
                    "peer" => %peer, "connections_max" => self.connections_max, "refused" => refused);
            }
            return;
        }
        if let Err(error) = stream.set_nodelay(true) {
            debug!(self.logger, "connection lost"; "peer" => %peer, "error" => %error);
            return;
        }
        let open = OpenConnection::new(&self.counters);
        let connection = serve(stream, peer);
        connections.spawn(async move {
            let _open = open;
            connection.await;
        });
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
