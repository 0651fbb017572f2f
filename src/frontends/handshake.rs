//! Handshakes of a TLS port: so many at once, for so long, and a line of diagnostics for each that
//! fails. A handshake takes as much of a processor as hundreds of records, so all of a port's are on a
//! thread of their own, which accepts; whoever is let in is handed over to the thread that serves.
//!
//! Where too many are under way the oldest gives way: a client that is there finishes in
//! milliseconds, and is let in however many others only hold their places.

use super::listener::{ConnectionCounters, accepted};
use super::stream::Stream;
use super::tenure::Shown;
use crate::guards::tls::{Generation, Identity, Tls, describe, failed_handshake};
use crate::guards::{TokenBucket, TokenBucketOptions};
use crate::model::{Caller, Clock};
use crate::observe::metrics::Protocol;
use crate::wire::read_ahead::ReadAhead;
use futures_util::FutureExt;
use rustls::ServerConnection;
use slog::{Logger, debug, warn};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes under way at once on one port.
pub const HANDSHAKES_MAX: usize = 512;
/// Clients that were let in and wait to be served; more: accepting rests.
const LET_IN_MAX: usize = 64;
/// Lines about failures: so many at once, then this many a second.
const LINES: TokenBucketOptions = TokenBucketOptions { capacity: 30, refill_per_second: 1 };
/// The first byte of TLS: a record that holds a handshake.
const TLS_HANDSHAKE: u8 = 22;
/// What a client may have on its way within TLS before a write waits (unit: bytes).
const WRITE_BUFFER: usize = 64 << 10;

/// What is read of a client that was turned away, so that it hears why (unit: bytes) …
const REST_MAX: usize = 64 << 10;
/// … and for how long.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// The answer to a client that speaks HTTP/1 without TLS.
const NEEDS_TLS_HTTP1: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 66\r\nconnection: close\r\n\r\n\
    this port speaks TLS only, and asks for a client certificate too\r\n";
/// The answer to a client that speaks HTTP/2 without TLS: settings, then a goodbye for inadequate
/// security (RFC 9113, 6.8 and 7).
const NEEDS_TLS_HTTP2: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x2d\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port speaks TLS only (--tls-dir)";

/// How a port is secured.
pub struct Secured {
    /// What is shown and trusted.
    pub tls: Arc<Tls>,
    /// What is spoken within.
    pub protocol: Protocol,
    /// How long a handshake may take.
    pub handshake_max: Duration,
    /// How long a connection may stay after the certificates it was made with are replaced.
    pub rotation_grace: Duration,
    /// Paces lines, and tells what has expired.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secured({:?})", self.protocol)
    }
}

/// A client that was let in.
pub(super) struct LetIn {
    pub stream: Stream,
    pub peer: SocketAddr,
    pub caller: Caller,
    pub shown: Shown,
}

/// The same on its way from the one thread to the other: with the socket as no runtime's.
struct Passed {
    tcp: std::net::TcpStream,
    tls: ServerConnection,
    peer: SocketAddr,
    caller: Caller,
    shown: Shown,
}

impl Passed {
    fn new(let_in: Shaken) -> io::Result<Self> {
        let Shaken { stream, peer, caller, shown } = let_in;
        let (tcp, tls) = stream.into_inner();
        Ok(Self { tcp: tcp.into_std()?, tls, peer, caller, shown })
    }

    /// As a connection of the runtime that calls.
    fn arrive(self) -> io::Result<LetIn> {
        let Self { tcp, tls, peer, caller, shown } = self;
        let tcp = ReadAhead::new(TcpStream::from_std(tcp)?);
        // There is no other way to say that a connection is past its handshake.
        let acceptor = TlsAcceptor::from(shown.generation.grpc());
        let done = acceptor.accept_with(tcp, |fresh| *fresh = tls).now_or_never();
        let stream = done.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
        Ok(LetIn { stream: Stream::Tls(Box::new(stream)), peer, caller, shown })
    }
}

/// A handshake that is done.
struct Shaken {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    caller: Caller,
    shown: Shown,
}

/// The clients of a port that its handshakes let in. Dropped, it ends the handshakes and their thread.
pub(super) struct Entrance {
    let_in: mpsc::Receiver<Box<Passed>>,
    /// Resolves when the thread has let go of the socket.
    gone: oneshot::Receiver<()>,
    logger: Logger,
}

