//! One connection of a volume's socket.

use super::caller::Caller;
use super::limits::Admitted;
use crate::platform::AnyAuthority;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// A peer that reads nothing for so long is disconnected.
const MAX_STALL: Duration = Duration::from_secs(30);
/// The time for the last statuses of the streams, after the socket's end.
const LAST_STATUSES: Duration = Duration::from_secs(1);

/// A connection. It ends soon after its socket does, and when its peer stops reading.
pub(in crate::sink) struct Connection {
    stream: AnyAuthority<UnixStream>,
    caller: Caller,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Runs while a write waits for the peer.
    stall: Option<Pin<Box<Sleep>>>,
    _admitted: Admitted,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, caller: Caller, admitted: Admitted) -> Self {
        let ending = caller.clone();
        let end = Box::pin(async move {
            ending.ended().await;
            sleep(LAST_STATUSES).await;
        });
        Self { stream: AnyAuthority::new(stream), caller, end, stall: None, _admitted: admitted }
    }

    /// Watches how long a write waits for the peer.
    fn watch_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(MAX_STALL)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::socket::limits::ConnectionLimits;
    use crate::sink::socket::testing::caller;
    use crate::telemetry::Metrics;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (Connection, UnixStream, tokio_util::sync::CancellationToken) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (caller, ended) = caller();
        let limits = Arc::new(ConnectionLimits::new(Arc::new(Metrics::default())));
        let admitted = limits.admit(&caller).unwrap();
        (Connection::new(ours, caller, admitted), theirs, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_disconnected() {
        let (mut ours, _theirs, _ended) = pair();
        let written = async { while ours.write_all(&[0; 4096]).await.is_ok() {} };
        let started = tokio::time::Instant::now();
        written.await;
        assert!(started.elapsed() >= MAX_STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_soon_after_its_socket() {
        let (mut ours, _theirs, ended) = pair();
        ended.cancel();
        assert_eq!(ours.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
}
