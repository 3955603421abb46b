//! etcd, with its page.

use crate::documented::{Documented, assert_renewed_without_failure, free_port, served};
use crate::program::{Running, built, command, output};
use crate::{node_test, revoking};

const NAME: &str = "etcd-0.etcd.shop.svc";

node_test! {
    #[ignore = "run by make consumers"]
    async fn etcd_serves_renewed_certificates_to_clients_and_peers() {
        let documented = Documented::start("etcd", &[NAME]).await;
        let etcd = built("etcd", &documented.node.root).join("etcd");
        println!("{}", output(command(&etcd).arg("--version")));
        let volume = documented.volume("etcd-0", "pod.yaml").await;
        let client = documented.client(&[]).await;
        let (work, port, peer_port) = (documented.directory("work"), free_port(), free_port());
        let work_path = work.display().to_string();
        let others = [("0.0.0.0", "127.0.0.1"), ("2379", &port), ("2380", &peer_port), ("/data", &work_path)];
        let config = documented.write(&work, "etcd.yaml", &volume, &others);
        let _etcd = Running::start(command(etcd).arg("--config-file").arg(config).args(["--log-level", "error"]));
        for (port, path) in [(&port, "/health"), (&peer_port, "/version")] {
            assert_renewed_without_failure(|| {
                let answer = revoking::get(port, path, &client);
                answer.contains("200 OK").then(|| served(port, NAME, &client, &[]))?
            })
            .await;
        }
    }
}
