//! Requests and their certificates, up to the revocation.

use crate::fake_pca::{CA, FakePca, Fault, ROLE, now};
use crate::support::{assert_whole, eventually, get_from, openssl, pca, serial};
use crate::{AUTHORITY, DESCRIBE, GET, ISSUE, POLICY, node_test, pod, started};
use std::fs;
use tonic::Code;

fn text(volume: &std::path::Path) -> String {
    let file = volume.join("tls.crt").display().to_string();
    String::from_utf8(openssl(&["x509", "-in", &file, "-noout", "-text"]).stdout).unwrap()
}

node_test! {
    async fn a_certificate_takes_two_calls_and_its_chain_is_in_order() {
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
    async fn the_template_is_chosen_by_the_request() {
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
        for (number, (attributes, template, expected)) in cases.into_iter().enumerate() {
            let volume = kubelet.publish(&pod(&format!("web-{number}"), attributes)).await.unwrap();
            let last = fake.requests(ISSUE).pop().unwrap();
            assert_eq!(last["TemplateArn"], format!("arn:aws:acm-pca:::template/{template}/V1"));
            let text = text(&volume);
            assert!(text.contains(expected), "{template}: {text}");
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
    async fn a_short_lived_ca_shortens_to_seven_days_with_a_warning() {
        let (fake, node, kubelet) = started().await;
        fake.describe(|ca| ca.mode = "SHORT_LIVED_CERTIFICATE");
        kubelet.publish(&pod("web-0", &[("duration", "2160h")])).await.unwrap();
        let status = node.status(&[]);
        assert!(status.contains("the duration was cut to 7 days"), "{status}");
        kubelet.publish(&pod("web-1", &[("duration", "25h")])).await.unwrap();
        let until = fake.requests(ISSUE).pop().unwrap()["Validity"]["Value"].as_u64().unwrap();
        assert!(until.abs_diff(now() + 25 * 3600) < 60, "25 hours are kept");
    }
}

node_test! {
    async fn a_caller_that_may_not_describe_the_ca_gets_certificates() {
        let (fake, _node, kubelet) = started().await;
        let denied = Fault::Refuse("AccessDeniedException", 400);
        fake.fail(DESCRIBE, std::slice::from_ref(&denied));
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert_eq!((fake.calls(AUTHORITY), fake.calls(ISSUE)), (1, 1));
        assert_eq!(fake.requests(ISSUE)[0]["SigningAlgorithm"], "SHA256WITHECDSA", "from the CA's certificate");

        kubelet.publish(&pod("web-1", &[])).await.unwrap();
        assert_eq!((fake.calls(DESCRIBE), fake.calls(AUTHORITY)), (1, 1), "cached");
    }
}

node_test! {
    async fn a_caller_that_may_not_read_the_ca_certificate_must_set_the_algorithm() {
        let (fake, _node, kubelet) = started().await;
        let denied = Fault::Refuse("AccessDeniedException", 400);
        fake.fail(DESCRIBE, &[denied.clone(), denied.clone()]);
        fake.fail(AUTHORITY, &[denied.clone(), denied]);
        let refused = kubelet.publish(&pod("web-0", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("set the attribute signing-algorithm"), "{refused}");
        let named = [("signing-algorithm", "SHA256WITHECDSA")];
        kubelet.publish(&pod("web-1", &named)).await.unwrap();
        kubelet.publish(&pod("web-2", &named)).await.unwrap();
        assert_eq!((fake.calls(DESCRIBE), fake.calls(AUTHORITY)), (2, 2), "not called again at once");
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
    async fn a_ca_near_its_end_shortens_certificates_and_causes_a_warning() {
        let (fake, node, kubelet) = started().await;
        fake.describe(|ca| ca.not_after = now() + 7200);
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert!(node.status(&[]).contains("the private CA itself expires soon after"), "{}", node.status(&[]));
        assert!(node.log().contains("a private CA expires soon"), "a warning is logged");
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
    async fn certificates_out_of_use_are_revoked_also_after_a_restart() {
        const REVOKE: &str = "RevokeCertificate";
        let (fake, mut node, _kubelet) = started().await;
        node.stop();
        node.flag("--pca-revoke-on-unpublish");
        let kubelet = node.started().await;
        let pod = pod("web-0", &[("duration", "6s")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let before = serial(&volume);
        eventually("the renewal", async || serial(&volume) != before).await;
        eventually("the revocation of the old certificate", async || fake.calls(REVOKE) == 1).await;
        assert_eq!(fake.requests(REVOKE)[0]["RevocationReason"], "SUPERSEDED");
        let revoked = fake.requests(REVOKE)[0]["CertificateSerial"].as_str().unwrap().replace(':', "");
        assert_eq!(revoked, before);
        // The call is throttled, and the process is killed before it tries again.
        fake.fail(REVOKE, &[Fault::Refuse("ThrottlingException", 400)]);
        let list = node.data_root().join("revocations");
        kubelet.unpublish(&pod).await.unwrap();
        eventually("the entry in the list", async || {
            fs::read_to_string(&list).unwrap_or_default().contains("CESSATION_OF_OPERATION")
        })
        .await;
        node.kill();
        let _kubelet = node.started().await;
        eventually("the revocation after the restart", async || fs::read_to_string(&list).unwrap_or_default().is_empty()).await;
        assert_eq!(fake.requests(REVOKE).pop().unwrap()["RevocationReason"], "CESSATION_OF_OPERATION");
    }
}

node_test! {
    async fn arns_and_account_numbers_are_on_metrics_only_with_the_flag() {
        const ADMIN: &str = "127.0.0.1:19406";
        let (_, id) = CA.rsplit_once('/').unwrap();
        let fake = FakePca::start().await;
        let mut node = pca::node(POLICY, fake.endpoint());
        node.flag(&format!("--metrics-bind-address={ADMIN}"));
        let kubelet = node.started().await;
        kubelet.publish(&pod("web-0", &[])).await.unwrap();
        // Failures have ARNs in their messages.
        kubelet.publish(&pod("web-1", &[("role-arn", ROLE)])).await.unwrap_err();
        fake.fail(ISSUE, &[Fault::Refuse("AccessDeniedException", 400)]);
        kubelet.publish(&pod("web-2", &[])).await.unwrap_err();
        let (_, metrics) = get_from(ADMIN, "/metrics").await.unwrap();
        assert!(metrics.contains(&format!("{{authority=\"{id}\"}}")), "{metrics}");
        assert!(!metrics.contains("arn:") && !metrics.contains("123456789012"), "{metrics}");

        node.stop();
        node.flag("--metrics-pca-arns");
        let kubelet = node.started().await;
        kubelet.publish(&pod("web-3", &[])).await.unwrap();
        let (_, metrics) = get_from(ADMIN, "/metrics").await.unwrap();
        assert!(metrics.contains(&format!("{{authority=\"{CA}\"}}")), "{metrics}");
    }
}
