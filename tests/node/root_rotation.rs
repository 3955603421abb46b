//! The rotation of a root: of the signer, and of the operator's trust sources.

use crate::node_test;
use crate::support::{Node, eventually, get_from, openssl, pod_with, serial};
use std::fs;
use std::path::{Path, PathBuf};

/// A root CA in files, made by openssl.
struct Root {
    certificate: PathBuf,
    key: PathBuf,
}

impl Root {
    fn new(scratch: &Path, name: &str, days: &str) -> Self {
        let file = |end: &str| scratch.join(format!("{name}.{end}"));
        let (certificate, key) = (file("pem"), file("key"));
        let (key_text, certificate_text) = (key.display().to_string(), certificate.display().to_string());
        let subject = format!("/CN={name}");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &subject,
            "-days",
            days,
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            &key_text,
            "-out",
            &certificate_text,
        ]);
        Self { certificate, key }
    }

    /// Another certificate of the same CA.
    fn again(&self, certificate: &Path, days: &str) {
        let (key, certificate) = (self.key.display().to_string(), certificate.display().to_string());
        let name = self.certificate.file_stem().unwrap().to_str().unwrap();
        let (subject, usage) = (format!("/CN={name}"), "keyUsage=critical,keyCertSign,cRLSign");
        openssl(&[
            "req",
            "-x509",
            "-key",
            &key,
            "-subj",
            &subject,
            "-days",
            days,
            "-addext",
            usage,
            "-out",
            &certificate,
        ]);
    }

    fn pem(&self) -> String {
        fs::read_to_string(&self.certificate).unwrap()
    }

    fn flags(&self) -> [String; 2] {
        [
            format!("--local-ca-cert={}", self.certificate.display()),
            format!("--local-ca-key={}", self.key.display()),
        ]
    }
}

/// A node whose issuer is this root.
fn node(issuer: &Root) -> Node {
    let [certificate, key] = issuer.flags();
    Node::with_flags(&["--allow-local-signer", "--min-renewal-interval=0", &certificate, &key])
}

/// The same, whose pods trust what is in a file.
fn node_trusting(issuer: &Root, scratch: &Path, anchors: &str) -> (Node, PathBuf) {
    let roots = scratch.join("roots.pem");
    fs::write(&roots, anchors).unwrap();
    let mut node = node(issuer);
    node.flag(&format!("--ca-source={}", roots.display()));
    (node, roots)
}

/// Switches the issuer, from the driver's next start on.
fn switch(node: &mut Node, from: &Root, to: &Root) {
    for (old, new) in from.flags().iter().zip(to.flags()) {
        node.replace_flag(old, &new);
    }
}

fn ca(volume: &Path) -> String {
    fs::read_to_string(volume.join("ca.crt")).unwrap_or_default()
}

/// Whether openssl verifies the volume's certificate with these roots.
fn leads_to(volume: &Path, root: &Root) -> bool {
    let certificate = volume.join("tls.crt");
    let output = std::process::Command::new("openssl")
        .arg("verify")
        .arg("-CAfile")
        .arg(&root.certificate)
        .arg(certificate)
        .output();
    output.unwrap().status.success()
}

const SHORT: &[(&str, &str)] = &[("duration", "30s"), ("renew-before", "28s")];

node_test! {
    async fn the_signers_old_root_is_trusted_until_its_last_leaf_has_expired() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Root::new(scratch.path(), name, "1"));
        let mut node = node(&a);
        let volume = node.started().await.publish(&pod_with("web-0", &[("duration", "30s"), ("renew-before", "28s")])).await.unwrap();
        assert_eq!(ca(&volume), a.pem());
        node.kill();
        switch(&mut node, &a, &b);
        node.started().await;
        eventually("the new root", async || leads_to(&volume, &b)).await;
        assert_eq!(ca(&volume), format!("{}{}", b.pem(), a.pem()));
        let status = node.status(&[]);
        assert!(status.contains("CN=b") && status.contains("still trusted until"), "{status}");
        // A restart and renewals keep it, and its end.
        node.kill();
        node.started().await;
        let before = serial(&volume);
        eventually("a renewal", async || serial(&volume) != before).await;
        assert_eq!(ca(&volume), format!("{}{}", b.pem(), a.pem()));
        eventually("the end of the old root", async || ca(&volume) == b.pem()).await;
        node.stop();
    }
}

