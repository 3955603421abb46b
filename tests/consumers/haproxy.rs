//! haproxy, with its page and with a list of revoked certificates.

use crate::documented::{Documented, Processes, assert_renewed_without_failure, free_port, served};
use crate::node_test;
use crate::page::Page;
use crate::program::{Running, command, directory, outcome};
use crate::revoking::{CRL, Reloader, Revoking, is_answered};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The page's file with key and chain.
const COMBINED: &str = "tls.pem";

/// The page's server with the line `bind` of this block, for this volume and on this port of loopback, with `more` in that line.
fn haproxy(work: &Path, volume: &Path, port: &str, bind: &str, more: &str) -> Command {
    directory(work);
    let page = Page::of("haproxy");
    let line = |title: &str| {
        let block = page.block(title, &[]);
        block.lines().find(|line| line.trim().starts_with("bind ")).unwrap().to_owned()
    };
    let bound = line(bind)
        .replace(":8443", &format!("127.0.0.1:{port}"))
        .replace("/tls/", &format!("{}/", volume.display()));
    let config = page.block("haproxy.cfg", &[(&line("haproxy.cfg"), &(bound + more))]);
    let file = work.join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    // A master that starts new workers when it is told to.
    let mut haproxy = command("haproxy");
    haproxy.args(["-W", "-db", "-f"]).arg(file);
    haproxy
}

/// Checks that the page's server serves renewed certificates, with the attributes of one block and the line `bind` of another.
async fn assert_reloads(attributes: &str, bind: &str) {
    println!("{}", outcome(Command::new("haproxy").arg("-v")).1.lines().next().unwrap());
    let documented = Documented::start("haproxy", &[]).await;
    let volume = documented.volume("web", attributes).await;
    let client = documented.client(&[]).await;
    let port = free_port();
    let haproxy = haproxy(&documented.node.root.join("haproxy"), &volume, &port, bind, "");
    let _pod = Processes::start(vec![haproxy, documented.reload("pod.yaml", &volume, &[])]);
    assert_renewed_without_failure(|| {
        is_answered(port.parse().unwrap(), &client).then(|| served(&port, "web.shop.svc", &client, &[]))?
    })
    .await;
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn haproxy_and_certlet_reload_serve_renewed_certificates() {
        assert_reloads("pod.yaml", "haproxy.cfg").await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn haproxy_and_certlet_reload_serve_renewed_certificates_of_a_directory() {
        assert_reloads("directory.yaml", "directory.cfg").await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn haproxy_refuses_a_revoked_client_within_one_refresh() {
        let revoking = Revoking::start().await;
        let volume = revoking.server("web-0", &[("combined-file", COMBINED)]).await;
        let (revoked, other) = (revoking.client("cart-0").await, revoking.client("cart-1").await);
        let port = free_port();
        let list = format!(" crl-file {}/{CRL}", volume.display());
        let mut haproxy = haproxy(&revoking.node.root.join("haproxy"), &volume, &port, "haproxy.cfg", &list);
        let haproxy = Running::start(&mut haproxy);
        let mut reloader = Reloader::new(&volume, &haproxy, Signal::SIGUSR2);
        let answers = |client: &Path| {
            reloader.reload_if_changed();
            is_answered(port.parse().unwrap(), client)
        };
        revoking.assert_refused(&revoked, &other, answers).await;
    }
}
