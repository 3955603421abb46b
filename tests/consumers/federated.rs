//! Three trust domains, each with a driver and a root of its own. Two federate, and the third one trusts them without being trusted.

use crate::fake_pca;
use crate::rotating::RotatingNode;
use base64ct::{Base64, Encoding};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use x509_parser::pem::Pem;

/// The attribute with which a pod gets the trust bundles of all trust domains.
pub(crate) const FEDERATED: (&str, &str) = ("federated-bundles", "*");

/// The name of the second root of `partner.org`.
const NEXT_ROOT: &str = "next root";

/// The nodes of the three trust domains.
pub(crate) struct Mesh {
    /// `example.org`, which has the trust bundle of `partner.org` as a SPIFFE bundle document.
    pub(crate) ours: RotatingNode,
    /// `partner.org`, which has that of `example.org` in PEM.
    pub(crate) partner: RotatingNode,
    /// `third.org`, which has both.
    pub(crate) third: RotatingNode,
    exchange: TempDir,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        let exchange = tempfile::tempdir().unwrap();
        let [our_file, partner_file] = ["ours.pem", "partner.json"].map(|name| exchange.path().join(name));
        // Each driver is started before it has what the others publish.
        let ours = format!("--federated-bundle=example.org=file:{}", our_file.display());
        let partner = format!("--federated-bundle=partner.org=spiffe-bundle:{}", partner_file.display());
        let third = RotatingNode::start_beside(Some("third"), &[ours.clone(), partner.clone()]).await;
        let ours_node = RotatingNode::start_beside(Some("ours"), &[partner]).await;
        let partner_node = RotatingNode::start_beside(Some("partner"), &[ours]).await;
        let mesh = Self { ours: ours_node, partner: partner_node, third, exchange };
        put(&our_file, &fs::read_to_string(mesh.ours.root()).unwrap());
        mesh.publish_partner(&[&mesh.partner_root()]);
        mesh
    }

    /// Gives `partner.org` a new root. As in every rotation, the old and the new root are published before.
    pub(crate) async fn replace_root_of_partner(&mut self) {
        let old = self.partner_root();
        let (root, certificate) = fake_pca::ca::authority(NEXT_ROOT, None);
        self.publish_partner(&[&old, &certificate]);
        self.partner.replace_root_by(&certificate, &root.key().serialize_pem()).await;
    }

    fn partner_root(&self) -> String {
        fs::read_to_string(self.partner.root()).unwrap()
    }

    fn publish_partner(&self, roots: &[&str]) {
        let key = |root: &&str| {
            let (_, block) = x509_parser::pem::parse_x509_pem(root.as_bytes()).unwrap();
            json!({ "kty": "EC", "use": "x509-svid", "x5c": [Base64::encode_string(&block.contents)] })
        };
        let keys: Vec<_> = roots.iter().map(key).collect();
        let document = json!({ "spiffe_sequence": roots.len(), "spiffe_refresh_hint": 60, "keys": keys });
        put(&self.exchange.path().join("partner.json"), &document.to_string());
    }
}

/// Whether the certificate in this file is of the new root of `partner.org`.
pub(crate) fn is_of_next_root(file: &Path) -> bool {
    let content = fs::read(file).unwrap_or_default();
    let mut blocks = Pem::iter_from_buffer(&content).map_while(Result::ok);
    let leaf = blocks.find(|block| block.label == "CERTIFICATE");
    leaf.is_some_and(|block| block.parse_x509().unwrap().issuer().to_string().contains(NEXT_ROOT))
}

/// Replaces a file as a whole.
fn put(file: &PathBuf, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}