node_test! {
    async fn a_leaf_is_held_back_until_its_root_is_trusted_and_then_served() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Root::new(scratch.path(), name, "1"));
        let (mut node, roots) = node_trusting(&a, scratch.path(), &a.pem());
        let pod = pod_with("web-0", &[("duration", "90s"), ("renew-before", "88s")]);
        let volume = node.started().await.publish(&pod).await.unwrap();
        // The wrong order: the issuer first.
        node.kill();
        switch(&mut node, &a, &b);
        let kubelet = node.started().await;
        eventually("a failure", async || node.last_error(&pod).is_some()).await;
        let error = node.last_error(&pod).unwrap();
        assert!(error.contains("held back, because its root (CN=b) is not in the trust bundle (file:"), "{error}");
        assert!(node.status(&[]).contains("held back"), "{}", node.status(&[]));
        assert!(leads_to(&volume, &a));
        // A new pod has no certificate that could stay.
        let late = kubelet.publish(&pod_with("web-1", &[])).await.unwrap();
        assert!(leads_to(&late, &b) && ca(&late) == a.pem());
        let status = node.status(&[]);
        assert!(status.contains("its root (CN=b) is not in its trust bundle"), "{status}");
        fs::write(&roots, a.pem() + &b.pem()).unwrap();
        root_comes_first(&volume, &a, &b).await;
        eventually("the held certificate", async || leads_to(&volume, &b)).await;
        assert_eq!(node.last_error(&pod), None);
        // Now the old root can go.
        eventually("no leaf of the old root", async || !node.status(&[]).contains("CN=a")).await;
        fs::write(&roots, b.pem()).unwrap();
        eventually("the old root's end", async || ca(&volume) == b.pem() && ca(&late) == b.pem()).await;
        node.stop();
    }
}

/// Waits until a volume trusts both roots. Its leaf must still lead to the first one then, because the pods of other nodes may not trust
/// the second one yet.
async fn root_comes_first(volume: &Path, first: &Root, second: &Root) {
    eventually("both roots", async || {
        let is_old = leads_to(volume, first);
        let has_both = ca(volume) == first.pem() + &second.pem();
        assert!(is_old || !has_both, "root and leaf came together");
        assert!(!leads_to(volume, second) || has_both, "the leaf came first");
        has_both
    })
    .await;
}

node_test! {
    async fn a_renewal_that_falls_due_as_its_root_is_added_waits() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Root::new(scratch.path(), name, "1"));
        let (mut node, roots) = node_trusting(&a, scratch.path(), &a.pem());
        node.flag("--metrics-bind-address=127.0.0.1:19408");
        let pod = pod_with("web-0", &[("duration", "90s"), ("renew-before", "88s")]);
        let volume = node.started().await.publish(&pod).await.unwrap();
        node.kill();
        switch(&mut node, &a, &b);
        fs::write(&roots, a.pem() + &b.pem()).unwrap();
        node.started().await;
        root_comes_first(&volume, &a, &b).await;
        eventually("a renewal that waits", async || {
            let (_, page) = get_from("127.0.0.1:19408", "/metrics").await.unwrap();
            page.contains("certlet_issuances_total{signer=\"local\",purpose=\"renewal\",result=\"not-ready\"} 1")
        })
        .await;
        eventually("the new certificate", async || leads_to(&volume, &b)).await;
        // Nobody need be told of the wait.
        assert_eq!(node.last_error(&pod), None);
        node.stop();
    }
}

node_test! {
    async fn a_held_leaf_does_not_wait_if_its_root_replaces_the_one_in_use() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Root::new(scratch.path(), name, "1"));
        let (mut node, roots) = node_trusting(&a, scratch.path(), &a.pem());
        // It would wait two minutes.
        let pod = pod_with("web-0", &[("duration", "1h"), ("renew-before", "59m58s")]);
        let volume = node.started().await.publish(&pod).await.unwrap();
        node.kill();
        switch(&mut node, &a, &b);
        node.started().await;
        eventually("a failure", async || node.last_error(&pod).is_some()).await;
        fs::write(&roots, b.pem()).unwrap();
        eventually("the held certificate", async || leads_to(&volume, &b) && ca(&volume) == b.pem()).await;
        node.stop();
    }
}

node_test! {
    async fn a_leaf_is_not_held_back_longer_than_the_old_one_is_valid_nor_where_roots_never_met() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b, others] = ["a", "b", "others"].map(|name| Root::new(scratch.path(), name, "1"));
        let (mut node, _roots) = node_trusting(&a, scratch.path(), &a.pem());
        node.flag(&format!("--trust-source=others={}", others.certificate.display()));
        let kubelet = node.started().await;
        let short = pod_with("web-0", &[("duration", "24s")]);
        let volume = kubelet.publish(&short).await.unwrap();
        // An edge that trusts the clients of another CA.
        let edge = pod_with("edge-0", &[("ca-source", "others"), ("duration", "30s"), ("renew-before", "28s")]);
        let edge = kubelet.publish(&edge).await.unwrap();
        assert_eq!(ca(&edge), others.pem());
        node.kill();
        switch(&mut node, &a, &b);
        node.started().await;
        eventually("the edge's renewal", async || leads_to(&edge, &b)).await;
        assert_eq!(ca(&edge), others.pem());
        eventually("the failure", async || node.last_error(&short).is_some_and(|error| error.contains("held back"))).await;
        eventually("the new leaf once the old one has expired", async || leads_to(&volume, &b)).await;
        assert_eq!(ca(&volume), a.pem());
        node.stop();
    }
}

