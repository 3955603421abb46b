//! Python, with the page's server and client.

use crate::documented::{Documented, assert_renewed, free_port, served};
use crate::node_test;
use crate::program::{OWNER, Running, built, command, outcome};
use crate::support::eventually;
use std::path::Path;
use std::process::Command;

const NAME: &str = "web.shop.svc";

/// Python with the packages of a folder, and without the machine's own.
fn python(packages: &Path) -> Command {
    let mut command = command("python3");
    command.args(["-S", "-u"]).env("PYTHONPATH", packages);
    command
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn a_python_server_and_client_use_renewed_certificates() {
        let documented = Documented::start("python", &[NAME]).await;
        let server = documented.volume("web", "pod.yaml").await;
        let client = documented.volume("client", "pod.yaml").await;
        let packages = built("urllib3", &documented.node.root);
        let port = free_port();
        let work = documented.directory("work");
        let program = documented.write(&work, "server.py", &server, &[("8443", &port)]);
        let serving = Running::start(python(&packages).arg(program));
        assert_renewed(&server, || served(&port, NAME, &client, &[])).await;
        assert_eq!(serving.line(), "certificate loaded");

        let program = documented.write(&work, "client.py", &client, &[("8443", &port)]);
        let talking = Running::start(python(&packages).arg(program));
        let before = talking.line();
        eventually("the server sees the client's renewed certificate", async || talking.line() != before).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn python_cannot_read_a_key_without_a_group() {
        if OWNER.is_none() {
            eprintln!("not checked: an ordinary user has no second user");
            return;
        }
        let documented = Documented::start("python", &[NAME]).await;
        let volume = documented.volume_of_root("web", "pod.yaml").await;
        let packages = built("urllib3", &documented.node.root);
        let program = documented.write(&documented.directory("work"), "server.py", &volume, &[]);
        let (success, said) = outcome(python(&packages).arg(program));
        assert!(!success && said.contains("PermissionError: [Errno 13] Permission denied"), "{said}");
    }
}
