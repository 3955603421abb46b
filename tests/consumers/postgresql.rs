//! A PostgreSQL server with client certificates, its JDBC driver, and libpq.

use crate::documented::{Documented, Processes, assert_renewed, free_port, name_loopback, of_volume, served};
use crate::node_test;
use crate::page::Page;
use crate::program::{OWNER, Running, USER, built, command, directory, outcome, output};
use crate::revoking::{CRL, Reloader, Revoking};
use crate::support::{DEADLINE, eventually, pod_of};
use certlet_kubelet::Pod;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The name of the server.
const NAME: &str = "database.shop.svc";

/// The page's server on loopback, which lets the user `app` in with a certificate of that common name only.
struct Server {
    programs: PathBuf,
    port: String,
    processes: Processes,
}

impl Server {
    /// Starts it with the certificate of this volume, these settings beside those of the page, and other programs beside it.
    fn start(root: &Path, volume: &Path, settings: &[String], beside: Vec<Command>) -> Self {
        let (programs, port) = (newest_programs(), free_port());
        let home = root.join("postgresql");
        directory(&home);
        let data = file(&home, "data");
        output(
            command(programs.join("initdb"))
                .args(["--no-sync", "--username=postgres", "--pgdata"])
                .arg(&data),
        );
        let role = home.join("role.sql");
        fs::write(&role, "create role app login").unwrap();
        let single = ["--single", "-D", &data, "postgres"];
        output(command(programs.join("postgres")).args(single).stdin(File::open(role).unwrap()));

        let page = Page::of("postgresql");
        fs::write(home.join("pg_hba.conf"), page.block("pg_hba.conf", &[])).unwrap();
        let config = page.block(
            "postgresql.conf",
            &[("'*'", "'127.0.0.1'"), ("5432", &port), ("/etc/postgresql", &home.display().to_string())],
        );
        let file = home.join("postgresql.conf");
        fs::write(&file, of_volume(&config, volume)).unwrap();
        let mut server = command(programs.join("postgres"));
        server.args(["-D", &data, "-c", &format!("config_file={}", file.display()), "-c", "fsync=off"]);
        server.args(["-c", &format!("unix_socket_directories={}", home.display())]);
        server.args(settings.iter().flat_map(|setting| ["-c", setting]));
        let mut commands = beside;
        commands.insert(0, server);
        let server = Self { programs, port, processes: Processes::start(commands) };
        server.wait();
        server
    }