node_test! {
    async fn once_a_new_issuing_ca_is_seen_the_other_volumes_are_renewed_early() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Root::new(scratch.path(), name, "1"));
        let mut node = node(&a);
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod_with("web-0", &[("duration", "5m")])).await.unwrap();
        node.kill();
        switch(&mut node, &a, &b);
        let kubelet = node.started().await;
        assert!(leads_to(&volume, &a));
        kubelet.publish(&pod_with("web-1", &[])).await.unwrap();
        // Two thirds of the lifetime would be later than the end of this wait.
        eventually("an early renewal", async || leads_to(&volume, &b)).await;
        assert_eq!(ca(&volume), format!("{}{}", b.pem(), a.pem()));
        node.stop();
    }
}

node_test! {
    async fn the_chains_end_brings_the_renewal_forward() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Root::new(scratch.path(), "a", "5");
        let mut node = node(&root);
        let pod = pod_with("web-0", &[("duration", "72h")]);
        // The same CA, with a certificate that ends earlier.
        let roots = scratch.path().join("roots.pem");
        root.again(&roots, "1");
        node.flag(&format!("--ca-source={}", roots.display()));
        node.started().await.publish(&pod).await.unwrap();
        let status = node.status(&["--json"]);
        let rows: serde_json::Value = serde_json::from_str(&status).unwrap();
        let hours = |name: &str| {
            let [from, to] = ["issued_at", name].map(|key| rows[0][key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
            to.duration_since(from).as_hours()
        };
        // Two thirds of a day, and not of three.
        assert!((13..=16).contains(&hours("renews_at")), "{status}");
        node.stop();
    }
}

node_test! {
    async fn an_overlap_keeps_the_anchors_that_were_removed_for_a_while() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Root::new(scratch.path(), name, "1"));
        let (mut node, roots) = node_trusting(&a, scratch.path(), &(a.pem() + &b.pem()));
        node.flag("--trust-overlap=5s");
        let volume = node.started().await.publish(&pod_with("web-0", &[])).await.unwrap();
        fs::write(&roots, b.pem()).unwrap();
        eventually("the other order", async || ca(&volume) == b.pem() + &a.pem()).await;
        eventually("the end of the overlap", async || ca(&volume) == b.pem()).await;
        node.stop();
    }
}

node_test! {
    async fn a_root_that_is_removed_too_early_is_obeyed_and_the_leaf_renewed() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Root::new(scratch.path(), name, "1"));
        let (mut node, roots) = node_trusting(&a, scratch.path(), &(a.pem() + &b.pem()));
        let volume = node.started().await.publish(&pod_with("web-0", &[("duration", "1h")])).await.unwrap();
        node.kill();
        switch(&mut node, &a, &b);
        node.started().await;
        assert!(leads_to(&volume, &a));
        fs::write(&roots, b.pem()).unwrap();
        eventually("the removal", async || ca(&volume) == b.pem()).await;
        eventually("an early renewal", async || leads_to(&volume, &b)).await;
        node.stop();
    }
}

node_test! {
    async fn signer_and_other_sources_are_joined_and_each_changes_by_itself() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b, others] = ["a", "b", "others"].map(|name| Root::new(scratch.path(), name, "1"));
        let roots = scratch.path().join("roots.pem");
        fs::write(&roots, others.pem()).unwrap();
        let mut node = node(&a);
        node.flag(&format!("--trust-source=others={}", roots.display()));
        let pod = pod_with("web-0", &[&[("ca-source", "signer,others")], SHORT].concat());
        let volume = node.started().await.publish(&pod).await.unwrap();
        assert_eq!(ca(&volume), others.pem() + &a.pem());
        let more = Root::new(scratch.path(), "more", "1");
        fs::write(&roots, more.pem()).unwrap();
        eventually("the other source's change", async || ca(&volume) == more.pem() + &a.pem()).await;
        node.kill();
        switch(&mut node, &a, &b);
        node.started().await;
        eventually("the signer's change", async || ca(&volume) == more.pem() + &b.pem() + &a.pem()).await;
        node.stop();
    }
}

node_test! {
    async fn a_volume_names_only_what_the_operator_lists() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Root::new(scratch.path(), "a", "1");
        let mut node = node(&root);
        node.flag(&format!("--trust-source=partners={}", root.certificate.display()));
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod_with("web-0", &[("ca-source", "partners")])).await.unwrap();
        assert_eq!(ca(&volume), root.pem());
        assert!(!node.status(&[]).contains("ca-source"), "{}", node.status(&[]));
        let refused = kubelet.publish(&pod_with("web-1", &[("ca-source", "partner")])).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("csi.certlet.io/ca-source: \"partner\" is not a trust source of the operator's (partners)"), "{refused:?}");
        // The operator removes the entry. The running pod keeps what it has, and that is told.
        node.kill();
        node.replace_flag(&format!("--trust-source=partners={}", root.certificate.display()), "--trust-overlap=0");
        node.started().await;
        eventually("the fault", async || node.status(&[]).contains("the trust source partners is not among those that the operator lists")).await;
        assert_eq!(ca(&volume), root.pem());
        node.stop();
    }
}
