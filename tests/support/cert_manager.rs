//! A driver, the API server that it uses, and issuers that sign CertificateRequests as a test wants them.

use crate::certificate_requests::Server;
use crate::fake_pca::ca;
use crate::support::Node;
use base64ct::{Base64, Encoding};
use certlet_kubelet::{Kubelet, Pod};
use rcgen::{CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use tonic::{Request, Status};

/// The two prefixes of attributes.
pub(crate) const CERTLET: &str = "csi.certlet.io";
pub(crate) const CERT_MANAGER: &str = "csi.cert-manager.io";

/// The conditions of a signed request.
pub(crate) const SIGNED: [(&str, &str, &str, &str); 2] =
    [("Approved", "True", "policy.cert-manager.io", ""), ("Ready", "True", "Issued", "")];

/// The CA of an issuer.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let (issuer, pem) = ca::authority(name, None);
        Self { issuer, pem }
    }

    /// The status of a request that this CA has signed, with a certificate that is valid for an hour. `change` may change the
    /// certificate.
    pub(crate) fn sign(&self, request: &Value, change: impl FnOnce(&mut CertificateParams)) -> Value {
        let csr = Base64::decode_vec(request["spec"]["request"].as_str().unwrap()).unwrap();
        let mut csr = CertificateSigningRequestParams::from_pem(&String::from_utf8(csr).unwrap()).unwrap();
        let now = OffsetDateTime::now_utc();
        csr.params.is_ca = IsCa::ExplicitNoCa;
        csr.params.not_before = now - Duration::from_mins(1);
        csr.params.not_after = now + Duration::from_hours(1);
        csr.params.serial_number = None;
        change(&mut csr.params);
        let leaf = csr.signed_by(&self.issuer).unwrap().pem();
        json!({
            "certificate": Base64::encode_string(leaf.as_bytes()),
            "ca": Base64::encode_string(self.pem.as_bytes()),
        })
    }
}

/// A node whose driver uses a scripted API server.
pub(crate) struct Cluster {
    pub(crate) node: Node,
    pub(crate) server: Server,
    pub(crate) kubelet: Kubelet,
}

impl Cluster {
    /// Starts both. `configure` may add flags.
    pub(crate) async fn start(configure: impl FnOnce(&mut Node)) -> Self {
        let (server, address) = Server::start().await;
        let mut node = Node::with_flags(&[]);
        node.api_server(address);
        configure(&mut node);
        let kubelet = node.started().await;
        Self { node, server, kubelet }
    }

    /// Stops the driver, and starts another one after `meanwhile`.
    pub(crate) async fn restart(&mut self, meanwhile: impl FnOnce(&Server)) {
        self.node.stop();
        meanwhile(&self.server);
        self.kubelet = self.node.started().await;
    }

    /// Publishes a volume, and answers its request.
    pub(crate) async fn publish_with(
        &self,
        pod: &Pod,
        status: impl FnOnce(&Value) -> Value,
    ) -> Result<PathBuf, Status> {
        let known = self.server.names();
        let answer = async {
            let name = self.server.new_besides(&known).await;
            self.server.set(&name, &SIGNED, &status(&self.server.object(&name)));
        };
        tokio::join!(self.kubelet.publish(pod), answer).0
    }

    /// Publishes until the kubelet gives up. The request stays undecided; returns its name.
    pub(crate) async fn publish_without_answer(&self, pod: &Pod) -> String {
        std::fs::create_dir_all(self.kubelet.target(pod).parent().unwrap()).unwrap();
        let known = self.server.names();
        loop {
            let mut request = Request::new(self.kubelet.publish_request(pod));
            request.set_timeout(Duration::from_secs(1));
            self.kubelet.node().node_publish_volume(request).await.unwrap_err();
            if let Some(name) = self.server.names().into_iter().find(|name| !known.contains(name)) {
                return name;
            }
        }
    }

    /// Signs each request that is not decided, as cert-manager does, until the task is aborted.
    pub(crate) fn sign_all(&self, authority: Authority) -> tokio::task::JoinHandle<()> {
        let server = self.server.clone();
        tokio::spawn(async move {
            loop {
                for request in server.open() {
                    let name = request["metadata"]["name"].as_str().unwrap();
                    server.set(name, &SIGNED, &authority.sign(&request, |_| {}));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }
}

/// A pod with a volume from the issuer `ca`. The other attributes have no prefix.
pub(crate) fn pod(prefix: &str, namespace: &str, name: &str, others: &[(&str, &str)]) -> Pod {
    let usual = [
        ("issuer-name", "ca"),
        ("dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc"),
        ("key-algorithm", "ECDSA"),
    ];
    let attributes = usual.iter().chain(others).map(|(key, value)| (format!("{prefix}/{key}"), *value));
    Pod::new(namespace, name, attributes)
}
