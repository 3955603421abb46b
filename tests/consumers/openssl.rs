//! OpenSSL, as server and client.

use crate::program::{Running, command, outcome};
use crate::{intermediate_ca, node, node_test, pod};
use std::fs;

node_test! {
    #[ignore = "run by make consumers"]
    async fn openssl_needs_the_root_or_partial_chain_below_an_intermediate_anchor() {
        let directory = tempfile::tempdir().unwrap();
        let ([certificate, key], root) = intermediate_ca(directory.path());
        let mut node = node(&[&certificate, &key]);
        let kubelet = node.started().await;
        let root_file = node.root.join("root.pem");
        fs::write(&root_file, root).unwrap();
        let usages = ("key-usages", "digital signature, server auth, client auth");
        let volume = kubelet.publish(&pod("web-0", &[("ip-sans", "127.0.0.1"), usages])).await.unwrap();
        assert!(node.status(&[]).contains("X509_V_FLAG_PARTIAL_CHAIN"), "{}", node.status(&[]));

        let file = |name: &str| volume.join(name).display().to_string();
        let identity = ["-cert", &file("tls.crt"), "-cert_chain", &file("tls.crt"), "-key", &file("tls.key")].map(str::to_owned);
        let server = Running::start(command("openssl").args(["s_server", "-accept", "127.0.0.1:0", "-www"]).args(&identity));
        let address = server.line_after("ACCEPT ");
        let connects = |trust: &[&str]| {
            let client = ["s_client", "-verify_ip", "127.0.0.1", "-verify_return_error", "-connect", &address];
            outcome(command("openssl").args(client).args(trust))
        };
        let (anchor, root) = (file("ca.crt"), root_file.display().to_string());
        let (success, said) = connects(&["-CAfile", &anchor]);
        assert!(!success && said.contains("unable to get issuer certificate"), "{said}");
        for trust in [&["-CAfile", &anchor, "-partial_chain"][..], &["-CAfile", &root]] {
            let (success, said) = connects(trust);
            assert!(success && said.contains("Verify return code: 0 (ok)"), "{trust:?}: {said}");
        }
    }
}
