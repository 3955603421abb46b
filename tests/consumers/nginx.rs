//! nginx with a list of revoked certificates.

use crate::node_test;
use crate::program::{Running, command, directory};
use crate::revoking::{CRL, Reloader, Revoking, is_answered};
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

/// An nginx that asks clients for a certificate and has a list.
struct Nginx {
    running: Running,
    port: u16,
}

impl Nginx {
    fn start(work: &Path, volume: &Path) -> Self {
        directory(work);
        // If another process takes the port first, the test fails.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {}/{name};\n", work.display()))
            .concat();
        let config = format!(
            "daemon off; pid {work}/pid; worker_processes 1;\nevents {{}}\nhttp {{ access_log off;\n{temporary}server {{\n\
             listen 127.0.0.1:{port} ssl;\nssl_certificate {volume}/tls.crt;\nssl_certificate_key {volume}/tls.key;\n\
             ssl_client_certificate {volume}/ca.crt;\nssl_verify_client on;\nssl_crl {volume}/{CRL};\n\
             location / {{ return 200 hello; }}\n}} }}\n",
            work = work.display(),
            volume = volume.display()
        );
        let file = work.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let running =
            Running::start(command("nginx").args(["-e", "stderr", "-p"]).arg(work).arg("-c").arg(file));
        Self { running, port }
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn nginx_refuses_a_revoked_client_within_one_refresh() {
        let revoking = Revoking::start().await;
        let volume = revoking.server("web-0", &[]).await;
        let (revoked, other) = (revoking.client("cart-0").await, revoking.client("cart-1").await);
        let nginx = Nginx::start(&revoking.node.root.join("nginx"), &volume);
        let mut reloader = Reloader::new(&volume, &nginx.running, Signal::SIGHUP);
        let answers = |client: &Path| {
            reloader.reload_if_changed();
            is_answered(nginx.port.into(), client)
        };
        revoking.assert_refused(&revoked, &other, answers).await;
    }
}
