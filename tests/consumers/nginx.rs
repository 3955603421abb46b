//! nginx, with its page and with a list of revoked certificates.

use crate::documented::{Documented, Processes, assert_renewed_without_failure, free_port, served};
use crate::node_test;
use crate::page::Page;
use crate::program::{Running, command, directory, outcome};
use crate::revoking::{CRL, Reloader, Revoking, is_answered};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The page's server, for this volume and on this port of loopback, with `more` beside it.
fn nginx(work: &Path, volume: &Path, port: &str, more: &str) -> Command {
    directory(work);
    let server = Page::of("nginx").block(
        "web.conf",
        &[("listen 8443", &format!("listen 127.0.0.1:{port}")), ("/tls/", &format!("{}/", volume.display()))],
    );
    let work_path = work.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {work_path}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off; pid {work_path}/pid; worker_processes 1;\nevents {{}}\n\
         http {{ access_log off;\n{temporary}{more}{server}}}\n"
    );
    let file = work.join("nginx.conf");
    fs::write(&file, config).unwrap();
    let mut nginx = command("nginx");
    nginx.args(["-e", "stderr", "-p"]).arg(work).arg("-c").arg(file);
    nginx
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn nginx_and_certlet_reload_serve_renewed_certificates() {
        println!("{}", outcome(Command::new("nginx").arg("-v")).1);
        let documented = Documented::start("nginx", &[]).await;
        let volume = documented.volume("web", "pod.yaml").await;
        let client = documented.client(&[]).await;
        let port = free_port();
        let nginx = nginx(&documented.node.root.join("nginx"), &volume, &port, "");
        let _pod = Processes::start(vec![nginx, documented.reload("pod.yaml", &volume, &[])]);
        assert_renewed_without_failure(|| {
            is_answered(port.parse().unwrap(), &client).then(|| served(&port, "web.shop.svc", &client, &[]))?
        })
        .await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn nginx_refuses_a_revoked_client_within_one_refresh() {
        let revoking = Revoking::start().await;
        let volume = revoking.server("web-0", &[]).await;
        let (revoked, other) = (revoking.client("cart-0").await, revoking.client("cart-1").await);
        let port = free_port();
        let list = format!("ssl_crl {}/{CRL};\n", volume.display());
        let nginx = Running::start(&mut nginx(&revoking.node.root.join("nginx"), &volume, &port, &list));
        let mut reloader = Reloader::new(&volume, &nginx, Signal::SIGHUP);
        let answers = |client: &Path| {
            reloader.reload_if_changed();
            is_answered(port.parse().unwrap(), client)
        };
        revoking.assert_refused(&revoked, &other, answers).await;
    }
}
