//! SPIFFE libraries that follow a volume's socket by the SPIFFE Workload API.

use crate::node_test;
use crate::program::{Running, built, command};
use crate::rotating::{RotatingNode, assert_follows, endpoint, socket_pod};
use crate::support::eventually;
use std::path::Path;

const CLIENT: &str = "spiffe://example.org/ns/shop/sa/cart";
const SERVER: &str = "spiffe://example.org/ns/shop/sa/orders";

/// Two programs with go-spiffe, each with its own pod's socket.
struct Pair {
    serving: Running,
    talking: Running,
}

impl Pair {
    fn start(program: &Path, client: &Path, server: &Path) -> Self {
        let serving = Running::start(command(program).arg("serve").arg(endpoint(server)).arg(CLIENT));
        let address = serving.line();
        let talking =
            Running::start(command(program).arg("talk").arg(endpoint(client)).args([&address, SERVER]));
        Self { serving, talking }
    }

    /// One connection: the serial numbers that client and server show, or their errors.
    fn talk(&mut self) -> Result<[String; 2], [String; 2]> {
        let seen = [self.talking.ask(""), self.serving.line()];
        let [server, client] = &seen;
        match (server.strip_suffix(&format!(" {SERVER}")), client.strip_suffix(&format!(" {CLIENT}"))) {
            (Some(server), Some(client)) => Ok([client.to_owned(), server.to_owned()]),
            _ => Err(seen),
        }
    }

    /// Waits until both have another certificate. Meanwhile no connection fails.
    async fn renewed(&mut self) {
        let before = self.talk().unwrap();
        eventually("both certificates are renewed", async || {
            let now = self.talk().unwrap();
            now.iter().zip(&before).all(|(now, before)| now != before)
        })
        .await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn go_spiffe_keeps_mutual_tls_between_two_pods_through_renewals_and_a_kill() {
        let mut cluster = RotatingNode::start().await;
        let program = built("go_grpc", &cluster.node.root).join("workload-api");
        let client = cluster.publish(&socket_pod("cart-0", CLIENT)).await;
        let server = cluster.publish(&socket_pod("orders-0", SERVER)).await;
        let mut pair = Pair::start(&program, &client, &server);
        for _ in 0..3 {
            pair.renewed().await;
        }
        cluster.kill(|| assert!(pair.talk().is_ok())).await;
        pair.renewed().await;
        // The two get the new root at different times. In between they refuse each other.
        cluster.replace_root().await;
        eventually("the new root at both", async || {
            cluster.has_present_root(&client) && cluster.has_present_root(&server) && pair.talk().is_ok()
        })
        .await;
        pair.renewed().await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn java_spiffe_follows_renewals_a_kill_and_a_new_root() {
        let mut cluster = RotatingNode::start().await;
        let classes = built("java_spiffe", &cluster.node.root);
        let path = format!("{0}:{0}/*", classes.display());
        assert_follows(&mut cluster, Path::new("java"), &["-cp", &path, "WorkloadApi"]).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn python_spiffe_follows_renewals_a_kill_and_a_new_root() {
        let mut cluster = RotatingNode::start().await;
        let program = built("python", &cluster.node.root).join("workload_api.py").display().to_string();
        // Without the machine's own packages, of which some are too old for the library.
        assert_follows(&mut cluster, Path::new("python3"), &["-S", &program]).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn rust_spiffe_follows_renewals_a_kill_and_a_new_root() {
        let mut cluster = RotatingNode::start().await;
        let program = built("rust", &cluster.node.root).join("workload-api");
        assert_follows(&mut cluster, &program, &[]).await;
    }
}
