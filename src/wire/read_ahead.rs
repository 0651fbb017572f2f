//! A socket below TLS. rustls takes 4 KiB from it at a time, which would be four system calls and more
//! for each record of a large message; this reads further as soon as there is more. The room for that
//! is held only while something is in it: a connection in lock step has none.

use bytes::{Buf, BytesMut};
use std::io::{IoSlice, Result};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Read at most so far ahead (unit: bytes): two TLS records of the largest size.
const AHEAD: usize = 32 << 10;

/// See the module.
#[derive(Debug)]
pub struct ReadAhead {
    tcp: TcpStream,
    ahead: BytesMut,
    /// The last read took all that there was room for.
    is_more: bool,
}

impl ReadAhead {
    /// Nothing is read yet.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: BytesMut::new(), is_more: false }
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let Self { tcp, ahead, is_more } = self.get_mut();
        if ahead.is_empty() && !*is_more {
            ready!(Pin::new(tcp).poll_read(cx, buffer))?;
            *is_more = buffer.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        if ahead.is_empty() {
            ahead.reserve(AHEAD);
            let read = pin!(tcp.read_buf(ahead)).poll(cx);
            *is_more = matches!(read, Poll::Ready(Ok(AHEAD..)));
            if ahead.is_empty() {
                *ahead = BytesMut::new();
            }
            ready!(read)?;
        }
        let taken = ahead.len().min(buffer.remaining());
        buffer.put_slice(&ahead[..taken]);
        ahead.advance(taken);
        if ahead.is_empty() && !*is_more {
            *ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_sent_however_much_is_taken_at_a_time() {
        for count in [0, 1, 4095, 4096, 4097, AHEAD, 300_000] {
            for room in [1, 100, 4096, 100_000] {
                // One byte at a time is for small ones.
                if room == 1 && count > AHEAD {
                    continue;
                }
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (receiver, _) = listener.accept().await.unwrap();
                let sending = tokio::spawn(async move {
                    sender.write_all(&bytes(count)).await.unwrap();
                });
                let mut reader = ReadAhead::new(receiver);
                let (mut read, mut piece) = (Vec::new(), vec![0; room]);
                loop {
                    match reader.read(&mut piece).await.unwrap() {
                        0 => break,
                        length => read.extend_from_slice(&piece[..length]),
                    }
                }
                sending.await.unwrap();
                assert!(read == bytes(count), "{count} bytes, {room} at a time");
                assert_eq!(reader.ahead.capacity(), 0, "nothing is held at the end");
            }
        }
    }

    /// Method: a message is sent whole and waited for; the next is not sent before it is read.
    #[tokio::test]
    async fn a_connection_in_lock_step_holds_no_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (receiver, _) = listener.accept().await.unwrap();
        let mut reader = ReadAhead::new(receiver);
        let mut piece = vec![0; 4096];
        for _ in 0..3 {
            sender.write_all(b"a small message").await.unwrap();
            let read = reader.read(&mut piece).await.unwrap();
            assert_eq!(&piece[..read], b"a small message");
            assert_eq!(reader.ahead.capacity(), 0);
        }
        // The control: where there is more, it is read ahead.
        sender.write_all(&bytes(AHEAD)).await.unwrap();
        let mut held = 0;
        for _ in 0..AHEAD / 4096 {
            reader.read_exact(&mut piece).await.unwrap();
            held = held.max(reader.ahead.capacity());
        }
        assert!(held > 0);
    }
}
