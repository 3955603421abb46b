//! `use-pod-identity`: AWS Private CA with the credentials of EKS Pod Identity. The tests count the calls of a fake of the agent
//! on the node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/fake_agent.rs"]
mod fake_agent;
#[allow(dead_code, reason = "pca_fake tests the error cases of AWS Private CA")]
#[path = "support/fake_pca/mod.rs"]
mod fake_pca;
mod support;

use certlet_kubelet::{Kubelet, Pod};
use fake_agent::{ACCESS_KEY, FakeAgent, TOKEN};
use fake_pca::{CA, FakePca, Fault};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;
use support::pca::node as pca_node;
use support::{Node, assert_whole, eventually, serial};
use tonic::{Code, Status};

const ISSUE: &str = "IssueCertificate";
/// Credentials are replaced five minutes before they expire: these after two seconds.
const SHORT_LIFE: Duration = Duration::from_secs(300 + 2);

const POLICY: &str = r#"
version: 2
rules:
  - name: shop
    match: {namespaces: [shop], attributes: {use-pod-identity: ["true"]}}
    allow: {certificateAuthorities: ["**"], callers: [driver, pod-identity], usages: [digital signature, key encipherment, server auth, client auth], minDuration: 1s, minRenewalInterval: 1s, maxDuration: 24h, dnsNames: ["*.{namespace}.svc"]}
  - name: bank
    match: {namespaces: [bank]}
    allow: {certificateAuthorities: ["**"], callers: ["**"], usages: [digital signature, key encipherment, server auth, client auth], maxDuration: 24h, dnsNames: ["*.{namespace}.svc"]}
"#;

struct Stage {
    pca: FakePca,
    agent: FakeAgent,
    node: Node,
    kubelet: Kubelet,
}

impl Stage {
    async fn start() -> Self {
        let agent = FakeAgent::start().await;
        let endpoint = agent.endpoint().to_owned();
        Self::with_endpoints(agent, &endpoint).await
    }

    async fn with_endpoints(agent: FakeAgent, endpoints: &str) -> Self {
        let pca = FakePca::start().await;
        let mut node = pca_node(POLICY, pca.endpoint());
        node.env("CERTLET_PCA_POD_IDENTITY_ENDPOINT", endpoints);
        let kubelet = node.started().await;
        Self { pca, agent, node, kubelet }
    }

    /// Publishes with the pod's token.
    async fn publish(&self, pod: &Pod) -> Result<PathBuf, Status> {
        self.publish_with(pod, TOKEN, "2099-01-01T00:00:00Z").await
    }

    async fn publish_with(&self, pod: &Pod, token: &str, expires_at: &str) -> Result<PathBuf, Status> {
        let mut request = self.kubelet.publish_request(pod);
        let tokens = serde_json::json!({
            "pods.eks.amazonaws.com": { "token": token, "expirationTimestamp": expires_at },
        });
        request.secrets.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens.to_string());
        let target = self.kubelet.target(pod);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        self.kubelet.publish_with(request).await.map(|()| target)
    }
}

fn pod(namespace: &str, name: &str, attributes: &[(&str, &str)]) -> Pod {
    let usual = [
        ("signer", "acm-pca"),
        ("certificate-authority-arn", CA),
        ("dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc"),
        ("use-pod-identity", "true"),
    ];
    let all = usual.iter().chain(attributes);
    let mut pod =
        Pod::new(namespace, name, all.map(|(key, value)| (format!("csi.certlet.io/{key}"), *value)));
    "web".clone_into(&mut pod.service_account);
    pod
}

node_test! {
    async fn the_pods_credentials_are_queried_once_and_used() {
        let stage = Stage::start().await;
        // It is renewed after four seconds, with the same credentials.
        let volume = stage.publish(&pod("shop", "web-0", &[("duration", "6s")])).await.unwrap();
        assert_whole(&volume);
        let before = serial(&volume);
        eventually("the renewal", async || serial(&volume) != before).await;
        assert_eq!(stage.agent.calls(), 1);
        let host = stage.agent.endpoint().trim_start_matches("http://").trim_end_matches("/v1/credentials");
        assert_eq!(stage.agent.hosts(), [host]);
        assert!(stage.pca.callers().iter().all(|caller| caller == ACCESS_KEY), "{:?}", stage.pca.callers());
        assert_eq!(stage.pca.calls("AssumeRoleWithWebIdentity"), 0);
        // Another pod of the same service account has its own credentials.
        stage.publish(&pod("shop", "web-1", &[])).await.unwrap();
        assert_eq!(stage.agent.calls(), 2);
        for secret in [TOKEN, "agent-secret", "agent-session"] {
            assert!(!stage.node.log().contains(secret), "{secret} is logged");
        }
    }
}

node_test! {
    async fn credentials_are_replaced_before_they_expire() {
        let stage = Stage::start().await;
        stage.agent.set_life(SHORT_LIFE);
        let volume = stage.publish(&pod("shop", "web-0", &[("duration", "6s")])).await.unwrap();
        let before = serial(&volume);
        eventually("the renewal", async || serial(&volume) != before).await;
        assert_eq!(stage.agent.calls(), 2);
    }
}