    /// Waits until it answers.
    fn wait(&self) {
        let started = Instant::now();
        let mut ask = Command::new(self.programs.join("pg_isready"));
        ask.args(["-h", "127.0.0.1", "-p", &self.port]);
        while !outcome(&mut ask).0 {
            assert!(started.elapsed() < DEADLINE, "the server does not start");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Asks with `psql` and the service of the page for the client's name and the serial number of its certificate: whether it
    /// succeeded, and what it printed.
    fn query(&self, volume: &Path) -> (bool, String) {
        let page = Page::of("libpq");
        let service = volume.with_extension("pg_service.conf");
        fs::write(&service, of_volume(&page.block("pg_service.conf", &[("5432", &self.port)]), volume))
            .unwrap();
        let query = page.block("seen.sql", &[]);
        let mut psql = command(self.programs.join("psql"));
        psql.env("PGSERVICEFILE", service);
        outcome(psql.args(["--no-psqlrc", "-At", "-c", &query, "service=database"]))
    }

    /// The serial number of the certificate that it serves.
    fn served(&self, client: &Path) -> Option<String> {
        served(&self.port, NAME, client, &["-starttls", "postgres"])
    }
}

fn file(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

/// The folder of Debian's newest server.
fn newest_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("the Debian package postgresql");
    let mut found: Vec<PathBuf> = versions.map(|version| version.unwrap().path().join("bin")).collect();
    found.retain(|folder| folder.join("postgres").exists());
    found.sort();
    found.pop().expect("the Debian package postgresql")
}

/// A node with the page's server, whose certificate is renewed.
struct Database {
    server: Server,
    volume: PathBuf,
    documented: Documented,
}

impl Database {
    async fn start() -> Self {
        let documented = Documented::start("postgresql", &[NAME]).await;
        let volume = documented.volume("database", "pod.yaml").await;
        let reload = documented.reload("pod.yaml", &volume, &[]);
        let server = Server::start(&documented.node.root, &volume, &[], vec![reload]);
        Self { server, volume, documented }
    }

    /// A client's volume, as a page shows it.
    async fn client(&self, page: &str) -> PathBuf {
        self.documented.volume_of_page(&Page::of(page), "app", "pod.yaml").await
    }

    /// The page's JDBC client with this volume.
    fn jdbc(&self, volume: &Path) -> Command {
        let folder = volume.with_extension("program");
        directory(&folder);
        let source = Page::of("jdbc").block("App.java", &[("5432", &self.server.port)]);
        let program = folder.join("App.java");
        fs::write(&program, of_volume(&source, volume)).unwrap();
        let java = self.documented.node.root.join("java");
        let java = if java.exists() { java } else { built("java", &self.documented.node.root) };
        let mut command = command("java");
        command.arg("-cp").arg(java.join("postgresql.jar")).arg(program);
        command
    }
}

/// A pod with the attributes of a page's client.
fn client_pod(page: &str, name: &str, other: &[(&str, &str)]) -> Pod {
    let attributes = Page::of(page).attributes("pod.yaml");
    let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let attributes: Vec<_> =
        attributes.filter(|(name, _)| !other.iter().any(|(other, _)| name == other)).collect();
    pod_of(&[&[("signer", "local")], other].concat(), name, &attributes)
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn the_jdbc_driver_needs_the_alias_user_and_sees_a_renewal() {
        let database = Database::start().await;
        let volume = database.client("jdbc").await;
        let client = Running::start(&mut database.jdbc(&volume));
        let before = client.line();
        eventually("the client uses its renewed keystore", async || client.line() != before).await;
        if OWNER.is_none() {
            return;
        }
        // With the alias that a keystore has by default, the driver sends no certificate.
        let owner = OWNER.as_deref().unwrap_or("0");
        let other = client_pod("jdbc", "other", &[("pkcs12-alias", "certificate"), ("owner", owner)]);
        let (_, refused) = outcome(&mut database.jdbc(&database.documented.publish(&other).await));
        assert!(refused.contains("FATAL: connection requires a valid client certificate"), "{refused}");
        let unreadable = database.documented.publish(&client_pod("jdbc", "unreadable", &[])).await;
        let (_, refused) = outcome(&mut database.jdbc(&unreadable));
        assert!(refused.contains("X.509 CertificateFactory not available") && refused.contains("(Permission denied)"), "{refused}");
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn postgresql_uses_a_renewed_certificate_after_a_reload() {
        let database = Database::start().await;
        let client = database.client("libpq").await;
        assert_renewed(&database.volume, || database.server.served(&client)).await;
        assert_renewed(&database.volume, || database.server.served(&client)).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn libpq_uses_a_renewed_certificate_for_a_new_connection() {
        let database = Database::start().await;
        let client = database.client("libpq").await;
        let query = || {
            let (success, said) = database.server.query(&client);
            assert!(success && said.starts_with("/CN=app|"), "{said}");
            said
        };
        let before = query();
        eventually("the client uses its renewed certificate", async || query() != before).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn libpq_reads_a_key_of_its_user_alone_or_of_root_and_a_group() {
        let Some(owner) = OWNER.as_deref() else {
            eprintln!("not checked: an ordinary user has no second user and group to give a file to");
            return;
        };
        let database = Database::start().await;
        for (name, owner, group, said) in [
            ("by-group", None, Some(USER), "/CN=app|"),
            ("by-owner", Some(owner), None, "/CN=app|"),
            // With both, the key is the user's, and its group may read it too.
            ("by-both", Some(owner), Some(USER), "has group or world access"),
            ("by-nobody", None, None, "could not load private key file"),
        ] {
            let mut pod = client_pod("libpq", name, &owner.map(|owner| ("owner", owner)).into_iter().collect::<Vec<_>>());
            pod.fs_group = group;
            let volume = database.documented.publish(&pod).await;
            let (success, found) = database.server.query(&volume);
            assert!(success == said.starts_with('/') && found.contains(said), "{name}: {found}");
        }
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn postgresql_refuses_a_revoked_client_within_one_refresh() {
        let revoking = Revoking::start().await;
        name_loopback(&revoking.node.root, &[NAME]);
        let volume = revoking.server("database", &[("dns-names", NAME)]).await;
        let (revoked, other) = (revoking.client("app-0").await, revoking.client("app-1").await);
        let list = format!("ssl_crl_file={}", file(&volume, CRL));
        let server = Server::start(&revoking.node.root, &volume, &[list], Vec::new());
        let mut reloader = Reloader::new(&volume, &server.processes.running[0], Signal::SIGHUP);
        let answers = |client: &Path| {
            reloader.reload_if_changed();
            let (success, said) = server.query(client);
            success && said.starts_with("/CN=app|")
        };
        revoking.assert_refused(&revoked, &other, answers).await;
    }
}
