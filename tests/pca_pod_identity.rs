//! `use-pod-identity`: AWS Private CA called with what EKS Pod Identity gives the pod, against a fake of the agent on the
//! node, every call counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/fake_agent.rs"]
mod fake_agent;
#[allow(dead_code, reason = "the hard cases of AWS Private CA itself are in pca_fake.rs")]
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
/// Credentials are replaced when they have less than five minutes left.
const SOON: Duration = Duration::from_secs(300 + 2);

const POLICY: &str = r#"
version: 1
rules:
  - name: shop
    match: {namespaces: [shop], attributes: {use-pod-identity: ["true"]}}
    allow: {certificateAuthorities: ["**"], roles: [pod-identity], minDuration: 1s, maxDuration: 24h, dnsNames: ["*.{namespace}.svc"]}
  - name: bank
    match: {namespaces: [bank]}
    allow: {certificateAuthorities: ["**"], roles: ["**"], maxDuration: 24h, dnsNames: ["*.{namespace}.svc"]}
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

    /// A publish with the pod's token, as the kubelet sends it.
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
    async fn a_pods_own_credentials_sign_and_are_asked_for_once() {
        let stage = Stage::start().await;
        // Renewed after four seconds, with the same credentials.
        let volume = stage.publish(&pod("shop", "web-0", &[("duration", "6s")])).await.unwrap();
        assert_whole(&volume);
        let before = serial(&volume);
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_eq!(stage.agent.calls(), 1);
        let host = stage.agent.endpoint().trim_start_matches("http://").trim_end_matches("/v1/credentials");
        assert_eq!(stage.agent.hosts(), [host]);
        assert!(stage.pca.callers().iter().all(|caller| caller == ACCESS_KEY), "{:?}", stage.pca.callers());
        assert_eq!(stage.pca.calls("AssumeRoleWithWebIdentity"), 0);
        // Another pod of the same service account is another pod.
        stage.publish(&pod("shop", "web-1", &[])).await.unwrap();
        assert_eq!(stage.agent.calls(), 2);
        for secret in [TOKEN, "agent-secret", "agent-session"] {
            assert!(!stage.node.log().contains(secret), "{secret} is logged");
        }
    }
}

node_test! {
    async fn credentials_are_replaced_ahead_of_their_end() {
        let stage = Stage::start().await;
        stage.agent.give_for(SOON);
        let volume = stage.publish(&pod("shop", "web-0", &[("duration", "6s")])).await.unwrap();
        let before = serial(&volume);
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_eq!(stage.agent.calls(), 2);
    }
}

node_test! {
    async fn credentials_that_cannot_be_replaced_for_the_moment_are_used_while_they_hold() {
        let stage = Stage::start().await;
        stage.agent.give_for(SOON);
        let volume = stage.publish(&pod("shop", "web-0", &[("duration", "9s")])).await.unwrap();
        let before = serial(&volume);
        stage.agent.refuse(&[(503, "busy"); 3]);
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert!(stage.node.log().contains("going on with older credentials"), "it is told");
        assert!(stage.agent.calls() >= 4);
    }
}

node_test! {
    async fn credentials_that_aws_does_not_take_any_more_are_forgotten() {
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
    async fn a_token_that_is_missing_or_has_expired_is_told_of_and_the_agent_is_not_asked() {
        let stage = Stage::start().await;
        let volume = pod("shop", "web-0", &[]);
        let refused = stage.kubelet.publish(&volume).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused.message().contains("use-pod-identity: the kubelet has sent no token for pods.eks.amazonaws.com"),
            "{refused}"
        );
        let refused = stage.publish_with(&volume, TOKEN, "2020-01-01T00:00:00Z").await.unwrap_err();
        assert!(refused.message().contains("use-pod-identity: the pod's token has expired"), "{refused}");
        assert_eq!(stage.agent.calls(), 0);
        stage.publish(&volume).await.unwrap();
    }
}

node_test! {
    async fn an_association_that_is_missing_is_told_of_with_what_to_do() {
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
            (403, "Access Denied. Called agent through invalid address", "look at --pca-pod-identity-endpoint"),
        ] {
            let before = stage.agent.calls();
            stage.agent.refuse(&[(status, text)]);
            let refused = stage.publish(&volume).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(refused.message().contains("use-pod-identity: the EKS Pod Identity agent answers"), "{refused}");
            assert!(refused.message().contains(advice), "{refused}");
            assert_eq!(stage.agent.calls(), before + 1, "it is not repeated");
        }
        let refused = stage.publish_with(&volume, "stolen", "2099-01-01T00:00:00Z").await.unwrap_err();
        assert!(refused.message().contains("InvalidTokenException): (token) is no token"), "{refused}");
        // Once there is one, the pod gets its certificate.
        stage.publish(&volume).await.unwrap();
        assert_eq!(stage.pca.issued(), 1);
    }
}

node_test! {
    async fn what_passes_is_repeated_for_a_while_and_then_left_to_the_next_attempt() {
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

/// An address of this machine that nothing listens at.
fn nowhere() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}/v1/credentials")
}

node_test! {
    async fn an_agent_that_is_not_there_is_told_of() {
        let stage = Stage::with_endpoints(FakeAgent::start().await, &nowhere()).await;
        let refused = stage.publish(&pod("shop", "web-0", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("use-pod-identity: the EKS Pod Identity agent cannot be reached"), "{refused}");
        assert!(refused.message().contains("eks-pod-identity-agent"), "{refused}");
    }
}

node_test! {
    async fn the_agent_is_found_at_the_address_that_it_has() {
        let agent = FakeAgent::start().await;
        let endpoints = format!("{},{}", nowhere(), agent.endpoint());
        let stage = Stage::with_endpoints(agent, &endpoints).await;
        stage.publish(&pod("shop", "web-0", &[])).await.unwrap();
        assert_eq!(stage.agent.calls(), 1);
    }
}

node_test! {
    async fn a_pod_that_the_policy_does_not_let_use_it_is_refused_before_any_call() {
        let stage = Stage::start().await;
        let refused = stage.publish(&pod("bank", "web-0", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(
            refused.message().contains(
                "rule \"bank\" comes nearest: use-pod-identity: \"pod-identity\" is none of the roles [**]"
            ),
            "{refused}"
        );
        assert_eq!((stage.agent.calls(), stage.pca.calls(ISSUE)), (0, 0));
    }
}