node_test! {
    async fn credentials_that_cannot_be_replaced_are_used_until_they_expire() {
        let stage = Stage::start().await;
        stage.agent.set_life(SHORT_LIFE);
        let volume = stage.publish(&pod("shop", "web-0", &[("duration", "9s")])).await.unwrap();
        let before = serial(&volume);
        stage.agent.refuse(&[(503, "busy"); 3]);
        eventually("the renewal", async || serial(&volume) != before).await;
        assert!(stage.node.log().contains("using older credentials"), "it is logged");
        assert!(stage.agent.calls() >= 4);
    }
}

node_test! {
    async fn credentials_that_aws_refuses_are_replaced() {
        let stage = Stage::start().await;
        stage.pca.fail(ISSUE, &[Fault::Refuse("ExpiredTokenException", 400)]);
        let volume = pod("shop", "web-0", &[]);
        let refused = stage.publish(&volume).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        stage.publish(&volume).await.unwrap();
        assert_eq!(stage.agent.calls(), 2);
    }
}

node_test! {
    async fn a_missing_or_expired_token_is_reported_without_a_call_of_the_agent() {
        let stage = Stage::start().await;
        let volume = pod("shop", "web-0", &[]);
        let refused = stage.kubelet.publish(&volume).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused.message().contains("use-pod-identity: the kubelet has sent no token for pods.eks.amazonaws.com"),
            "{refused}"
        );
        let refused = stage.publish_with(&volume, TOKEN, "2020-01-01T00:00:00Z").await.unwrap_err();
        assert!(refused.message().contains("use-pod-identity: the pod's token for pods.eks.amazonaws.com expired at"), "{refused}");
        assert_eq!(stage.agent.calls(), 0);
        stage.publish(&volume).await.unwrap();
    }
}

node_test! {
    async fn a_missing_association_is_reported_with_advice() {
        let stage = Stage::start().await;
        let volume = pod("shop", "web-0", &[]);
        for (status, text, advice) in [
            (
                404,
                "[1]: (ResourceNotFoundException): No association, fault: client",
                "associate a role with service account web in namespace shop (aws eks create-pod-identity-association)",
            ),
            (
                400,
                "[1]: (AccessDeniedException): Unauthorized Exception! EKS does not have permissions to assume the \
                 associated role., fault: client",
                "sts:TagSession to the service pods.eks.amazonaws.com",
            ),
            (403, "Access Denied. Called agent through invalid address", "check --pca-pod-identity-endpoint"),
        ] {
            let before = stage.agent.calls();
            stage.agent.refuse(&[(status, text)]);
            let refused = stage.publish(&volume).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(refused.message().contains("use-pod-identity: the EKS Pod Identity agent answers"), "{refused}");
            assert!(refused.message().contains(advice), "{refused}");
            assert_eq!(stage.agent.calls(), before + 1, "it is not retried");
        }
        let refused = stage.publish_with(&volume, "stolen", "2099-01-01T00:00:00Z").await.unwrap_err();
        assert!(refused.message().contains("InvalidTokenException): (token) is no token"), "{refused}");
        // With an association, the pod gets its certificate.
        stage.publish(&volume).await.unwrap();
        assert_eq!(stage.pca.issued(), 1);
    }
}

node_test! {
    async fn transient_failures_are_retried_twice() {
        let stage = Stage::start().await;
        let volume = pod("shop", "web-0", &[]);
        stage.agent.refuse(&[(500, "trouble"), (429, "Too Many Requests.")]);
        stage.publish(&volume).await.unwrap();
        assert_eq!(stage.agent.calls(), 3);
        let volume = pod("shop", "web-1", &[]);
        stage.agent.refuse(&[(200, "<html>"), (200, "{}"), (200, "{}")]);
        let refused = stage.publish(&volume).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("use-pod-identity: the EKS Pod Identity agent has answered without"), "{refused}");
        stage.agent.refuse(&[(429, "Too Many Requests."); 3]);
        let refused = stage.publish(&volume).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
}

/// An address of this machine without a listener.
fn unused_endpoint() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}/v1/credentials")
}

node_test! {
    async fn a_missing_agent_is_reported() {
        let stage = Stage::with_endpoints(FakeAgent::start().await, &unused_endpoint()).await;
        let refused = stage.publish(&pod("shop", "web-0", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("use-pod-identity: the EKS Pod Identity agent cannot be reached"), "{refused}");
        assert!(refused.message().contains("eks-pod-identity-agent"), "{refused}");
    }
}

node_test! {
    async fn the_next_endpoint_is_tried_if_one_cannot_be_reached() {
        let agent = FakeAgent::start().await;
        let endpoints = format!("{},{}", unused_endpoint(), agent.endpoint());
        let stage = Stage::with_endpoints(agent, &endpoints).await;
        stage.publish(&pod("shop", "web-0", &[])).await.unwrap();
        assert_eq!(stage.agent.calls(), 1);
    }
}

node_test! {
    async fn a_pod_that_the_policy_does_not_allow_is_refused_before_any_call() {
        let stage = Stage::start().await;
        let refused = stage.publish(&pod("bank", "web-0", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(
            refused.message().contains(
                "rule \"bank\" comes nearest: use-pod-identity: \"pod-identity\" is none of the callers [**]"
            ),
            "{refused}"
        );
        assert_eq!((stage.agent.calls(), stage.pca.calls(ISSUE)), (0, 0));
    }
}
