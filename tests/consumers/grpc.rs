//! gRPC itself: its certificate provider, its health checks and its reflection.

use crate::page::Page;
use crate::program::{Running, built, command, outcome, output};
use crate::rotating::{Follower, RotatingNode, SOCKET, endpoint, socket_pod};
use crate::support::eventually;
use crate::{RENEWED, node_test, pod};
use std::path::PathBuf;

const ID: &str = "spiffe://example.org/ns/shop/sa/web";

/// A volume with the attributes of a manifest of the page, which is renewed every five seconds.
async fn volume(cluster: &RotatingNode, manifest: &str) -> PathBuf {
    let attributes = Page::of("grpc").attributes(manifest);
    let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    cluster.publish(&pod("web-0", &attributes.chain(RENEWED).collect::<Vec<_>>())).await
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn the_pemfile_provider_follows_the_files_through_ten_renewals_and_a_new_root() {
        let mut cluster = RotatingNode::start().await;
        let program = built("go_grpc", &cluster.node.root).join("grpc");
        let volume = volume(&cluster, "pod.yaml").await;
        let mut program = command(program);
        let mut follower = Follower::start(program.arg("files").arg(&volume).arg("web.shop.svc"), &volume, "");
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
    async fn grpc_with_go_spiffe_follows_the_socket_through_renewals() {
        let cluster = RotatingNode::start_beside(None, &["--trust-domain=example.org".to_owned()]).await;
        let program = built("go_grpc", &cluster.node.root).join("grpc");
        let volume = volume(&cluster, "socket.yaml").await;
        let mut program = command(program);
        program.env("SPIFFE_ENDPOINT_SOCKET", endpoint(&volume));
        let id = "spiffe://example.org/ns/shop/sa/default";
        let mut program = Running::start(program.args(["socket", id]));
        let mut before = program.ask("");
        for _ in 0..3 {
            eventually("the renewed certificate in gRPC", async || {
                let now = program.ask("");
                assert!(!now.starts_with("error"), "{now}");
                std::mem::replace(&mut before, now.clone()) != now
            })
            .await;
        }
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
