//! Attacks on the policy for AWS Private CA: values that cost time, values that mean two things, and what a denial tells.

use crate::fake_pca::{CA, FakePca};
use crate::node_test;
use crate::support::{DEADLINE, Node, assert_whole, eventually, pca};
use certlet_kubelet::{Kubelet, Pod};
use std::fs;
use std::path::PathBuf;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};

const ISSUE: &str = "IssueCertificate";
const DESCRIBE: &str = "DescribeCertificateAuthority";

/// Bytes of a hostile value. The values of a volume may have 32 KiB.
const LONG: usize = 30_000;

/// The pattern for organizations of the rule `shop`.
const SHOPS_PATTERN: &str = "\"team-*-*-*-*-*-shop\"";

/// The rule `bank` is for others. The rules `shop` and `office` are for the pods of these tests.
const POLICY: &str = r#"
version: 2
rules:
  - name: bank
    match:
      namespaces: [bank]
      attributes: {organizations: ["team-*-*-*-*-*-secret"]}
    allow:
      certificateAuthorities: ["**"]
      maxDuration: 24h
      dnsNames: ["vault.bank.example"]
      subject: {organizations: ["team-*-*-*-*-*-secret"]}
  - name: shop
    match: {namespaces: [shop]}
    allow:
      certificateAuthorities: ["**"]
      templates: ["*/V1"]
      callers: [driver]
      usages: [digital signature, key encipherment, server auth, client auth]
      maxDuration: 24h
      dnsNames: ["*.{namespace}.svc"]
      uris: ["spiffe://example.org/ns/*", "https://example.org/ns/*"]
      subject: {organizations: ["team-*-*-*-*-*-shop"]}
  - name: office
    match: {namespaces: [office]}
    allow:
      certificateAuthorities: ["**"]
      callers: [driver]
      usages: [digital signature, key encipherment, server auth, client auth]
      maxDuration: 24h
      dnsNames: ["*.{namespace}.svc"]
"#;

/// What the policy says to a pod that no rule is for.
const NO_RULE: &str = "denied by the policy of this cluster: it has no rule for this pod";

/// A driver with one worker thread, so that whatever holds the thread holds everything.
async fn started(policy: &str) -> (FakePca, Node, Kubelet) {
    let fake = FakePca::start().await;
    let mut node = pca::node(policy, fake.endpoint());
    node.flag("--worker-threads=1");
    let kubelet = node.started().await;
    (fake, node, kubelet)
}

fn pod(namespace: &str, name: &str, others: &[(&str, &str)]) -> Pod {
    let names = [("dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc")];
    Pod::new(namespace, name, pca::pod(name, CA, &[&names, others].concat()).attributes)
}

/// Checks that the policy has denied a publish, and returns the message.
fn assert_refused(answer: Result<PathBuf, Status>, said: &str) -> String {
    let refused = answer.expect_err(said);
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(said), "{said}: {refused}");
    refused.message().to_owned()
}

/// Checks that AWS was not asked for anything.
fn assert_no_call(fake: &FakePca) {
    assert_eq!((fake.calls(DESCRIBE), fake.calls(ISSUE)), (0, 0));
}

/// Publishes volumes of a namespace at the same time, each with very many organizations as long as they may be.
fn attack(kubelet: &Kubelet, namespace: &str, count: usize) -> Vec<JoinHandle<Result<PathBuf, Status>>> {
    let value = vec![format!("team-{}", "a-".repeat(29)); LONG / 64].join(",");
    let publish = |number: usize| {
        let pod = pod(namespace, &format!("hostile-{number}"), &[("organizations", &value)]);
        let kubelet = kubelet.clone();
        tokio::spawn(async move { kubelet.publish(&pod).await })
    };
    (0..count).map(publish).collect()
}

node_test! {
    async fn a_long_value_in_a_pattern_with_many_asterisks_costs_the_neighbours_no_time() {
        let (fake, _node, kubelet) = started(POLICY).await;
        // No rule names the first namespace, and the second one has such a pattern in its own rule.
        for (namespace, said) in [("elsewhere", NO_RULE), ("shop", "organizations: \"team-a-a-")] {
            let attackers = attack(&kubelet, namespace, 4);
            let neighbour = pod("shop", &format!("beside-{namespace}"), &[]);
            let volume = timeout(DEADLINE, kubelet.publish(&neighbour)).await.expect("the neighbour waits");
            assert_whole(&volume.unwrap());
            for attacker in attackers {
                let answer = timeout(DEADLINE, attacker).await.expect("a decision takes long").unwrap();
                assert_refused(answer, said);
            }
        }
        assert_eq!(fake.issued(), 2, "those of the neighbours");
    }
}

/// Processor time that the driver has used, in hundredths of a second.
fn processor_time(node: &Node) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.id())).unwrap();
    // After the name of the program in parentheses comes field 3. The times are the fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

