//! A PostgreSQL server with client certificates, its JDBC driver, and libpq.

use crate::program::{Running, built, command, directory, outcome, output};
use crate::support::{DEADLINE, Node, eventually};
use crate::{RENEWED, node, node_test, number, pod};
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
        let programs = newest_programs();
        let home = node.root.join("postgresql");
        directory(&home);
        let data = home.join("data");
        let text = |path: &Path| path.display().to_string();
        output(
            command(programs.join("initdb"))
                .args(["--no-sync", "--username=postgres", "--pgdata"])
                .arg(&data),
        );
        let rules = "hostssl all app 127.0.0.1/32 cert\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let role = home.join("role.sql");
        fs::write(&role, "create role app login").unwrap();
        let single = ["--single", "-D", &text(&data), "postgres"];
        output(command(programs.join("postgres")).args(single).stdin(File::open(role).unwrap()));
        // Nobody else asks the system for a port between this and the server's start, or else the server ends at once.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = command(programs.join("postgres"));
        server.arg("-D").arg(&data);
        let file = |name: &str| text(&volume.join(name));
        for setting in [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", text(&home)),
            "fsync=off".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("tls.crt")),
            format!("ssl_key_file={}", file("tls.key")),
            format!("ssl_ca_file={}", file("ca.crt")),
        ] {
            server.args(["-c", &setting]);
        }
        let server = Self { port, running: Running::start(&mut server), programs };
        server.wait();
        server
    }

    fn wait(&self) {
        let started = Instant::now();
        let port = self.port.to_string();
        while !outcome(Command::new(self.programs.join("pg_isready")).args(["-h", "127.0.0.1", "-p", &port]))
            .0
        {
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
        let file = |name: &str| volume.join(name).display().to_string();
        format!(
            "jdbc:postgresql://localhost:{}/postgres?user=app&sslmode=verify-full&sslrootcert={}&sslkey={}&sslpassword=changeit",
            self.port,
            file("ca.crt"),
            file("keystore.p12")
        )
    }

    /// What `psql` prints for a query, with the files of a volume.
    fn query(&self, volume: &Path, query: &str) -> String {
        let file = |name: &str| volume.join(name).display().to_string();
        let connection = format!(
            "host=localhost port={} user=app dbname=postgres sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
            self.port,
            file("ca.crt"),
            file("tls.crt"),
            file("tls.key")
        );
        output(command(self.programs.join("psql")).args(["-At", "-c", query, &connection])).trim().to_owned()
    }
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

node_test! {
    #[ignore = "run by make consumers"]
    async fn postgresql_and_its_clients_use_volumes_and_their_renewals() {
        let mut node = node(&[]);
        let kubelet = node.started().await;
        let java = built("java", &node.root);
        let server_attributes = [("dns-names", "localhost"), ("key-usages", "digital signature, server auth"), RENEWED[0], RENEWED[1]];
        let server_volume = kubelet.publish(&pod("database", &server_attributes)).await.unwrap();
        let server = Server::start(&node, &server_volume);

        let mut attributes = vec![
            ("common-name", "app"), ("dns-names", ""), ("key-usages", "digital signature, client auth"),
            ("pkcs12-enable", "true"), ("pkcs12-password", "changeit"), RENEWED[0], RENEWED[1],
        ];
        // With the alias that a keystore has by default, the driver sends no certificate.
        let other = kubelet.publish(&pod("other", &attributes)).await.unwrap();
        let refused = jdbc(&java, &server.url(&other)).ask("");
        assert!(refused.starts_with("error: ") && refused.contains("certificate"), "{refused}");

        attributes.push(("pkcs12-alias", "user"));
        let volume = kubelet.publish(&pod("app", &attributes)).await.unwrap();
        let mut client = jdbc(&java, &server.url(&volume));
        let before = client.ask("");
        assert!(!before.starts_with("error"), "{before}");
        eventually("the client uses its renewed keystore", async || client.ask("") != before).await;
        assert_ne!(number(&volume), before);
        assert_eq!(server.query(&volume, "select client_dn from pg_stat_ssl where pid = pg_backend_pid()"), "/CN=app");

        let anchors = server_volume.join("ca.crt");
        let before = server.number(&anchors);
        eventually("a renewal of the server", async || number(&server_volume) != before).await;
        assert_eq!(server.number(&anchors), before, "PostgreSQL reads its files at its start, and when it is told");
        server.running.signal(Signal::SIGHUP);
        eventually("the server uses its renewed certificate", async || server.number(&anchors) != before).await;
        let answer = client.ask("");
        assert!(!answer.starts_with("error"), "{answer}");
    }
}
