//! SPIFFE libraries that follow a volume's socket by the SPIFFE Workload API.

use crate::federated::{FEDERATED, Mesh, is_of_next_root};
use crate::node_test;
use crate::program::{Running, built, command};
use crate::rotating::{RotatingNode, SOCKET, assert_follows, endpoint, socket_pod, spiffe_pod};
use crate::support::eventually;
use std::path::Path;

const CLIENT: &str = "spiffe://example.org/ns/shop/sa/cart";
const SERVER: &str = "spiffe://example.org/ns/shop/sa/orders";

/// Two programs with go-spiffe, each with its own pod's socket.
struct Pair {
    serving: Running,
    talking: Running,
    ids: [String; 2],
}

impl Pair {
    fn start(program: &Path, client: &Path, server: &Path) -> Self {
        Self::between(program, (client, CLIENT), (server, SERVER))
    }

    /// Between a client and a server of these IDs.
    fn between(program: &Path, client: (&Path, &str), server: (&Path, &str)) -> Self {
        let serving = Running::start(command(program).arg("serve").arg(endpoint(server.0)).arg(client.1));
        let address = serving.line();
        let talking =
            Running::start(command(program).arg("talk").arg(endpoint(client.0)).args([&address, server.1]));
        Self { serving, talking, ids: [client.1, server.1].map(|id| format!(" {id}")) }
    }

    /// One connection: the serial numbers that client and server show, or their errors.
    fn talk(&mut self) -> Result<[String; 2], [String; 2]> {
        let seen = [self.talking.ask(""), self.serving.line()];
        let [server, client] = &seen;
        match (server.strip_suffix(&self.ids[1]), client.strip_suffix(&self.ids[0])) {
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
    async fn go_spiffe_talks_between_two_trust_domains_that_federate_and_refuses_a_third_one() {
        let mut mesh = Mesh::start().await;
        let program = built("go_grpc", &mesh.ours.node.root).join("workload-api");
        let [ours, partner, third] =
            ["example.org", "partner.org", "third.org"].map(|domain| format!("spiffe://{domain}/ns/shop/sa/web"));
        let pod = |name: &str, id: &str| spiffe_pod(name, id, &[("socket-file", SOCKET), FEDERATED]);
        let our_volume = mesh.ours.publish(&pod("web-0", &ours)).await;
        let partner_volume = mesh.partner.publish(&pod("web-1", &partner)).await;
        let third_volume = mesh.third.publish(&pod("web-2", &third)).await;
        let (our, theirs) = ((our_volume.as_path(), ours.as_str()), (partner_volume.as_path(), partner.as_str()));
        let mut to_partner = Pair::between(&program, our, theirs);
        let mut from_partner = Pair::between(&program, theirs, our);
        eventually("the trust bundles of both", async || to_partner.talk().is_ok() && from_partner.talk().is_ok()).await;
        to_partner.renewed().await;
        from_partner.renewed().await;
        // A new root of one of them, which its document names before.
        mesh.replace_root_of_partner().await;
        eventually("the new root at both", async || {
            is_of_next_root(&partner_volume.join("tls.crt")) && to_partner.talk().is_ok() && from_partner.talk().is_ok()
        })
        .await;
        from_partner.renewed().await;
        // The third one trusts both, and is trusted by neither, although its ID would be accepted.
        let other = (third_volume.as_path(), third.as_str());
        let [seen_by_client, seen_by_server] = Pair::between(&program, other, our).talk().unwrap_err();
        assert!(seen_by_client.starts_with("error: "), "{seen_by_client}");
        assert!(seen_by_server.contains("third.org") && seen_by_server.contains("bundle"), "{seen_by_server}");
        let [seen_by_client, _] = Pair::between(&program, our, other).talk().unwrap_err();
        assert!(seen_by_client.contains("third.org") && seen_by_client.contains("bundle"), "{seen_by_client}");
        // A pod of ours that does not ask for federation does not trust the other trust domain.
        let alone = mesh.ours.publish(&socket_pod("web-3", &ours)).await;
        let [seen_by_client, _] = Pair::between(&program, (&alone, &ours), theirs).talk().unwrap_err();
        assert!(seen_by_client.contains("partner.org") && seen_by_client.contains("bundle"), "{seen_by_client}");
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