impl Entrance {
    /// Accepts at this socket, which is not to block.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn open(
        socket: std::net::TcpListener,
        secured: Arc<Secured>,
        counters: Arc<ConnectionCounters>,
        logger: Logger,
    ) -> io::Result<Self> {
        let (sender, let_in) = mpsc::channel(LET_IN_MAX);
        let (held, gone) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handshakes = Handshakes::new(secured, counters, logger.clone());
        let thread = std::thread::Builder::new().name("duramen-shake".into());
        thread.spawn(move || {
            runtime.block_on(handshakes.run(socket, sender));
            drop((runtime, held));
        })?;
        Ok(Self { let_in, gone, logger })
    }

    /// Lets nobody in any more, and waits until the socket is free.
    pub async fn close(self) {
        drop(self.let_in);
        // An error is what tells it.
        let _ = self.gone.await;
    }

    /// The next client that is let in.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn next(&mut self) -> io::Result<LetIn> {
        loop {
            let Some(passed) = self.let_in.recv().await else {
                return Err(io::Error::other("the thread of the handshakes has ended"));
            };
            let peer = passed.peer;
            match passed.arrive() {
                Ok(let_in) => return Ok(let_in),
                Err(error) => {
                    debug!(self.logger, "connection lost"; "peer" => %peer, "error" => %error);
                }
            }
        }
    }
}

/// The handshakes of a port.
struct Handshakes {
    secured: Arc<Secured>,
    telling: Arc<Telling>,
    counters: Arc<ConnectionCounters>,
    under_way: JoinSet<Option<Box<Passed>>>,
    by_age: VecDeque<AbortHandle>,
}

struct Telling {
    logger: Logger,
    clock: Arc<dyn Clock>,
    lines: Mutex<(TokenBucket, u64)>,
}

impl Handshakes {
    fn new(secured: Arc<Secured>, counters: Arc<ConnectionCounters>, logger: Logger) -> Self {
        let clock = Arc::clone(&secured.clock);
        let lines = Mutex::new((TokenBucket::new(LINES, clock.monotonic()), 0));
        let telling = Arc::new(Telling { logger, clock, lines });
        let (under_way, by_age) = (JoinSet::new(), VecDeque::new());
        Self { secured, telling, counters, under_way, by_age }
    }

    /// Until nobody takes who is let in.
    async fn run(mut self, socket: std::net::TcpListener, let_in: mpsc::Sender<Box<Passed>>) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(self.telling.logger, "cannot accept connections"; "error" => %error);
                return;
            }
        };
        loop {
            tokio::select! {
                biased;
                () = let_in.closed() => return,
                passed = self.next() => if let_in.send(passed).await.is_err() {
                    return;
                },
                found = listener.accept() => {
                    if let Some((stream, peer)) = accepted(found, &self.telling.logger).await {
                        self.begin(stream, peer);
                    }
                }
            }
        }
    }

    /// Begins one; the oldest of too many ends.
    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        if self.under_way.len() >= HANDSHAKES_MAX {
            let oldest = std::iter::from_fn(|| self.by_age.pop_front());
            if let Some(oldest) = oldest.into_iter().find(|oldest| !oldest.is_finished()) {
                oldest.abort();
            }
        }
        if self.by_age.len() >= 2 * HANDSHAKES_MAX {
            self.by_age.retain(|one| !one.is_finished());
        }
        let (secured, telling) = (Arc::clone(&self.secured), Arc::clone(&self.telling));
        let counters = Arc::clone(&self.counters);
        let handle = self.under_way.spawn(async move {
            let shaking = shake(&secured, stream, peer);
            let mut left = None;
            let failed = match tokio::time::timeout(secured.handshake_max, shaking).await {
                Ok(Ok(let_in)) => match Passed::new(let_in) {
                    Ok(passed) => {
                        counters.handshakes_ok.one();
                        return Some(Box::new(passed));
                    }
                    Err(error) => format!("its connection cannot be handed over: {error}"),
                },
                Ok(Err(Failure::Silent)) => {
                    debug!(telling.logger, "a connection was closed before a word"; "peer" => %peer);
                    return None;
                }
                Ok(Err(Failure::Told(reason, stream))) => {
                    left = stream;
                    reason
                }
                Err(_) => format!("it did not finish within {:?}", secured.handshake_max),
            };
            counters.handshakes_failed.one();
            telling.failed(peer, &failed);
            if let Some(stream) = left {
                // Whatever becomes of it: the client was told, or does not listen.
                let _ = tokio::time::timeout(FAREWELL_MAX, farewell(stream)).await;
            }
            None
        });
        self.by_age.push_back(handle);
        self.counters.set_handshakes_open(self.under_way.len());
    }

    /// The next client that is let in; never resolves where nothing is under way.
    async fn next(&mut self) -> Box<Passed> {
        loop {
            let Some(ended) = self.under_way.join_next().await else {
                return std::future::pending().await;
            };
            self.counters.set_handshakes_open(self.under_way.len());
            match ended {
                Ok(Some(passed)) => return passed,
                Ok(None) => {}
                Err(error) => self.gave_way(&error),
            }
        }
    }

    fn gave_way(&self, error: &JoinError) {
        if error.is_panic() {
            return self.telling.line("a handshake broke; this is a fault of duramen", None);
        }
        self.counters.handshakes_crowded.one();
        self.telling.line("a handshake gave way to newer ones: too many are under way", None);
    }
}