node_test! {
    async fn decisions_that_take_long_do_not_hold_up_a_neighbour() {
        // Each pattern fits up to its last letter, so that a decision on many values takes seconds.
        let pattern = format!("\"{}x\"", "*-".repeat(29));
        let patterns = vec![pattern; 100].join(", ");
        let (_fake, node, kubelet) = started(&POLICY.replacen(SHOPS_PATTERN, &patterns, 1)).await;
        let before = processor_time(&node);
        let attackers = attack(&kubelet, "shop", 4);
        eventually("the decisions are being made", async || processor_time(&node) > before + 100).await;
        assert_whole(&kubelet.publish(&pod("office", "web-0", &[])).await.unwrap());
        let unfinished = attackers.iter().filter(|attacker| !attacker.is_finished()).count();
        assert!(unfinished > 0, "the neighbour has waited for all attackers");
        for attacker in attackers {
            assert_refused(attacker.await.unwrap(), "organizations: \"team-a-a-");
        }
    }
}

node_test! {
    async fn a_percent_encoded_separator_does_not_cross_an_asterisk() {
        let (fake, _node, kubelet) = started(POLICY).await;
        let uri = |number: usize, rest: &str| {
            pod("shop", &format!("web-{number}"), &[("uri-sans", &format!("https://example.org/ns/{rest}"))])
        };
        for (number, separator) in ["/", "?", "#", "@", ":"].into_iter().enumerate() {
            let refused = kubelet.publish(&uri(number, &format!("shop{separator}admin"))).await;
            assert_refused(refused, "uri-sans: ");
        }
        let encoded = ["%2F", "%2f", "%3F", "%23", "%40", "%3A", "%5C", "%252F"];
        for (number, separator) in encoded.into_iter().enumerate() {
            let refused = kubelet.publish(&uri(number, &format!("shop{separator}admin"))).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{separator}: {refused}");
            assert!(refused.message().contains("has the encoded separator"), "{separator}: {refused}");
        }
        assert_no_call(&fake);
        // Other characters may be encoded.
        kubelet.publish(&uri(9, "shop%20admin")).await.unwrap();
    }
}

node_test! {
    async fn a_denial_tells_nothing_of_the_rules_for_others() {
        let (fake, node, kubelet) = started(POLICY).await;
        let vault = [("dns-names", "vault.bank.example"), ("organizations", "team-1-2-3-4-5-secret")];
        let message = assert_refused(kubelet.publish(&pod("elsewhere", "web-0", &vault)).await, NO_RULE);
        assert!(message.ends_with(NO_RULE), "{message}");
        // Only the rule that is for the pod is shown.
        let message = assert_refused(kubelet.publish(&pod("shop", "web-1", &vault)).await, "rule \"shop\" comes nearest");
        for (name, pattern) in [("organizations", "team-*-*-*-*-*-shop"), ("dns-names", "*.{namespace}.svc")] {
            assert!(message.contains(name) && message.contains(pattern), "{message}");
        }
        for text in [&message, &node.log()] {
            assert!(!text.contains("rule \"bank\"") && !text.contains("team-*-*-*-*-*-secret"), "{text}");
        }
        assert_no_call(&fake);
    }
}

node_test! {
    async fn a_denial_shortens_long_values() {
        let (_fake, node, kubelet) = started(POLICY).await;
        let value = format!("https://example.org/{}", "x".repeat(2000));
        let long = pod("shop", "web-0", &[("uri-sans", &value)]);
        let message = assert_refused(kubelet.publish(&long).await, "uri-sans: \"https://example.org/xxx");
        // An Event on a pod holds 1,024 bytes.
        assert!(message.len() < 1024, "{} bytes: {message}", message.len());
        assert!(!node.log().contains(&"x".repeat(1024)), "the log has the whole value");
    }
}

node_test! {
    async fn what_a_rule_does_not_list_is_refused_before_any_call() {
        let (fake, _node, kubelet) = started(POLICY).await;
        let passthrough =
            ("template-arn", "arn:aws:acm-pca:::template/BlankEndEntityCertificate_CSRPassthrough/V1");
        for (number, usage) in ["ocsp signing", "code signing", "cert sign", "any"].into_iter().enumerate() {
            let pod = pod("shop", &format!("web-{number}"), &[passthrough, ("key-usages", usage)]);
            assert_refused(kubelet.publish(&pod).await, &format!("key-usages: {usage:?}, which the certificate would have"));
        }
        let subordinate = "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen1/V1";
        let ca = pod("shop", "web-8", &[("template-arn", subordinate)]);
        assert_refused(kubelet.publish(&ca).await, "makes a CA certificate");
        let role = pod("shop", "web-9", &[("role-arn", "arn:aws:iam::123456789012:role/admin")]);
        assert_refused(kubelet.publish(&role).await, "role-arn: ");
        assert_no_call(&fake);
        kubelet.publish(&pod("shop", "web-10", &[passthrough, ("key-usages", "server auth")])).await.unwrap();
    }
}

/// A rule with these callers refuses a volume without a role of its own.
async fn refuse_driver(callers: &str) {
    let policy = POLICY.replace("callers: [driver]", callers);
    let (fake, _node, kubelet) = started(&policy).await;
    let refused = kubelet.publish(&pod("shop", "web-0", &[])).await;
    assert_refused(refused, "role-arn, use-pod-identity: not set: \"driver\" is none of the callers");
    assert_no_call(&fake);
}

node_test! {
    async fn the_drivers_own_role_is_refused_by_a_rule_without_callers() {
        refuse_driver("").await;
    }
}

node_test! {
    async fn the_drivers_own_role_is_refused_by_a_rule_that_allows_every_role() {
        refuse_driver("callers: [\"**\", \"*\", \"drive*\"]").await;
    }
}
