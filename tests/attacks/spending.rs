//! Attacks on what certificates cost: whoever renews all the time spends the budget of the own namespace and of no other. The
//! signers are fakes of AWS Private CA and of cert-manager, beside a real driver.

use crate::cert_manager::{self, Authority, CERTLET, Cluster};
use crate::fake_pca::{CA, FakePca};
use crate::node_test;
use crate::support::{Node, assert_whole, eventually, pca, serial};
use certlet_kubelet::{Kubelet, Pod};
use std::path::PathBuf;
use tonic::Code;

const DESCRIBE: &str = "DescribeCertificateAuthority";
const ISSUE: &str = "IssueCertificate";

const POLICY: &str = r#"
version: 2
maxIssuancesPerHour: 2
rules:
  - name: web
    match: {namespaces: [hostile, innocent]}
    allow:
      certificateAuthorities: ["**"]
      callers: [driver]
      usages: [digital signature, key encipherment, server auth, client auth]
      minRenewalInterval: 1s
      maxDuration: 24h
      dnsNames: ["*.{namespace}.svc"]
"#;

/// Attributes of a volume that is renewed two seconds after it is issued, and then again, while its certificate stays valid for an
/// hour.
const EAGER: [(&str, &str); 2] = [("duration", "1h"), ("renew-before", "59m58s")];

/// Publishes a volume that its namespace's budget lets have two certificates, and waits until it wants a third one.
async fn spend_all(node: &Node, kubelet: &Kubelet, pod: &Pod, option: &str) -> PathBuf {
    let volume = kubelet.publish(pod).await.unwrap();
    let first = serial(&volume);
    let error = || node.last_error(pod).unwrap_or_default();
    eventually("a renewal is refused", async || error().contains(option)).await;
    let namespace = format!("namespace {}", pod.namespace);
    assert!(error().contains(&namespace) && error().contains("2 certificates an hour"), "{}", error());
    assert_ne!(serial(&volume), first, "it was renewed once");
    volume
}

/// A volume that has used up the budget of its namespace keeps its certificate and asks no more, and another namespace has a
/// budget of its own. `asked` counts the requests of all volumes together.
async fn spend(
    node: &Node,
    kubelet: &Kubelet,
    pod: impl Fn(&str) -> Pod,
    option: &str,
    asked: impl Fn() -> usize,
) {
    let hostile = pod("hostile");
    let volume = spend_all(node, kubelet, &hostile, option).await;
    let last = serial(&volume);
    assert_eq!(asked(), 2);
    // It takes longer than the hostile volume needs for its next request.
    spend_all(node, kubelet, &pod("innocent"), option).await;
    assert_eq!(asked(), 4);
    kubelet.publish(&hostile).await.unwrap();
    assert_eq!((serial(&volume), asked()), (last, 4), "the certificate in use stays");
    assert_whole(&volume);
}

/// The pod of a namespace, with a volume from AWS Private CA.
fn pca_pod(namespace: &str, others: &[(&str, &str)]) -> Pod {
    let names = [("dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc")];
    Pod::new(namespace, "web-0", pca::pod("web-0", CA, &[&names, others].concat()).attributes)
}

async fn pca_node(policy: &str) -> (FakePca, Node, Kubelet) {
    let fake = FakePca::start().await;
    let mut node = pca::node(policy, fake.endpoint());
    // Only the budget is to limit the renewals.
    node.flag("--min-renewal-interval=0");
    let kubelet = node.started().await;
    (fake, node, kubelet)
}

node_test! {
    async fn renewals_beyond_the_budget_of_the_policy_ask_aws_no_more() {
        let (fake, node, kubelet) = pca_node(POLICY).await;
        let pod = |namespace: &str| pca_pod(namespace, &EAGER);
        spend(&node, &kubelet, pod, "maxIssuancesPerHour", || fake.calls(ISSUE)).await;
        assert_eq!(fake.issued(), 4);
    }
}

node_test! {
    async fn renewals_beyond_the_budget_of_the_flag_ask_cert_manager_no_more() {
        let cluster = Cluster::start(|node| {
            node.flag("--max-issuances-per-hour=2");
            node.flag("--min-renewal-interval=0");
        })
        .await;
        let signing = cluster.sign_all(Authority::new("ca"));
        let pod = |namespace: &str| cert_manager::pod(CERTLET, namespace, "web-0", &EAGER);
        let Cluster { node, kubelet, server } = &cluster;
        spend(node, kubelet, pod, "--max-issuances-per-hour", || server.calls("create")).await;
        signing.abort();
    }
}

/// A volume with a lifetime of a day is refused if it renews after a minute, and not if it renews after so many seconds.
async fn bound(interval: &str, seconds: u64) {
    let (fake, _node, kubelet) = pca_node(&POLICY.replace("minRenewalInterval: 1s", interval)).await;
    let pod =
        |namespace: &str, before: &str| pca_pod(namespace, &[("duration", "24h"), ("renew-before", before)]);
    let refused = kubelet.publish(&pod("hostile", "23h59m")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let required = if seconds.is_multiple_of(3600) {
        format!("{}h", seconds / 3600)
    } else {
        format!("{}m", seconds / 60)
    };
    let fault = format!("renew-before: the renewal comes after 1m; at least {required} is required");
    assert!(refused.message().contains(&fault), "{refused}");
    assert_eq!((fake.calls(DESCRIBE), fake.calls(ISSUE)), (0, 0));
    kubelet.publish(&pod("innocent", &format!("{}s", 24 * 3600 - seconds))).await.unwrap();
}

node_test! {
    async fn a_renewal_before_half_of_the_lifetime_is_refused_before_any_call() {
        bound("", 12 * 3600).await;
    }
}

node_test! {
    async fn a_renewal_before_the_interval_of_the_rule_is_refused_before_any_call() {
        bound("minRenewalInterval: 1h", 3600).await;
    }
}
