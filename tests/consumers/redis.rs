//! Redis, with its page.

use crate::documented::{Documented, assert_renewed_without_failure, free_port, served};
use crate::node_test;
use crate::program::{Running, outcome};
use std::path::Path;
use std::process::Command;

/// Whether the server answers a client.
fn answers(port: &str, client: &Path) -> bool {
    let mut ping = Command::new("redis-cli");
    ping.args(["--tls", "-h", "127.0.0.1", "-p", port, "--sni", "cache.shop.svc"]);
    for (flag, file) in [("--cert", "tls.crt"), ("--key", "tls.key"), ("--cacert", "ca.crt")] {
        ping.arg(flag).arg(client.join(file));
    }
    outcome(ping.arg("ping")).1.trim() == "PONG"
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn redis_and_certlet_reload_serve_renewed_certificates() {
        println!("{}", outcome(Command::new("redis-server").arg("--version")).1);
        let documented = Documented::start("redis", &[]).await;
        let volume = documented.volume("cache", "pod.yaml").await;
        let client = documented.client(&[]).await;
        let (work, port) = (documented.directory("work"), free_port());
        let work_path = work.display().to_string();
        let others = [("bind *", "bind 127.0.0.1"), ("6379", &port), ("/data", &work_path)];
        documented.write(&work, "redis.conf", &volume, &others);
        let others = [("/etc/redis", work_path.as_str()), ("/data", &work_path)];
        let _redis = Running::start(&mut documented.reload("pod.yaml", &volume, &others));
        assert_renewed_without_failure(|| {
            answers(&port, &client).then(|| served(&port, "cache.shop.svc", &client, &[]))?
        })
        .await;
    }
}
