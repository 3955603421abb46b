//! `MariaDB`, with `certlet reload` around the page's server.

use crate::documented::{Documented, Processes, assert_renewed, free_port, name_user, of_volume, served};
use crate::node_test;
use crate::program::{OWNER, USER, command, outcome, output};
use crate::support::{eventually, pod_of};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "database.shop.svc";
/// Attributes of a client's volume.
const CLIENT: [(&str, &str); 3] =
    [("signer", "local"), ("common-name", "app"), ("key-usages", "digital signature, client auth")];

/// What the page's server needs on this machine.
struct Home {
    documented: Documented,
    directory: PathBuf,
    port: String,
}

impl Home {
    /// A new database.
    async fn new() -> Self {
        let documented = Documented::start("mariadb", &[NAME]).await;
        name_user(&documented.node.root, "mysql");
        let directory = documented.directory("mariadb");
        let mut install = command("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        output(install.arg(format!("--datadir={}", directory.join("data").display())));
        Self { documented, directory, port: free_port() }
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The server's command line, for the certificate of this volume.
    fn arguments(&self, volume: &Path) -> Vec<String> {
        let config = self.documented.write(&self.directory, "tls.cnf", volume, &[]);
        let users = self.directory.join("users.sql");
        fs::write(&users, self.documented.page.block("users.sql", &[])).unwrap();
        vec![
            format!("--defaults-file={}", config.display()),
            format!("--datadir={}", self.file("data")),
            format!("--socket={}", self.file("socket")),
            format!("--pid-file={}", self.file("pid")),
            format!("--init-file={}", users.display()),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
        ]
    }

    /// A client's volume, with other attributes.
    async fn client(&self, name: &str, attributes: &[(&str, &str)]) -> PathBuf {
        let mut pod = pod_of(&CLIENT, name, attributes);
        pod.fs_group = OWNER.is_some().then_some(USER);
        self.documented.publish(&pod).await
    }

    /// The answer that a client with this volume gets to the page's question.
    fn ask(&self, volume: &Path) -> (bool, String) {
        let config = volume.with_extension("cnf");
        let page = &self.documented.page;
        fs::write(&config, of_volume(&page.block("client.cnf", &[("3306", &self.port)]), volume)).unwrap();
        let mut client = command("mariadb");
        client.arg(format!("--defaults-file={}", config.display()));
        outcome(client.args(["--batch", "--skip-column-names", "-e", &page.block("seen.sql", &[])]))
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn mariadb_uses_a_renewed_certificate_after_a_flush() {
        let home = Home::new().await;
        let volume = home.documented.volume("database", "pod.yaml").await;
        let program = format!("mariadbd, {}", home.arguments(&volume).join(", "));
        let user = format!("--user=mysql --socket={}", home.file("socket"));
        let others = [("docker-entrypoint.sh, mariadbd", program.as_str()), ("--user=mysql", &user)];
        let processes = Processes::start(vec![home.documented.reload("pod.yaml", &volume, &others)]);

        let client = home.client("app", &[]).await;
        assert_renewed(&volume, || served(&home.port, NAME, &client, &["-starttls", "mysql"])).await;
        let ask = || {
            let (success, said) = home.ask(&client);
            assert!(success && said.starts_with("Ssl_server_not_after\t"), "{said}");
            said
        };
        let before = ask();
        eventually("the server shows the renewed certificate", async || ask() != before).await;
        let other = home.client("other", &[("common-name", "other")]).await;
        let (success, said) = home.ask(&other);
        assert!(!success && said.contains("Access denied for user 'app'@"), "{said}");
        // MariaDB ends with this signal alone, which certlet passes on.
        processes.running[0].signal(Signal::SIGTERM);
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn mariadb_does_not_start_with_a_key_that_it_cannot_read() {
        if OWNER.is_none() {
            eprintln!("not checked: an ordinary user has no second user");
            return;
        }
        let home = Home::new().await;
        let volume = home.documented.volume_of_root("database", "pod.yaml").await;
        let mut server: Command = command("mariadbd");
        let (success, said) = outcome(server.args(home.arguments(&volume)));
        assert!(!success && said.contains("SSL error: Unable to get private key from") && said.contains("[ERROR] Aborting"), "{said}");
    }
}
