//! Spring Boot, with the page's application.

use crate::documented::{Documented, assert_renewed, free_port, served};
use crate::node_test;
use crate::program::{OWNER, Running, built, command, outcome, output};
use std::fs;
use std::path::Path;
use std::process::Command;

const NAME: &str = "web.shop.svc";

/// The page's application, for this volume and port.
fn application(documented: &Documented, volume: &Path, port: &str) -> Command {
    let work = documented.directory("work");
    documented.write(&work, "application.yaml", volume, &[("8443", port)]);
    let source = work.join("Web.java");
    fs::write(&source, documented.page.block("Web.java", &[])).unwrap();
    let libraries = format!("{}/*", built("spring_boot", &documented.node.root).display());
    output(command("javac").args(["-parameters", "-cp", &libraries, "-d"]).arg(&work).arg(source));
    let mut java = command("java");
    java.arg("-cp").arg(format!("{}:{libraries}", work.display())).arg("shop.Web");
    java.args(["--server.address=127.0.0.1", &format!("--spring.config.location={}/", work.display())]);
    // Tomcat's own directory.
    java.arg(format!("--server.tomcat.basedir={}", work.display()));
    java
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn spring_boot_reloads_its_certificate_by_itself() {
        let documented = Documented::start("spring-boot", &[NAME]).await;
        let volume = documented.volume("web", "pod.yaml").await;
        let client = documented.volume("client", "pod.yaml").await;
        let port = free_port();
        let _running = Running::start(&mut application(&documented, &volume, &port));
        assert_renewed(&volume, || served(&port, NAME, &client, &[])).await;
        // It still asks clients for a certificate, and trusts theirs.
        let url = format!("https://{NAME}:{port}/");
        let file = |name: &str| client.join(name).display().to_string();
        let [anchors, certificate, key] = ["ca.crt", "tls.crt", "tls.key"].map(file);
        let curl = ["--silent", "--show-error", "--fail", "--cacert", &anchors, &url];
        let said = output(Command::new("curl").args(curl).args(["--cert", &certificate, "--key", &key]));
        assert!(said.len() > 8 && said.bytes().all(|digit| digit.is_ascii_hexdigit()), "{said}");
        assert!(!outcome(Command::new("curl").args(curl)).0, "a client without a certificate is let in");
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn spring_boot_does_not_start_with_a_key_that_it_cannot_read() {
        if OWNER.is_none() {
            eprintln!("not checked: an ordinary user has no second user");
            return;
        }
        let documented = Documented::start("spring-boot", &[NAME]).await;
        let volume = documented.volume_of_root("web", "pod.yaml").await;
        let (success, said) = outcome(&mut application(&documented, &volume, &free_port()));
        assert!(!success && said.contains("tls.key (Permission denied)"), "{said}");
    }
}
