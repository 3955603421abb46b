//! Go, with the program of its page.

use crate::documented::{Documented, assert_renewed_without_failure, free_port, served};
use crate::node_test;
use crate::page::Page;
use crate::program::{Running, built, command};
use crate::revoking::is_answered;
use crate::support::eventually;

const NAME: &str = "web.shop.svc";

#[test]
fn the_pages_show_the_programs_that_run() {
    let go = Page::of("go");
    assert_eq!(go.block("main.go", &[]), include_str!("go/cmd/reloading/main.go"));
    let grpc = Page::of("grpc");
    assert_eq!(grpc.block("pemfile.go", &[]), include_str!("go/cmd/grpc/pemfile.go"));
    assert_eq!(grpc.block("workload_api.go", &[]), include_str!("go/cmd/grpc/workload_api.go"));
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn a_go_server_and_client_use_renewed_certificates() {
        let documented = Documented::start("go", &[NAME]).await;
        let program = built("go", &documented.node.root).join("reloading");
        let volume = documented.volume("web", "pod.yaml").await;
        let (client, port) = (documented.client(&[]).await, free_port());
        let mut server = command(&program);
        server.arg("-volume").arg(&volume).args(["-listen", &format!("127.0.0.1:{port}")]);
        let _server = Running::start(&mut server);
        assert_renewed_without_failure(|| {
            is_answered(port.parse().unwrap(), &client).then(|| served(&port, NAME, &client, &[]))?
        })
        .await;

        // The server says which certificate the client has.
        let calling = documented.volume("caller", "pod.yaml").await;
        let mut caller = command(&program);
        let url = format!("https://{NAME}:{port}/");
        let caller = Running::start(caller.arg("-volume").arg(&calling).args(["-call", &url]));
        let before = caller.line();
        eventually("the server sees the client's renewed certificate", async || {
            let now = caller.line();
            assert!(now.starts_with("hello "), "{now}");
            now != before
        })
        .await;
        // A name that the certificate does not have.
        let (url, mut other) = (format!("https://localhost:{port}/"), command(&program));
        let other = Running::start(other.arg("-volume").arg(&calling).args(["-call", &url]));
        let refused = other.line();
        assert!(refused.contains("certificate is valid for web.shop.svc, not localhost"), "{refused}");
    }
}
