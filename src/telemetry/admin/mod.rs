//! The admin HTTP server. Every pod of the cluster may reach its port. So connections are limited in number, time and size, and
//! shared by source address: a pod that opens many takes them from itself.

mod shares;
#[cfg(test)]
mod tests;

pub(crate) use shares::{Claim, Connections};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Limit on open connections.
const MAX_CONNECTIONS: usize = 64;

/// Limit on open connections from one address. Prometheus opens one at a time.
const MAX_PER_ADDRESS: usize = 8;

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
    let mut connections = Connections::new(MAX_CONNECTIONS, MAX_PER_ADDRESS);
    while let Some((stream, address)) = shutdown.run_until_cancelled(accept(&listener)).await {
        // Otherwise the stream is dropped, and so closed.
        if connections.make_space(address).await {
            let claim = Claim::default();
            let connection = serve_connection(stream, pages.clone(), claim.clone(), shutdown.clone());
            connections.add(address, claim, connection);
        }
    }
    drop(listener);
    // At most for CONNECTION_TIMEOUT.
    while connections.tasks.join_next().await.is_some() {}
}

/// The next connection, and the address that it comes from.
async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            // An IPv4 address that came to an IPv6 socket is written as IPv4 again.
            Ok((stream, peer)) => return (stream, peer.ip().to_canonical()),
            // Only this client is gone. A pause would delay the others.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request, and closes the connection. When the request has come, takes `claim`.
async fn serve_connection(stream: TcpStream, pages: Router, claim: Claim, shutdown: CancellationToken) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false);
    // If the connection is being closed for another one, its task ends before there is an answer.
    let answer = service_fn(move |request| {
        claim.take();
        pages.clone().call(request)
    });
    let connection = server.serve_connection(TokioIo::new(stream), answer);
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
