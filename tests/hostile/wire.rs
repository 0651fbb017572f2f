//! Connections of hostile clients: bytes as they like, plain or within TLS, never waiting long.

use duramen::testing::Chance;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest that a hostile client waits for room to write.
const WRITE_MAX: Duration = Duration::from_millis(500);
const CONNECT_MAX: Duration = Duration::from_secs(5);

pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let tcp = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(WRITE_MAX))?;
        tcp.set_read_timeout(Some(CONNECT_MAX))?;
        let Some(tls) = tls else { return Ok(Self::Plain(tcp)) };
        let name = ServerName::from(address.ip());
        let connection =
            ClientConnection::new(Arc::clone(tls), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// What is below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Writes; whether the other end still takes it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
        .is_ok()
    }

    /// Writes all at once or in pieces of at most so many bytes, and may finish this side behind it.
    pub fn send_in_pieces(&mut self, bytes: &[u8], piece_max: u64, chance: &mut Chance) {
        let piece = if chance.coin() { bytes.len() } else { 1 + chance.below(piece_max) as usize };
        for piece in bytes.chunks(piece.max(1)) {
            if !self.send(piece) {
                break;
            }
        }
        if chance.coin() {
            self.finish();
        }
    }

    /// Reads what comes within a time, to its end or until `bytes_max` are there.
    pub fn hear(&mut self, time: Duration, bytes_max: usize) -> Vec<u8> {
        let (mut heard, mut piece) = (Vec::new(), [0; 16 << 10]);
        let until = Instant::now() + time;
        while heard.len() < bytes_max {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.tcp().set_read_timeout(Some(left)).is_err() {
                break;
            }
            let read = match self {
                Self::Plain(tcp) => tcp.read(&mut piece),
                Self::Tls(stream) => stream.read(&mut piece),
            };
            match read {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        heard
    }

    /// No more of this side; the other may still answer.
    pub fn finish(&mut self) {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        // It may be gone already.
        let _ = self.tcp().shutdown(Shutdown::Write);
    }
}
