//! The admin HTTP server. Every pod of the cluster may reach its port. So connections are limited in number, time and size.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Limit on open connections.
const MAX_CONNECTIONS: usize = 32;

/// Time for a client to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);

/// Limit on the head of a request. The connection of a longer head is closed.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Time for a whole connection, request and answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause when the system has no file descriptor left. The next connection waits in the backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves `pages` until `shutdown`, then until the open requests have been answered.
pub(crate) async fn serve_admin(listener: TcpListener, pages: Router, shutdown: CancellationToken) {
    let mut connections = Connections::default();
    while let Some(stream) = shutdown.run_until_cancelled(accept(&listener)).await {
        connections.add(serve_connection(stream, pages.clone(), shutdown.clone())).await;
    }
    drop(listener);
    // At most for CONNECTION_TIMEOUT.
    while connections.tasks.join_next().await.is_some() {}
}

/// The next connection.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Only this client is gone. A pause would delay the others.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request, and closes the connection.
async fn serve_connection(stream: TcpStream, pages: Router, shutdown: CancellationToken) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    let answered = async {
        let mut connection = pin!(connection);
        if shutdown.run_until_cancelled(connection.as_mut()).await.is_none() {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    };
    // A client that is too slow, or disconnects, is not an error of the server.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answered).await;
}

/// The open connections, at most [`MAX_CONNECTIONS`].
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// All tasks that have not ended.
    oldest_first: VecDeque<AbortHandle>,
}

impl Connections {
    /// Adds a connection. At the limit, the oldest one is closed: probes and scrapes are answered at once, so the oldest is
    /// probably idle, and the newest may be the kubelet.
    async fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|task| !task.is_finished());
        while self.tasks.len() >= MAX_CONNECTIONS {
            if let Some(oldest) = self.oldest_first.pop_front() {
                oldest.abort();
            }
            self.tasks.join_next().await;
        }
        self.oldest_first.push_back(self.tasks.spawn(connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    /// Limit on steps that take milliseconds. Together with [`HEAD_TIMEOUT`] it is less than [`CONNECTION_TIMEOUT`].
    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn started() -> (SocketAddr, JoinHandle<()>, CancellationToken) {
        // An address of this file alone: tests that listen on 127.0.0.1 may be given a port that a server here has closed.
        let listener = TcpListener::bind("127.0.83.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let pages = Router::new().fallback(async || "ok\n");
        (address, tokio::spawn(serve_admin(listener, pages, shutdown.clone())), shutdown)
    }

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Waits until the server has closed or reset every stream.
    async fn all_closed(streams: impl IntoIterator<Item = TcpStream>) {
        for mut stream in streams {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }

    #[tokio::test]
    async fn requests_that_never_end_delay_no_probe_and_are_closed() {
        const UNFINISHED: usize = 200;
        let (address, _server, _shutdown) = started().await;
        let half = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(4096));
        let mut unfinished = Vec::new();
        for number in 0..UNFINISHED {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Every second client sends nothing.
            if number % 2 == 0 {
                stream.write_all(half.as_bytes()).await.unwrap();
            }
            unfinished.push(stream);
        }
        let answer = tokio::time::timeout(TIMEOUT, fetch(address, "/healthz")).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

        let newest = unfinished.split_off(UNFINISHED + 1 - MAX_CONNECTIONS);
        tokio::time::timeout(TIMEOUT, all_closed(unfinished)).await.expect("the oldest are closed");

        tokio::time::pause();
        tokio::time::advance(HEAD_TIMEOUT).await;
        tokio::time::resume();
        tokio::time::timeout(TIMEOUT, all_closed(newest)).await.expect("their time is up");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let (address, _server, _shutdown) = started().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD_BYTES));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(HEAD_TIMEOUT / 2, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "not refused, but timed out");
        assert!(!answer.starts_with(b"HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn at_shutdown_silent_connections_are_closed_and_no_more_accepted() {
        let (address, server, shutdown) = started().await;
        let silent = TcpStream::connect(address).await.unwrap();
        // Connections are accepted in order, so the silent one was accepted before this answer.
        fetch(address, "/readyz").await;

        tokio::time::pause();
        let before = Instant::now();
        shutdown.cancel();
        server.await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
        all_closed([silent]).await;
        TcpStream::connect(address).await.unwrap_err();
    }
}
