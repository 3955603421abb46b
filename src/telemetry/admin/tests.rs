//! The server over real connections.

use super::*;
use axum::routing::get;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Limit on steps that take milliseconds. Together with [`HEAD_TIMEOUT`] it is less than [`CONNECTION_TIMEOUT`].
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the slow page takes.
const SLOW: Duration = Duration::from_millis(400);

/// Who floods the server, and who does not.
const ATTACKER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn started() -> (SocketAddr, JoinHandle<()>, CancellationToken) {
    // An address of this file alone: tests that listen on 127.0.0.1 may be given a port that a server here has closed.
    let listener = TcpListener::bind("127.0.83.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let slow = async || {
        tokio::time::sleep(SLOW).await;
        "late\n"
    };
    let pages = Router::new()
        .route("/slow", get(slow))
        .route("/large", get(async || vec![b'x'; 64 << 20]))
        .fallback(async || "ok\n");
    (address, tokio::spawn(serve_admin(listener, pages, shutdown.clone())), shutdown)
}

async fn connected(from: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// The answer, as far as it came.
async fn fetch_from(from: Ipv4Addr, address: SocketAddr, path: &str) -> String {
    let mut stream = connected(from, address).await;
    let (first, rest) = ("GET ", format!("{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let mut answer = Vec::new();
    // An honest client's request also takes a while to arrive.
    let exchanged = async {
        stream.write_all(first.as_bytes()).await?;
        tokio::time::sleep(SLOW / 4).await;
        stream.write_all(rest.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let _cut_off = exchanged.await;
    String::from_utf8(answer).unwrap()
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    fetch_from(ATTACKER, address, path).await
}

/// Opens connections from one address as fast as possible, and keeps those that the server keeps.
fn flood(address: SocketAddr, request: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut opened = std::collections::VecDeque::new();
        loop {
            let mut stream = connected(ATTACKER, address).await;
            let _closed = stream.write_all(request.as_bytes()).await;
            opened.push_back(stream);
            if opened.len() > 2 * MAX_CONNECTIONS {
                opened.pop_front();
            }
            tokio::task::yield_now().await;
        }
    })
}

#[tokio::test]
async fn who_opens_connections_fast_keeps_nobody_else_out() {
    for request in ["", "GET / HTTP/1.1\r\nX: ", "GET /slow HTTP/1.1\r\n\r\n", "GET /large HTTP/1.1\r\n\r\n"]
    {
        let (address, _server, _shutdown) = started().await;
        let flood = flood(address, request);
        tokio::time::sleep(SLOW / 2).await;
        for _ in 0..3 {
            let answer =
                tokio::time::timeout(TIMEOUT, fetch_from(HONEST, address, "/metrics")).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "beside {request:?}: {answer:?}");
        }
        assert!(!flood.is_finished(), "the flood goes on");
        flood.abort();
    }
}

#[tokio::test]
async fn a_request_that_is_being_answered_is_never_closed_for_another_one() {
    let (address, _server, _shutdown) = started().await;
    // From the same address, so that nothing but the answer protects it.
    let answer = tokio::spawn(fetch_from(ATTACKER, address, "/slow"));
    tokio::time::sleep(SLOW / 2).await;
    let flood = flood(address, "");
    let answer = tokio::time::timeout(TIMEOUT, answer).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("late\n"), "{answer:?}");
    assert!(!flood.is_finished(), "the flood goes on");
    flood.abort();
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

    let newest = unfinished.split_off(UNFINISHED + 1 - MAX_PER_ADDRESS);
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
