//! Node.js, with the page's server and client.

use crate::documented::{Documented, assert_renewed, free_port, served};
use crate::node_test;
use crate::program::{OWNER, Running, command, outcome};
use crate::support::eventually;

const NAME: &str = "web.shop.svc";

node_test! {
    #[ignore = "run by make consumers"]
    async fn a_node_server_and_client_use_renewed_certificates() {
        let documented = Documented::start("node", &[NAME]).await;
        let server = documented.volume("web", "pod.yaml").await;
        let client = documented.volume("client", "pod.yaml").await;
        let port = free_port();
        let work = documented.directory("work");
        let program = documented.write(&work, "server.js", &server, &[("8443", &port)]);
        let serving = Running::start(command("node").arg(program));
        assert_renewed(&server, || served(&port, NAME, &client, &[])).await;
        assert_eq!(serving.line(), "certificate loaded");

        let program = documented.write(&work, "client.js", &client, &[("8443", &port)]);
        let talking = Running::start(command("node").arg(program));
        let before = talking.line();
        eventually("the server sees the client's renewed certificate", async || talking.line() != before).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn node_cannot_read_a_key_without_a_group() {
        if OWNER.is_none() {
            eprintln!("not checked: an ordinary user has no second user");
            return;
        }
        let documented = Documented::start("node", &[NAME]).await;
        let volume = documented.volume_of_root("web", "pod.yaml").await;
        let program = documented.write(&documented.directory("work"), "server.js", &volume, &[]);
        let (success, said) = outcome(command("node").arg(program));
        assert!(!success && said.contains("Error: EACCES: permission denied, open"), "{said}");
    }
}
