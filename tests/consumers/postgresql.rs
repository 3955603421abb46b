//! A PostgreSQL server with client certificates, its JDBC driver, and libpq.

use crate::program::{OWNER, Running, USER, built, command, directory, outcome, output};
use crate::revoking::{CRL, Reloader, Revoking};
use crate::support::{DEADLINE, Node, eventually, pod_of};
use crate::{RENEWED, node, node_test, number, pod};
use certlet_kubelet::Kubelet;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A server on loopback, which lets the user `app` in with a certificate of that common name only.
struct Server {
    programs: PathBuf,
    port: u16,
    running: Running,
}

impl Server {
    /// Starts it with the certificate of this volume.
    fn start(node: &Node, volume: &Path) -> Self {
        Self::start_with(node, volume, &[])
    }

    /// With more settings.
    fn start_with(node: &Node, volume: &Path, settings: &[String]) -> Self {
        let programs = newest_programs();
        let home = node.root.join("postgresql");
        directory(&home);
        let data = file(&home, "data");
        output(
            command(programs.join("initdb"))
                .args(["--no-sync", "--username=postgres", "--pgdata"])
                .arg(&data),
        );
        let rules = "hostssl all app 127.0.0.1/32 cert\n";
        fs::write(home.join("data/pg_hba.conf"), rules).unwrap();
        let role = home.join("role.sql");
        fs::write(&role, "create role app login").unwrap();
        let single = ["--single", "-D", &data, "postgres"];
        output(command(programs.join("postgres")).args(single).stdin(File::open(role).unwrap()));
        // PostgreSQL cannot choose a port itself. If another process takes this one first, the test fails.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = command(programs.join("postgres"));
        server.arg("-D").arg(&data);
        for setting in [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", home.display()),
            "fsync=off".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file(volume, "tls.crt")),
            format!("ssl_key_file={}", file(volume, "tls.key")),
            format!("ssl_ca_file={}", file(volume, "ca.crt")),
        ]
        .iter()
        .chain(settings)
        {
            server.args(["-c", setting]);
        }
        let server = Self { port, running: Running::start(&mut server), programs };
        server.wait();
        server
    }

    /// Waits until it answers.
    fn wait(&self) {
        let started = Instant::now();
        let port = self.port.to_string();
        let mut ask = Command::new(self.programs.join("pg_isready"));
        ask.args(["-h", "127.0.0.1", "-p", &port]);
        while !outcome(&mut ask).0 {
            assert!(started.elapsed() < DEADLINE, "the server does not start");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// The serial number of its certificate.
    fn number(&self, anchors: &Path) -> String {
        let address = format!("127.0.0.1:{}", self.port);
        let client =
            ["s_client", "-starttls", "postgres", "-verify_return_error", "-connect", &address, "-CAfile"];
        let (_, said) = outcome(Command::new("openssl").args(client).arg(anchors));
        let begin = said.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{said}"));
        let (_, block) = x509_parser::pem::parse_x509_pem(&said.as_bytes()[begin..]).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&block.contents).unwrap();
        format!("{:x}", leaf.serial)
    }

    /// The URL with which the JDBC driver connects with the files of a volume.
    fn url(&self, volume: &Path) -> String {
        let (port, anchors, keystore) = (self.port, file(volume, "ca.crt"), file(volume, "keystore.p12"));
        format!(
            "jdbc:postgresql://localhost:{port}/postgres?user=app&sslmode=verify-full&sslrootcert={anchors}&sslkey={keystore}&\
             sslpassword=changeit"
        )
    }

    /// Asks with `psql` and the files of a volume for the client's name: whether it succeeded, and what it printed.
    fn query(&self, volume: &Path) -> (bool, String) {
        let [anchors, certificate, key] = ["ca.crt", "tls.crt", "tls.key"].map(|name| file(volume, name));
        let connection = format!(
            "host=localhost port={} user=app dbname=postgres sslmode=verify-full sslrootcert={anchors} sslcert={certificate} \
             sslkey={key}",
            self.port
        );
        let query = "select client_dn from pg_stat_ssl where pid = pg_backend_pid()";
        outcome(command(self.programs.join("psql")).args(["-At", "-c", query, &connection]))
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

/// A client through the JDBC driver: an answer for each connection.
fn jdbc(java: &Path, url: &str) -> Running {
    let classes = format!("{}:{}", java.display(), java.join("postgresql.jar").display());
    Running::start(command("java").args(["-cp", &classes, "Connect", url]))
}

/// Starts a node, and on it a server whose certificate is renewed. Returns its volume as well.
async fn started(node: &mut Node) -> (Kubelet, Server, PathBuf) {
    let kubelet = node.started().await;
    let usages = ("key-usages", "digital signature, server auth");
    let pod = pod("database", &[("dns-names", "localhost"), usages, RENEWED[0], RENEWED[1]]);
    let volume = kubelet.publish(&pod).await.unwrap();
    let server = Server::start(node, &volume);
    (kubelet, server, volume)
}

/// Attributes of a client.
const CLIENT: [(&str, &str); 5] = [
    ("common-name", "app"),
    ("dns-names", ""),
    ("key-usages", "digital signature, client auth"),
    ("pkcs12-enable", "true"),
    ("pkcs12-password", "changeit"),
];

node_test! {
    #[ignore = "run by make consumers"]
    async fn the_jdbc_driver_needs_the_alias_user_and_sees_a_renewal() {
        let mut node = node(&[]);
        let (kubelet, server, _) = started(&mut node).await;
        let java = built("java", &node.root);
        // With the alias that a keystore has by default, the driver sends no certificate.
        let other = kubelet.publish(&pod("other", &CLIENT)).await.unwrap();
        let refused = jdbc(&java, &server.url(&other)).ask("");
        assert!(refused.contains("connection requires a valid client certificate"), "{refused}");

        let attributes = [&CLIENT[..], &RENEWED, &[("pkcs12-alias", "user")]].concat();
        let volume = kubelet.publish(&pod("app", &attributes)).await.unwrap();
        let mut client = jdbc(&java, &server.url(&volume));
        let before = client.ask("");
        assert!(!before.starts_with("error"), "{before}");
        eventually("the client uses its renewed keystore", async || {
            let now = client.ask("");
            assert!(!now.starts_with("error"), "{now}");
            now != before
        })
        .await;
        assert_ne!(number(&volume), before);
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn postgresql_uses_a_renewed_certificate_after_a_reload() {
        let mut node = node(&[]);
        let (_kubelet, server, volume) = started(&mut node).await;
        let anchors = volume.join("ca.crt");
        let before = server.number(&anchors);
        eventually("a renewal", async || number(&volume) != before).await;
        assert_eq!(server.number(&anchors), before, "PostgreSQL reads its files at its start, and when it is told");
        server.running.signal(Signal::SIGHUP);
        eventually("the server uses its renewed certificate", async || server.number(&anchors) != before).await;
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn libpq_reads_a_key_of_its_user_alone_or_of_root_and_a_group() {
        let mut node = node(&[]);
        let (kubelet, server, _) = started(&mut node).await;
        let volume = kubelet.publish(&pod("app", &CLIENT)).await.unwrap();
        assert_eq!(server.query(&volume), (true, "/CN=app\n".to_owned()));
        if OWNER.is_none() {
            eprintln!("not checked: an ordinary user has no second user and group to give a file to");
            return;
        }
        let mut by_group = pod_of(&[("signer", "local")], "by-group", &CLIENT);
        by_group.fs_group = Some(USER);
        let volume = kubelet.publish(&by_group).await.unwrap();
        assert_eq!(server.query(&volume), (true, "/CN=app\n".to_owned()));
        // With both, the key is the user's, and its group may read it too.
        let mut by_both = pod("by-both", &CLIENT);
        by_both.fs_group = Some(USER);
        let volume = kubelet.publish(&by_both).await.unwrap();
        let (success, said) = server.query(&volume);
        assert!(!success && said.contains("has group or world access"), "{said}");
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn postgresql_refuses_a_revoked_client_within_one_refresh() {
        let revoking = Revoking::start().await;
        let volume = revoking.server("database", &[]).await;
        let (revoked, other) = (revoking.client("app-0").await, revoking.client("app-1").await);
        let list = format!("ssl_crl_file={}", file(&volume, CRL));
        let server = Server::start_with(&revoking.node, &volume, &[list]);
        let mut reloader = Reloader::new(&volume, &server.running, Signal::SIGHUP);
        let answers = |client: &Path| {
            reloader.reload_if_changed();
            server.query(client) == (true, "/CN=app\n".to_owned())
        };
        revoking.assert_refused(&revoked, &other, answers).await;
    }
}
