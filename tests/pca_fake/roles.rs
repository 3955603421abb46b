//! The pods' roles, and the policy.

use crate::fake_pca::{Fault, ROLE};
use crate::support::pca::DRIVER_KEY;
use crate::support::{assert_whole, eventually, peak_memory, serial};
use crate::{ASSUME, AUTHORITY, DESCRIBE, GET, ISSUE, POLICY, node_test, pod, started};
use certlet_kubelet::{Kubelet, Pod};
use std::fs;
use std::path::PathBuf;
use tonic::{Code, Status};

/// Publishes with the pod's token.
async fn publish_with_token(kubelet: &Kubelet, pod: &Pod) -> Result<PathBuf, Status> {
    let mut request = kubelet.publish_request(pod);
    request.secrets.insert(
        "csi.storage.k8s.io/serviceAccount.tokens".to_owned(),
        r#"{"sts.amazonaws.com":{"token":"pod-token","expirationTimestamp":"2099-01-01T00:00:00Z"}}"#
            .to_owned(),
    );
    let target = kubelet.target(pod);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    kubelet.publish_with(request).await.map(|()| target)
}

node_test! {
    async fn a_pods_role_is_assumed_once_and_signs() {
        let (fake, node, kubelet) = started().await;
        // It is renewed after four seconds, with the same credentials.
        let volume = publish_with_token(&kubelet, &pod("web-0", &[("role-arn", ROLE), ("duration", "6s")])).await.unwrap();
        let before = serial(&volume);
        eventually("the renewal", async || serial(&volume) != before).await;
        assert_eq!(fake.calls(ASSUME), 1);
        assert_eq!(fake.sessions(), ["shop@web@web-0"]);
        assert!(fake.callers().iter().all(|caller| caller == "ASIAROLE"), "{:?}", fake.callers());
        publish_with_token(&kubelet, &pod("web-1", &[])).await.unwrap();
        assert_eq!(fake.callers().pop().as_deref(), Some(DRIVER_KEY));
        assert!(!node.log().contains("pod-token"), "no token is logged");
    }
}

node_test! {
    async fn a_token_that_sts_refuses_is_reported() {
        let (fake, _node, kubelet) = started().await;
        let pod = pod("web-0", &[("role-arn", ROLE)]);
        let refused = kubelet.publish(&pod).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("no token for sts.amazonaws.com"), "{refused}");
        for (fault, code) in [
            ("ExpiredTokenException", Code::Unavailable),
            ("InvalidIdentityToken", Code::FailedPrecondition),
            ("AccessDenied", Code::FailedPrecondition),
        ] {
            fake.fail(ASSUME, &[Fault::Refuse(fault, 400)]);
            let refused = publish_with_token(&kubelet, &pod).await.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            assert!(refused.message().contains(fault), "{refused}");
        }
        publish_with_token(&kubelet, &pod).await.unwrap();
        assert_eq!(fake.issued(), 1);
    }
}

node_test! {
    async fn a_role_that_the_policy_does_not_allow_is_refused_before_any_call() {
        let (fake, _node, kubelet) = started().await;
        let pod = pod("web-0", &[("role-arn", "arn:aws:iam::123456789012:role/admin")]);
        let refused = publish_with_token(&kubelet, &pod).await.unwrap_err();
        assert!(refused.message().contains("rule \"shop\" comes nearest: role-arn: "), "{refused}");
        assert_eq!((fake.calls(ASSUME), fake.calls(DESCRIBE)), (0, 0));
    }
}

node_test! {
    async fn a_changed_policy_is_loaded_while_the_driver_runs() {
        let (_fake, node, kubelet) = started().await;
        let directory = node.root.join("policy");
        let policy = directory.join("policy.yaml");
        fs::write(directory.join("new.yaml"), POLICY.replace("[shop]", "[bank]")).unwrap();
        fs::rename(directory.join("new.yaml"), &policy).unwrap();
        eventually("the new policy", async || node.log().contains("the policy has changed")).await;
        let refused = kubelet.publish(&pod("web-0", &[])).await.unwrap_err();
        assert!(refused.message().contains("denied by the policy"), "{refused}");
        fs::write(directory.join("new.yaml"), "nonsense").unwrap();
        fs::rename(directory.join("new.yaml"), &policy).unwrap();
        eventually("the error in the log", async || node.log().contains("THE OLD RULES STAY IN FORCE")).await;
        fs::write(directory.join("new.yaml"), POLICY).unwrap();
        fs::rename(directory.join("new.yaml"), &policy).unwrap();
        eventually("the fixed policy", async || kubelet.publish(&pod("web-0", &[])).await.is_ok()).await;
    }
}

node_test! {
    async fn an_answer_of_aws_that_is_too_long_is_not_read_to_its_end() {
        let (fake, node, kubelet) = started().await;
        fake.fail(ASSUME, &[Fault::LongAnswer]);
        for call in [DESCRIBE, AUTHORITY, ISSUE, GET] {
            fake.fail(call, &[Fault::LongAnswer]);
        }
        let pod = pod("web-0", &[("role-arn", ROLE)]);
        let mut volume = publish_with_token(&kubelet, &pod).await;
        for _ in 0..8 {
            if volume.is_ok() {
                break;
            }
            volume = publish_with_token(&kubelet, &pod).await;
        }
        assert_whole(&volume.unwrap());
        for call in [ASSUME, ISSUE, GET] {
            assert!(fake.calls(call) >= 2, "{call}");
        }
        let peak = peak_memory(&node);
        assert!(peak < 100 << 20, "{} MiB", peak >> 20);
    }
}

node_test! {
    async fn a_namespace_beyond_its_budget_waits_and_another_one_is_served() {
        let fake = crate::fake_pca::FakePca::start().await;
        let policy = POLICY.replace("version: 2", "version: 2\nmaxIssuancesPerHour: 3");
        let mut node = crate::support::pca::node(&policy.replace("[shop]", "[shop, other]"), fake.endpoint());
        let kubelet = node.started().await;
        let directory = node.root.join("policy");
        for name in ["web-0", "web-1", "web-2"] {
            kubelet.publish(&pod(name, &[])).await.unwrap();
        }
        let refused = kubelet.publish(&pod("web-3", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let message = refused.message();
        assert!(message.contains("namespace shop") && message.contains("maxIssuancesPerHour"), "{message}");
        assert_eq!(fake.issued(), 3);
        let mut other = pod("web-0", &[("dns-names", "web.other.svc.cluster.local")]);
        (other.namespace, other.uid) = ("other".to_owned(), "another".to_owned());
        kubelet.publish(&other).await.unwrap();
        // The policy changes while the driver runs.
        fs::write(directory.join("new.yaml"), POLICY.replace("[shop]", "[shop, other]")).unwrap();
        fs::rename(directory.join("new.yaml"), directory.join("policy.yaml")).unwrap();
        eventually("a larger budget", async || kubelet.publish(&pod("web-3", &[])).await.is_ok()).await;
    }
}
