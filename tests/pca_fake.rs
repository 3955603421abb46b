//! AWS Private CA's hard cases, against our own fake of its wire and of STS's: through the driver's socket, every call
//! counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::type_complexity, reason = "a table of cases")]

#[path = "support/fake_pca.rs"]
mod fake_pca;
mod support;

use certlet::demo::{Kubelet, Pod};
use fake_pca::{CA, FakePca, Fault, ROLE, now};
use std::fs;
use std::path::PathBuf;
use support::{Node, assert_whole, eventually, openssl, serial};
use tonic::{Code, Status};

const ISSUE: &str = "IssueCertificate";
const GET: &str = "GetCertificate";
const DESCRIBE: &str = "DescribeCertificateAuthority";
const AUTHORITY: &str = "GetCertificateAuthorityCertificate";
const ASSUME: &str = "AssumeRoleWithWebIdentity";

const POLICY: &str = r#"
version: 1
rules:
  - name: shop
    match: {namespaces: [shop]}
    allow:
      certificateAuthorities: ["arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/*"]
      templates: ["*/V1"]
      roles: ["arn:aws:iam::123456789012:role/{namespace}-{serviceAccount}"]
      maxDuration: 2160h
      commonNames: ["**"]
      dnsNames: ["*.{namespace}.svc"]
      isCa: true
"#;

async fn started() -> (FakePca, Node, Kubelet) {
    let fake = FakePca::start().await;
    let mut node = Node::with_flags(&[]);
    let policy = node.root.join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    node.flag(&format!("--pca-policy={}", policy.display()));
    for (name, value) in [
        ("AWS_ENDPOINT_URL", fake.endpoint()),
        ("AWS_ACCESS_KEY_ID", "AKIADRIVER"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ] {
        node.env(name, value);
    }
    let kubelet = node.started().await;
    (fake, node, kubelet)
}

fn pod(name: &str, attributes: &[(&str, &str)]) -> Pod {
    let usual = [
        ("signer", "acm-pca"),
        ("certificate-authority-arn", CA),
        ("dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc"),
    ];
    let all =
        usual.iter().filter(|(key, _)| !attributes.iter().any(|(given, _)| given == key)).chain(attributes);
    let mut pod = Pod::new("shop", name, all.map(|(key, value)| (format!("csi.certlet.io/{key}"), *value)));
    "web".clone_into(&mut pod.service_account);
    pod
}

fn text(volume: &std::path::Path) -> String {
    let file = volume.join("tls.crt").display().to_string();
    String::from_utf8(openssl(&["x509", "-in", &file, "-noout", "-text"]).stdout).unwrap()
}

node_test! {
    async fn a_certificate_costs_two_calls_and_its_chain_is_in_order() {
        let (fake, _node, kubelet) = started().await;
        for number in 0..4 {
            let volume = kubelet.publish(&pod(&format!("web-{number}"), &[])).await.unwrap();
            assert_whole(&volume);
            let chain = fs::read_to_string(volume.join("tls.crt")).unwrap();
            assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 3, "leaf, issuer, middle");
            let anchors = fs::read_to_string(volume.join("ca.crt")).unwrap();
            assert_eq!(anchors.matches("BEGIN CERTIFICATE").count(), 1, "root");
        }
        assert_eq!((fake.calls(ISSUE), fake.calls(GET), fake.calls(DESCRIBE)), (4, 4, 1));
    }
}

