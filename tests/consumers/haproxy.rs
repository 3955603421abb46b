//! haproxy with a list of revoked certificates.

use crate::node_test;
use crate::program::{Running, command, directory};
use crate::revoking::{CRL, Reloader, Revoking, is_answered};
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

/// The file with key and chain.
const COMBINED: &str = "combined.pem";

/// A haproxy that asks clients for a certificate and has a list.
struct HaProxy {
    running: Running,
    port: u16,
}

impl HaProxy {
    fn start(work: &Path, volume: &Path) -> Self {
        directory(work);
        // If another process takes the port first, the test fails.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\nfrontend all\n \
             bind 127.0.0.1:{port} ssl crt {volume}/{COMBINED} ca-file {volume}/ca.crt crl-file {volume}/{CRL} verify required\n \
             http-request return status 200 content-type text/plain string hello\n",
            volume = volume.display()
        );
        let file = work.join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        // A master that starts new workers when it is told to.
        let running = Running::start(command("haproxy").args(["-W", "-f"]).arg(file));
        Self { running, port }
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn haproxy_refuses_a_revoked_client_within_one_refresh() {
        let revoking = Revoking::start().await;
        let volume = revoking.server("web-0", &[("combined-file", COMBINED)]).await;
        let (revoked, other) = (revoking.client("cart-0").await, revoking.client("cart-1").await);
        let haproxy = HaProxy::start(&revoking.node.root.join("haproxy"), &volume);
        let mut reloader = Reloader::new(&volume, &haproxy.running, Signal::SIGUSR2);
        let answers = |client: &Path| {
            reloader.reload_if_changed();
            is_answered(haproxy.port.into(), client)
        };
        revoking.assert_refused(&revoked, &other, answers).await;
    }
}
