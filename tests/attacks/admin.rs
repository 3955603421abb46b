//! Attacks on the admin port, which every pod of the cluster may reach. The pods are source addresses of the loopback network.

use crate::node_test;
use crate::support::{Node, pod};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Where the driver of each test listens. No other test uses these addresses.
const ONE_POD: Ipv4Addr = Ipv4Addr::new(127, 0, 84, 1);
const MANY_PODS: Ipv4Addr = Ipv4Addr::new(127, 0, 84, 2);
const PROBED: Ipv4Addr = Ipv4Addr::new(127, 0, 84, 3);
const PORT: u16 = 19402;

/// Prometheus.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 84, 200);

/// Limit on steps that take milliseconds. It is less than the time after which the server closes the attackers' connections, and
/// an answer would come anyway.
const TIMEOUT: Duration = Duration::from_millis(2500);

/// Connections of one attacker that stay open at its side. It is more than the server has for everybody.
const CONNECTIONS: usize = 80;

/// What an attacker sends: nothing, half a request, or a whole request whose answer it does not read.
const REQUESTS: [&str; 3] =
    ["", "GET /metrics HTTP/1.1\r\nX: ", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"];

/// A driver with its admin port at `address`.
fn node(address: Ipv4Addr) -> Node {
    Node::with_flags(&["--allow-local-signer", &format!("--metrics-bind-address={address}:{PORT}")])
}

/// The address of a pod that attacks.
fn attacker(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 84, 100 + number)
}

async fn connect(from: Ipv4Addr, to: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Otherwise the source ports of the attackers would run out: each stays in TIME_WAIT for a minute.
    socket.set_zero_linger()?;
    socket.bind((from, 0).into())?;
    socket.connect(SocketAddr::from((to, PORT))).await
}

/// Pods that open connections as fast as possible, until dropped.
struct Flood {
    tasks: JoinSet<()>,
    opened: Arc<AtomicUsize>,
}

impl Flood {
    /// Waits until the attackers have opened more connections than the server has. Without that, a test proves nothing.
    async fn progress(&mut self) {
        let before = self.opened.load(Ordering::Relaxed);
        while self.opened.load(Ordering::Relaxed) < before + CONNECTIONS {
            assert!(self.tasks.try_join_next().is_none(), "the flood goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Starts a flood from this number of addresses.
async fn flood(to: Ipv4Addr, attackers: u8, request: &'static str) -> Flood {
    let (mut tasks, opened) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for number in 0..attackers {
        let opened = Arc::clone(&opened);
        tasks.spawn(async move {
            let mut open = VecDeque::new();
            loop {
                if let Ok(mut stream) = connect(attacker(number), to).await {
                    let _closed = stream.write_all(request.as_bytes()).await;
                    open.push_back(stream);
                    opened.fetch_add(1, Ordering::Relaxed);
                }
                if open.len() > CONNECTIONS {
                    open.pop_front();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let mut flood = Flood { tasks, opened };
    flood.progress().await;
    flood
}

/// What an honest client gets of `/metrics`. Its request takes longer than the flood needs to fill the server.
async fn scrape(from: Ipv4Addr, flood: &mut Flood) -> std::io::Result<String> {
    let mut stream = connect(HONEST, from).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").await?;
    flood.progress().await;
    stream.write_all(b"Host: localhost\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn assert_scraped(from: Ipv4Addr, flood: &mut Flood, beside: &str) {
    for _ in 0..2 {
        let answer = tokio::time::timeout(TIMEOUT, scrape(from, flood)).await;
        let answer = answer.unwrap_or_else(|_| panic!("beside {beside:?}: no answer"));
        let answer = answer.unwrap_or_else(|error| panic!("beside {beside:?}: {error}"));
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("# EOF\n"),
            "beside {beside:?}: {answer}"
        );
    }
}

node_test! {
    async fn a_pod_that_floods_the_admin_port_keeps_nobody_else_from_the_metrics() {
        let mut node = node(ONE_POD);
        let kubelet = node.started().await;
        for request in REQUESTS {
            let mut flood = flood(ONE_POD, 1, request).await;
            assert_scraped(ONE_POD, &mut flood, request).await;
        }
        kubelet.publish(&pod("web-0")).await.unwrap();
    }
}

node_test! {
    async fn pods_that_flood_the_admin_port_together_keep_nobody_else_from_the_metrics() {
        let mut node = node(MANY_PODS);
        let kubelet = node.started().await;
        // Their shares together are more connections than the server has. Whole requests are not among them: a request that is
        // being answered is never closed for another one.
        for request in &REQUESTS[..2] {
            let mut flood = flood(MANY_PODS, 12, request).await;
            assert_scraped(MANY_PODS, &mut flood, request).await;
        }
        kubelet.publish(&pod("web-0")).await.unwrap();
    }
}

node_test! {
    async fn no_flood_of_the_admin_port_fails_a_probe() {
        let mut node = node(PROBED);
        node.started().await;
        for request in REQUESTS {
            let mut flood = flood(PROBED, 12, request).await;
            for check in ["--liveness", "--readiness"] {
                let (driver, started) = (node.data_root(), std::time::Instant::now());
                let probe = tokio::task::spawn_blocking(move || crate::support::health(&driver, check));
                assert_eq!(probe.await.unwrap(), (Some(0), "ok\n".to_owned()), "beside {request:?}");
                assert!(started.elapsed() < TIMEOUT, "beside {request:?}: {:?}", started.elapsed());
            }
            flood.progress().await;
        }
    }
}