node_test! {
    async fn each_template_is_chosen_by_what_is_asked_for() {
        let (fake, _node, kubelet) = started().await;
        let cases: [(&[(&str, &str)], &str, &str); 7] = [
            (&[], "EndEntityCertificate", "TLS Web Server Authentication, TLS Web Client Authentication"),
            (&[("key-usages", "digital signature,client auth")], "EndEntityClientAuthCertificate", "TLS Web Client Authentication"),
            (&[("key-usages", "key encipherment,server auth")], "EndEntityServerAuthCertificate", "TLS Web Server Authentication"),
            (&[("key-usages", "code signing")], "CodeSigningCertificate", "Code Signing"),
            (&[("key-usages", "email protection")], "BlankEndEntityCertificate_CSRPassthrough", "E-mail Protection"),
            (
                &[
                    ("key-usages", "timestamping"),
                    ("template-arn", "arn:aws:acm-pca:::template/BlankEndEntityCertificate_APICSRPassthrough/V1"),
                ],
                "BlankEndEntityCertificate_APICSRPassthrough",
                "Time Stamping",
            ),
            (&[("is-ca", "true"), ("common-name", "mesh")], "SubordinateCACertificate_PathLen0", "CA:TRUE, pathlen:0"),
        ];
        for (number, (attributes, template, shows)) in cases.into_iter().enumerate() {
            let volume = kubelet.publish(&pod(&format!("web-{number}"), attributes)).await.unwrap();
            let last = fake.requests(ISSUE).pop().unwrap();
            assert_eq!(last["TemplateArn"], format!("arn:aws:acm-pca:::template/{template}/V1"));
            let text = text(&volume);
            assert!(text.contains(shows), "{template}: {text}");
        }
        let dropped = [
            ("key-usages", "server auth"),
            ("template-arn", "arn:aws:acm-pca:::template/CodeSigningCertificate/V1"),
        ];
        let refused = kubelet.publish(&pod("web-9", &dropped)).await.unwrap_err();
        assert!(refused.message().contains("would drop server auth"), "{refused}");
        assert_eq!(fake.calls(ISSUE), 7);
    }
}

node_test! {
    async fn a_short_lived_ca_cuts_to_seven_days_and_says_so() {
        let (fake, node, kubelet) = started().await;
        fake.describe(|ca| ca.mode = "SHORT_LIVED_CERTIFICATE");
        kubelet.publish(&pod("web-0", &[("duration", "2160h")])).await.unwrap();
        let status = node.status(&[]);
        assert!(status.contains("the duration was cut to 7 days"), "{status}");
        kubelet.publish(&pod("web-1", &[("duration", "25h")])).await.unwrap();
        let until = fake.requests(ISSUE).pop().unwrap()["Validity"]["Value"].as_u64().unwrap();
        assert!(until.abs_diff(now() + 25 * 3600) < 60, "hours are kept");
    }
}

node_test! {
    async fn a_certificate_that_takes_long_is_waited_for_and_paid_for_once() {
        let (fake, _node, kubelet) = started().await;
        fake.slow(3);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(ISSUE), fake.calls(GET)), (1, 4));
    }
}

node_test! {
    async fn a_throttling_storm_passes() {
        let (fake, _node, kubelet) = started().await;
        fake.fail(DESCRIBE, &[Fault::Refuse("ThrottlingException", 400)]);
        fake.fail(ISSUE, &[Fault::Refuse("ThrottlingException", 400), Fault::Refuse("TooManyRequestsException", 429)]);
        fake.fail(GET, &[Fault::Refuse("ThrottlingException", 400)]);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(DESCRIBE), fake.calls(ISSUE), fake.calls(GET), fake.issued()), (2, 3, 2, 1));
    }
}

node_test! {
    async fn a_lost_answer_is_asked_for_again_and_paid_for_once() {
        let (fake, _node, kubelet) = started().await;
        fake.fail(ISSUE, &[Fault::LoseAnswer, Fault::LoseAnswer]);
        fake.fail(GET, &[Fault::LoseAnswer]);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(ISSUE), fake.calls(GET), fake.issued()), (3, 2, 1));
    }
}

node_test! {
    async fn who_may_not_describe_the_ca_still_gets_certificates() {
        let (fake, _node, kubelet) = started().await;
        let denied = Fault::Refuse("AccessDeniedException", 400);
        fake.fail(DESCRIBE, std::slice::from_ref(&denied));
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(AUTHORITY), fake.calls(ISSUE)), (1, 1));
        assert_eq!(fake.requests(ISSUE)[0]["SigningAlgorithm"], "SHA256WITHECDSA", "read off the CA's certificate");

        kubelet.publish(&pod("web-1", &[])).await.unwrap();
        assert_eq!((fake.calls(DESCRIBE), fake.calls(AUTHORITY)), (1, 1), "kept");
    }
}

