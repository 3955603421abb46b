//! gRPC itself: its certificate provider, its health checks and its reflection.

use crate::node_test;
use crate::program::{built, command, outcome, output};
use crate::rotating::{Follower, RotatingNode, SOCKET, socket_pod, spiffe_pod};
use crate::support::eventually;

const ID: &str = "spiffe://example.org/ns/shop/sa/web";

node_test! {
    #[ignore = "run by make consumers"]
    async fn the_pemfile_provider_follows_the_files_through_ten_renewals_and_a_new_root() {
        let mut cluster = RotatingNode::start().await;
        let program = built("go_grpc", &cluster.node.root).join("pemfile");
        // The provider's credentials verify the chain only.
        let volume = cluster.publish(&spiffe_pod("web-0", ID, &[])).await;
        let mut follower = Follower::start(command(program).arg(&volume), &volume, "");
        for _ in 0..10 {
            follower.renewed().await;
        }
        cluster.kill(|| assert!(!follower.current().is_empty())).await;
        follower.renewed().await;
        cluster.replace_root().await;
        eventually("the new root", async || cluster.has_present_root(&volume)).await;
        // It reads the files one by one, so that certificate and root may be of two generations until it reads them again.
        follower.caught_up().await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn grpcurl_uses_health_checks_and_reflection() {
        let cluster = RotatingNode::start().await;
        let grpcurl = built("grpcurl", &cluster.node.root).join("grpcurl");
        let socket = cluster.publish(&socket_pod("web-0", ID)).await.join(SOCKET);
        let call = |arguments: &[&str]| {
            let mut command = command(&grpcurl);
            command.args(["-plaintext", "-unix"]);
            command.args(&arguments[..arguments.len() - 1]).arg(&socket).arg(arguments[arguments.len() - 1]);
            command
        };
        let services = output(&mut call(&["list"]));
        let expected = [
            "SpiffeWorkloadAPI",
            "envoy.service.secret.v3.SecretDiscoveryService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ];
        assert_eq!(services.lines().collect::<Vec<_>>(), expected);
        let health = output(&mut call(&["grpc.health.v1.Health/Check"]));
        assert!(health.contains("SERVING"), "{health}");
        let fetch = "SpiffeWorkloadAPI/FetchX509Bundles";
        let (success, said) = outcome(&mut call(&["-max-time", "5", "-H", "workload.spiffe.io: true", fetch]));
        assert!(!success && said.contains("spiffe://example.org") && said.contains("DeadlineExceeded"), "{said}");
        let (success, said) = outcome(&mut call(&[fetch]));
        assert!(!success && said.contains("InvalidArgument"), "{said}");
    }
}
