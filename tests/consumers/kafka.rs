//! Kafka: a broker, and a client with the page's class for its TLS engines.

use crate::documented::{Documented, assert_renewed, free_port, served};
use crate::program::{OWNER, Running, built, command, outcome, output};
use crate::support::eventually;
use crate::{RENEWED, node_test, number, pod};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "kafka.shop.svc";

/// The page's classes, compiled, and Kafka's own.
struct Kafka {
    documented: Documented,
    work: PathBuf,
    classes: String,
}

impl Kafka {
    async fn new() -> Self {
        let documented = Documented::start("kafka", &[NAME]).await;
        let work = documented.directory("work");
        let kafka = built("kafka", &documented.node.root).display().to_string();
        let classes = format!("{}:{kafka}:{kafka}/*", work.display());
        for title in ["VolumeSslEngineFactory.java", "App.java"] {
            let source = work.join(title);
            fs::write(&source, documented.page.block(title, &[])).unwrap();
            output(command("javac").args(["-cp", &classes, "-d"]).arg(&work).arg(source));
        }
        Self { documented, work, classes }
    }

    fn java(&self, class: &str) -> Command {
        let mut java = command("java");
        java.args(["-Xmx256m", "-cp", &self.classes, class]);
        java
    }

    /// The page's client with the certificate of this volume. It closes an idle connection after a second.
    fn client(&self, volume: &Path, port: &str) -> Command {
        let others = [("9093", port), ("540000", "1000")];
        let config = self.documented.write(&self.work, "client.properties", volume, &others);
        let mut client = self.java("App");
        client.arg(config);
        client
    }

    /// A broker with the certificate of this volume, which prints the serial number of each client's certificate.
    fn broker(&self, volume: &Path, port: &str) -> Running {
        let controller = free_port();
        let config = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=SSL://{NAME}:{port}\n\
             inter.broker.listener.name=SSL\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=SSL:SSL,CONTROLLER:PLAINTEXT\nlog.dirs={work}/data\n\
             offsets.topic.replication.factor=1\nprincipal.builder.class=Seen\nssl.client.auth=required\n\
             ssl.engine.factory.class=VolumeSslEngineFactory\nssl.keystore.type=PEM\nssl.truststore.type=PEM\n\
             ssl.keystore.location={volume}/combined.pem\nssl.truststore.location={volume}/ca.crt\n",
            work = self.work.display(),
            volume = volume.display()
        );
        let file = self.work.join("server.properties");
        fs::write(&file, config).unwrap();
        let format = ["format", "--cluster-id", "MkU3OEVBNTcwNTJENDM2Qk", "--config"];
        output(self.java("kafka.tools.StorageTool").args(format).arg(&file));
        Running::start(self.java("kafka.Kafka").arg(file))
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn a_kafka_client_and_a_broker_use_renewed_certificates() {
        let kafka = Kafka::new().await;
        let usages = ("key-usages", "digital signature, server auth, client auth");
        let server = [("dns-names", NAME), usages, ("combined-file", "combined.pem"), RENEWED[0], RENEWED[1]];
        let server = kafka.documented.publish(&pod("broker", &server)).await;
        let client = kafka.documented.volume("app", "pod.yaml").await;
        let port = free_port();
        let broker = kafka.broker(&server, &port);
        assert_renewed(&server, || served(&port, NAME, &client, &[])).await;

        let talking = Running::start(&mut kafka.client(&client, &port));
        assert_eq!(talking.line(), "brokers: 1");
        let before = number(&client);
        eventually("a renewal", async || number(&client) != before).await;
        eventually("the broker sees the client's renewed certificate", async || {
            broker.line_after("client ") == number(&client)
        })
        .await;
        assert_eq!(talking.line(), "brokers: 1");
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn a_kafka_client_cannot_read_a_key_without_a_group() {
        if OWNER.is_none() {
            eprintln!("not checked: an ordinary user has no second user");
            return;
        }
        let kafka = Kafka::new().await;
        let volume = kafka.documented.volume_of_root("app", "pod.yaml").await;
        let (success, said) = outcome(&mut kafka.client(&volume, &free_port()));
        assert!(!success && said.contains("Failed to load PEM SSL keystore"), "{said}");
    }
}