impl Telling {
    fn failed(&self, peer: SocketAddr, reason: &str) {
        self.line(reason, Some(peer));
    }

    fn line(&self, reason: &str, peer: Option<SocketAddr>) {
        let untold = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let (bucket, untold) = &mut *lines;
            if !bucket.allow(self.clock.monotonic()) {
                *untold += 1;
                return;
            }
            std::mem::take(untold)
        };
        let peer = peer.map_or_else(String::new, |peer| peer.to_string());
        warn!(self.logger, "a client was not let in"; "peer" => peer, "reason" => reason,
            "untold_before" => untold);
    }
}

enum Failure {
    /// It went without a word, as probes do.
    Silent,
    /// The connection is there still, where its other end can be told.
    Told(String, Option<TcpStream>),
}

async fn shake(
    secured: &Secured,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Result<Shaken, Failure> {
    let lost = |error: std::io::Error| Failure::Told(failed_handshake(&error), None);
    let mut first = [0; 3];
    let seen = stream.peek(&mut first).await.map_err(lost)?;
    match first[..seen] {
        [] => return Err(Failure::Silent),
        [TLS_HANDSHAKE, ..] => {}
        _ => {
            refuse_plaintext(&mut stream, &first).await.map_err(lost)?;
            let reason = "it speaks without TLS on a TLS port; give it --tls-dir, or https";
            return Err(Failure::Told(reason.into(), Some(stream)));
        }
    }
    let generation = secured.tls.now();
    let config = match secured.protocol {
        Protocol::Grpc => generation.grpc(),
        Protocol::Http => generation.http(),
    };
    let accepting = TlsAcceptor::from(config)
        .accept_with(stream, |connection| connection.set_buffer_limit(Some(WRITE_BUFFER)));
    // A handshake holds much more than a connection: apart, so that nothing else grows by it.
    let accepted = Box::pin(accepting.into_fallible()).await;
    let stream = accepted
        .map_err(|(error, stream)| Failure::Told(failed_handshake(&error), Some(stream)))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let (caller, shown) = who(chain, generation).map_err(|why| Failure::Told(why, None))?;
    Ok(Shaken { stream, peer, caller, shown })
}

fn who(
    chain: &[rustls::pki_types::CertificateDer<'_>],
    generation: Arc<Generation>,
) -> Result<(Caller, Shown), String> {
    let own = chain.first().ok_or("it shows no certificate")?;
    let caller = Identity::of(own).map_err(|error| error.to_string())?.caller();
    let not_after = describe(own)?.not_after;
    let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
    Ok((caller, Shown { chain, not_after, generation }))
}

/// Tells a client, in its own protocol as far as that is known, what it needs.
async fn refuse_plaintext(stream: &mut TcpStream, first: &[u8]) -> std::io::Result<()> {
    if first == b"PRI" {
        stream.write_all(NEEDS_TLS_HTTP2).await?;
    } else if first.iter().all(u8::is_ascii_alphabetic) {
        stream.write_all(NEEDS_TLS_HTTP1).await?;
    }
    Ok(())
}

/// Closes a connection so that what was said last arrives.
async fn farewell(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    // Closing with unread bytes would reset the connection, and the answer with it.
    let (mut rest, mut left) = ([0; 1 << 10], REST_MAX);
    while left > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_to_plaintext_say_how_long_they_are() {
        let text = std::str::from_utf8(NEEDS_TLS_HTTP1).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        let goodbye = &NEEDS_TLS_HTTP2[9..];
        assert_eq!(usize::from(goodbye[2]) + 9, goodbye.len(), "the frame's length");
    }
}
