//! A connection that is left when the other end is not to be talked to any more, as one whose
//! certificate was revoked meanwhile; and that says so where the other end does not let it in.

use super::turned_away::TurnedAway;
use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module. From then on nothing is read or written.
pub struct Leave<S> {
    stream: S,
    no_more: Pin<Box<dyn Future<Output = String> + Send>>,
    why: Option<String>,
}

impl<S> Leave<S> {
    /// Leaves `stream` when `no_more` says why.
    pub fn new(stream: S, no_more: impl Future<Output = String> + Send + 'static) -> Self {
        Self { stream, no_more: Box::pin(no_more), why: None }
    }

    fn may_go_on(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if self.why.is_none()
            && let Poll::Ready(why) = self.no_more.as_mut().poll(cx)
        {
            self.why = Some(why);
        }
        match &self.why {
            Some(why) => {
                let why = TurnedAway::Shown(why.clone());
                Err(Error::new(ErrorKind::PermissionDenied, why))
            }
            None => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Leave<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        self.may_go_on(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer).map_err(TurnedAway::told)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Leave<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.may_go_on(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.may_go_on(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn from_then_on_nothing_is_read_or_written_also_by_who_waits() {
        let (here, mut there) = duplex(64);
        let (say, said) = oneshot::channel::<String>();
        let mut leave = Leave::new(here, async { said.await.unwrap() });
        leave.write_all(b"before").await.unwrap();
        let mut read = [0; 6];
        there.read_exact(&mut read).await.unwrap();
        there.write_all(&read).await.unwrap();
        leave.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"before");

        let saying = async {
            tokio::task::yield_now().await;
            say.send("its certificate is revoked".into()).unwrap();
        };
        let (waited, ()) = tokio::join!(leave.read_u8(), saying);
        let why = waited.unwrap_err();
        assert_eq!(why.to_string(), "TLS: its certificate is revoked");
        there.write_all(b"x").await.unwrap();
        assert_eq!(leave.read_u8().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let written = leave.write_all(b"after").await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::PermissionDenied);
        drop(leave);
        let mut rest = Vec::new();
        there.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}