node_test! {
    async fn who_may_not_even_read_the_ca_certificate_has_to_name_the_algorithm() {
        let (fake, _node, kubelet) = started().await;
        let denied = Fault::Refuse("AccessDeniedException", 400);
        fake.fail(DESCRIBE, &[denied.clone(), denied.clone()]);
        fake.fail(AUTHORITY, &[denied.clone(), denied]);
        let refused = kubelet.publish(&pod("web-0", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("set the attribute signing-algorithm"), "{refused}");
        kubelet.publish(&pod("web-1", &[("signing-algorithm", "SHA256WITHECDSA")])).await.unwrap();
    }
}

node_test! {
    async fn a_signing_algorithm_of_the_wrong_family_is_refused_before_the_call() {
        let (fake, _node, kubelet) = started().await;
        let refused = kubelet.publish(&pod("web-0", &[("signing-algorithm", "SHA256WITHRSA")])).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("signing-algorithm: SHA256WITHRSA does not fit"), "{refused}");
        assert_eq!(fake.calls(ISSUE), 0);
    }
}

node_test! {
    async fn a_ca_that_is_disabled_in_mid_life_is_told_of_and_live_volumes_stay() {
        let (fake, _node, kubelet) = started().await;
        let volume = kubelet.publish(&pod("web-0", &[])).await.unwrap();
        fake.describe(|ca| ca.status = "DISABLED");
        let refused = kubelet.publish(&pod("web-1", &[])).await.unwrap_err();
        assert!(refused.message().contains("InvalidStateException"), "{refused}");
        let refused = kubelet.publish(&pod("web-1", &[])).await.unwrap_err();
        assert!(refused.message().contains("the private CA is DISABLED, not ACTIVE: enable it"), "{refused}");
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_whole(&volume);
        fake.describe(|ca| ca.status = "ACTIVE");
        kubelet.publish(&pod("web-1", &[])).await.unwrap();
    }
}

node_test! {
    async fn a_ca_near_its_end_cuts_short_and_one_at_its_end_is_refused() {
        let (fake, node, kubelet) = started().await;
        fake.describe(|ca| ca.not_after = now() + 7200);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert!(node.status(&[]).contains("the private CA itself expires soon after"), "{}", node.status(&[]));
        assert!(node.log().contains("a private CA nears its end"), "it is warned of");
    }
}

node_test! {
    async fn a_ca_at_its_end_is_refused() {
        let (fake, _node, kubelet) = started().await;
        fake.describe(|ca| ca.not_after = now() + 120);
        let refused = kubelet.publish(&pod("web-0", &[])).await.unwrap_err();
        assert!(refused.message().contains("renew its certificate"), "{refused}");
        assert_eq!(fake.calls(ISSUE), 0);
    }
}

node_test! {
    async fn an_answer_that_is_no_certificate_is_refused_and_the_next_attempt_begins_anew() {
        let (fake, _node, kubelet) = started().await;
        fake.fail(GET, &[Fault::Babble]);
        let refused = kubelet.publish(&pod("web-0", &[])).await.unwrap_err();
        assert!(refused.message().contains("not PEM"), "{refused}");
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!(fake.issued(), 2);
    }
}

node_test! {
    async fn permanent_errors_say_what_to_do() {
        let (fake, _node, kubelet) = started().await;
        for (number, (code, advice)) in [
            ("AccessDeniedException", "let the IAM policy"),
            ("LimitExceededException", "quota of certificates is used up"),
            ("ResourceNotFoundException", "check certificate-authority-arn"),
            ("MalformedCSRException", "does not take this subject"),
            ("InvalidArgsException", "template, signing algorithm and duration"),
        ]
        .into_iter()
        .enumerate()
        {
            fake.fail(ISSUE, &[Fault::Refuse(code, 400)]);
            let refused = kubelet.publish(&pod(&format!("web-{number}"), &[])).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{code}");
            assert!(refused.message().contains(code) && refused.message().contains(advice), "{refused}");
            assert_eq!(fake.calls(ISSUE), number + 1, "{code} is not repeated");
        }
    }
}

