//! cert-manager with the pod's own account, and AWS Private CA with the pod's own AWS credentials.

use crate::cert_manager::{Authority, SIGNED};
use crate::certificate_requests::Server;
use crate::fake_pca::{CA, FakePca};
use crate::harness::Sidecar;
use crate::node_test;
use crate::support::{assert_whole, eventually};
use serde_json::json;
use std::fs;
use std::time::Duration;

const OF_ISSUER: [&str; 2] = ["issuer-name=ca", "dns-names=web.shop.svc"];

/// A sidecar with an API server.
async fn with_server(attributes: &[&str]) -> (Sidecar, Server) {
    let (server, address) = Server::start().await;
    let mut sidecar = Sidecar::without_signer(attributes);
    let file = sidecar.directory.parent().unwrap().join("kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "users": [{ "name": "test", "user": {} }],
    });
    fs::write(&file, kubeconfig.to_string()).unwrap();
    sidecar.flag(&format!("--kubeconfig={}", file.display()));
    (sidecar, server)
}

/// Signs each request, as cert-manager does, until the task is aborted.
fn sign_all(server: &Server, life: Duration) -> tokio::task::JoinHandle<()> {
    let (server, authority) = (server.clone(), Authority::new("ca"));
    tokio::spawn(async move {
        loop {
            for request in server.open() {
                let name = request["metadata"]["name"].as_str().unwrap();
                let signed = authority.sign(&request, |params| {
                    params.not_after = params.not_before + Duration::from_mins(1) + life;
                });
                server.set(name, &SIGNED, &signed);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

node_test! {
    async fn requests_are_the_pods_own_and_nothing_is_watched_or_listed() {
        let (mut sidecar, server) = with_server(&OF_ISSUER).await;
        sidecar.start();
        let name = server.only().await;
        let waits = format!("CertificateRequest shop/{name}: not approved yet");
        eventually("what it waits for", async || sidecar.health("--readiness").1.contains(&waits)).await;
        let object = server.object(&name);
        let metadata = &object["metadata"];
        assert_eq!(metadata["namespace"], "shop");
        assert_eq!(metadata["labels"], json!({ "certlet.io/volume": "sidecar-b8f1" }), "no node's driver sees it");
        assert_eq!(metadata["annotations"]["certlet.io/volume-id"], "sidecar-b8f1");
        let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "b8f1" }]);
        assert_eq!(metadata["ownerReferences"], owner);
        let signing = sign_all(&server, Duration::from_hours(1));
        sidecar.ready().await;
        assert_whole(&sidecar.directory);
        assert_eq!((server.calls("watch"), server.calls("list")), (0, 0));
        signing.abort();
        sidecar.stop();
    }
}

node_test! {
    async fn the_requests_of_earlier_processes_are_deleted_and_a_pending_one_is_resumed() {
        let (mut sidecar, server) = with_server(&OF_ISSUER).await;
        sidecar.flag("--on-renewal=exit=9");
        let signing = sign_all(&server, Duration::from_secs(6));
        for _ in 0..3 {
            sidecar.started().await;
            assert_eq!(sidecar.wait().code(), Some(9));
            eventually("the deletions", async || server.names().len() <= 2).await;
        }
        sidecar.started().await;
        assert_eq!(sidecar.wait().code(), Some(9));
        signing.abort();
        let known = server.names();
        sidecar.start();
        let pending = server.new_besides(&known).await;
        sidecar.kill();
        sidecar.start();
        let signing = sign_all(&server, Duration::from_hours(1));
        assert_eq!(sidecar.wait().code(), Some(9));
        assert!(server.names().contains(&pending), "the request was resumed, and not made again");
        signing.abort();
    }
}

node_test! {
    async fn the_last_failure_is_what_the_probe_says() {
        let (mut sidecar, server) = with_server(&OF_ISSUER).await;
        sidecar.start();
        let name = server.only().await;
        server.set(&name, &[("Denied", "True", "policy.cert-manager.io", "no such name")], &json!({}));
        eventually("the denial", async || sidecar.health("--readiness").1.contains("no such name")).await;
        assert!(sidecar.health("--readiness").1.contains("was denied by policy.cert-manager.io: no such name"));
        sidecar.stop();
    }
}

node_test! {
    async fn private_ca_is_called_with_the_pods_own_credentials_and_needs_no_policy() {
        let fake = FakePca::start().await;
        let authority = format!("certificate-authority-arn={CA}");
        let mut sidecar = Sidecar::without_signer(&["signer=acm-pca", &authority, "dns-names=web.shop.svc"]);
        for (name, value) in
            [("AWS_ENDPOINT_URL", fake.endpoint()), ("AWS_ACCESS_KEY_ID", "AKIAPOD"), ("AWS_SECRET_ACCESS_KEY", "s")]
        {
            sidecar.environment.push((name.to_owned(), value.to_owned()));
        }
        sidecar.started().await;
        assert_whole(&sidecar.directory);
        sidecar.stop();
    }
}

node_test! {
    async fn without_aws_credentials_of_the_pod_private_ca_is_refused() {
        let authority = format!("certificate-authority-arn={CA}");
        let sidecar = Sidecar::without_signer(&["signer=acm-pca", &authority, "dns-names=web.shop.svc"]);
        let mut command = sidecar.command();
        for name in ["AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("signer: acm-pca needs AWS credentials of the pod"), "{said}");
    }
}