/// A publish with the pod's token, as the kubelet sends it.
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
        // Renewed after four seconds, with the same credentials.
        let volume = publish_with_token(&kubelet, &pod("web-0", &[("role-arn", ROLE), ("duration", "6s")])).await.unwrap();
        let before = serial(&volume);
        eventually("it is renewed", async || serial(&volume) != before).await;
        assert_eq!(fake.calls(ASSUME), 1);
        assert_eq!(fake.sessions(), ["shop@web@web-0"]);
        assert!(fake.callers().iter().all(|caller| caller == "ASIAROLE"), "{:?}", fake.callers());
        publish_with_token(&kubelet, &pod("web-1", &[])).await.unwrap();
        assert_eq!(fake.callers().pop().as_deref(), Some("AKIADRIVER"));
        assert!(!node.log().contains("pod-token"), "no token is logged");
    }
}

node_test! {
    async fn a_token_that_sts_refuses_is_told_of() {
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
    async fn a_role_that_the_policy_does_not_name_is_refused_before_any_call() {
        let (fake, _node, kubelet) = started().await;
        let pod = pod("web-0", &[("role-arn", "arn:aws:iam::123456789012:role/admin")]);
        let refused = publish_with_token(&kubelet, &pod).await.unwrap_err();
        assert!(refused.message().contains("rule \"shop\" comes nearest: role-arn: "), "{refused}");
        assert_eq!((fake.calls(ASSUME), fake.calls(DESCRIBE)), (0, 0));
    }
}

node_test! {
    async fn a_changed_policy_is_taken_up_while_the_driver_runs() {
        let (_fake, node, kubelet) = started().await;
        let policy = node.root.join("policy.yaml");
        fs::write(node.root.join("new.yaml"), POLICY.replace("[shop]", "[bank]")).unwrap();
        fs::rename(node.root.join("new.yaml"), &policy).unwrap();
        eventually("the change is taken up", async || node.log().contains("the policy has changed")).await;
        let refused = kubelet.publish(&pod("web-0", &[])).await.unwrap_err();
        assert!(refused.message().contains("denied by the policy"), "{refused}");
        fs::write(node.root.join("new.yaml"), "nonsense").unwrap();
        fs::rename(node.root.join("new.yaml"), &policy).unwrap();
        eventually("the fault is told", async || node.log().contains("THE OLD RULES STAY IN FORCE")).await;
        fs::write(node.root.join("new.yaml"), POLICY).unwrap();
        fs::rename(node.root.join("new.yaml"), &policy).unwrap();
        eventually("and mended", async || kubelet.publish(&pod("web-0", &[])).await.is_ok()).await;
    }
}

node_test! {
    async fn certificates_that_nobody_has_any_more_are_revoked_also_after_a_restart() {
        const REVOKE: &str = "RevokeCertificate";
        let (fake, mut node, _kubelet) = started().await;
        node.stop();
        node.flag("--pca-revoke-on-unpublish");
        let kubelet = node.started().await;
        let pod = pod("web-0", &[("duration", "6s")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let before = serial(&volume);
        eventually("it is renewed", async || serial(&volume) != before).await;
        eventually("and the old one revoked", async || fake.calls(REVOKE) == 1).await;
        assert_eq!(fake.requests(REVOKE)[0]["RevocationReason"], "SUPERSEDED");
        let revoked = fake.requests(REVOKE)[0]["CertificateSerial"].as_str().unwrap().replace(':', "");
        assert_eq!(revoked, before);
        // The answer is lost, and the process with it.
        fake.fail(REVOKE, &[Fault::Refuse("ThrottlingException", 400)]);
        let list = node.data_root().join("revocations");
        kubelet.unpublish(&pod).await.unwrap();
        eventually("it is listed", async || {
            fs::read_to_string(&list).unwrap_or_default().contains("CESSATION_OF_OPERATION")
        })
        .await;
        node.kill();
        let _kubelet = node.started().await;
        eventually("it is revoked", async || fs::read_to_string(&list).unwrap_or_default().is_empty()).await;
        assert_eq!(fake.requests(REVOKE).pop().unwrap()["RevocationReason"], "CESSATION_OF_OPERATION");
    }
}
