//! Attacks with answers: what comes back from an issuer must be what was asked for, for whom, and from whom. An API server with
//! scripted answers serves them to a real driver.

use crate::cert_manager::{Authority, CERT_MANAGER, CERTLET, Cluster, SIGNED, pod};
use crate::certificate_requests::Server;
use crate::node_test;
use crate::support::{assert_whole, eventually};
use certlet_kubelet::Pod;
use rcgen::{BasicConstraints, CertificateParams, IsCa, SanType};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tonic::Code;

/// Whom the server names as the creator of the driver's requests.
const DRIVER: &str = "system:serviceaccount:certlet:certlet";

/// When somebody deletes the request and makes it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The driver waits for the certificate.
    Waiting,
    /// The same, and the driver's watch does not show the deletion.
    WaitingUnseen,
    /// Between two calls of the kubelet.
    BetweenCalls,
    /// The same, and the driver's watch does not show the deletion.
    BetweenCallsUnseen,
    /// While no driver runs.
    Stopped,
}

/// Makes the request again, and has it signed by another CA.
fn attack(server: &Server, name: &str, seen: bool, evil: &Authority, change: fn(&mut Value)) {
    server.replace(name, seen, change);
    let status = evil.sign(&server.object(name), |_| {});
    server.set(name, &SIGNED, &status);
}

/// Checks that a volume has a certificate of this CA, and no other CA to trust.
fn assert_signed_by(pem: &str, volume: &Path, what: &str) {
    assert_whole(volume);
    assert_eq!(fs::read_to_string(volume.join("ca.crt")).unwrap().trim(), pem.trim(), "{what}");
}

/// The pod of a request that somebody makes again gets no certificate from it. It gets one from another request.
async fn made_again(moments: &[Moment], what: &str, change: fn(&mut Value)) {
    let mut cluster = Cluster::start(|_| {}).await;
    let (honest, evil) = (Authority::new("honest"), Authority::new("evil"));
    let pem = honest.pem.clone();
    cluster.server.set_creator(DRIVER);
    // The driver learns its own name from the answer to its first request.
    let first = pod(CERTLET, "shop", "first", &[]);
    cluster.publish_with(&first, |request| honest.sign(request, |_| {})).await.unwrap();
    let mut pods = Vec::new();
    for (number, moment) in moments.iter().enumerate() {
        let pod = pod(CERTLET, "shop", &format!("web-{number}"), &[]);
        made_again_at(&mut cluster, *moment, &pod, &evil, change).await;
        pods.push((pod, format!("{what}, {moment:?}")));
    }
    let signing = cluster.sign_all(honest);
    for (pod, what) in pods {
        eventually(&what, async || cluster.kubelet.publish(&pod).await.is_ok()).await;
        assert_signed_by(&pem, &cluster.kubelet.target(&pod), &what);
    }
    signing.abort();
}

async fn made_again_at(
    cluster: &mut Cluster,
    moment: Moment,
    pod: &Pod,
    evil: &Authority,
    change: fn(&mut Value),
) {
    let seen = !matches!(moment, Moment::WaitingUnseen | Moment::BetweenCallsUnseen);
    // The server's answer to the create has come, so that the driver knows the request's uid.
    let name = cluster.publish_without_answer(pod).await;
    match moment {
        Moment::Waiting | Moment::WaitingUnseen => {
            let calls = cluster.server.calls("get");
            let attacked = async {
                eventually("the driver waits", async || cluster.server.calls("get") > calls).await;
                attack(&cluster.server, &name, seen, evil, change);
            };
            let (refused, ()) = tokio::join!(cluster.kubelet.publish(pod), attacked);
            assert_eq!(refused.unwrap_err().code(), Code::Unavailable, "{moment:?}");
        }
        Moment::BetweenCalls | Moment::BetweenCallsUnseen => {
            attack(&cluster.server, &name, seen, evil, change);
        }
        Moment::Stopped => cluster.restart(|server| attack(server, &name, seen, evil, change)).await,
    }
}

node_test! {
    async fn a_request_that_somebody_makes_again_with_another_issuer_is_not_adopted() {
        let moments = [
            Moment::Waiting,
            Moment::WaitingUnseen,
            Moment::BetweenCalls,
            Moment::BetweenCallsUnseen,
            Moment::Stopped,
        ];
        made_again(&moments, "another issuer", |request| {
            request["spec"]["issuerRef"]["name"] = "evil".into();
        })
        .await;
    }
}

node_test! {
    async fn a_request_that_another_account_makes_again_is_not_adopted() {
        let moments =
            [Moment::Waiting, Moment::WaitingUnseen, Moment::BetweenCalls, Moment::BetweenCallsUnseen];
        made_again(&moments, "another creator", |request| {
            request["spec"]["username"] = "system:serviceaccount:shop:evil".into();
        })
        .await;
    }
}

node_test! {
    async fn a_request_that_has_another_uid_than_the_one_that_is_waited_for_is_not_adopted() {
        made_again(&[Moment::WaitingUnseen], "another uid", |_| {}).await;
    }
}

node_test! {
    async fn a_name_that_was_not_asked_for_is_refused_or_under_a_peers_prefix_a_warning() {
        let cluster = Cluster::start(|_| {}).await;
        let ca = Authority::new("ca");
        let added = |params: &mut CertificateParams| {
            params.subject_alt_names.push(SanType::DnsName("bank.example".try_into().unwrap()));
        };
        let ours = pod(CERTLET, "shop", "web-0", &[]);
        let refused = cluster.publish_with(&ours, |request| ca.sign(request, added)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("names that were not asked for: DNS:bank.example"), "{refused}");
        assert!(!cluster.kubelet.target(&ours).join("tls.crt").exists());

        let theirs = pod(CERT_MANAGER, "shop", "web-1", &[]);
        let volume = cluster.publish_with(&theirs, |request| ca.sign(request, added)).await.unwrap();
        assert_signed_by(&ca.pem, &volume, "a peer's prefix");
        let status = cluster.node.status(&[]);
        assert!(status.contains("names that were not asked for: DNS:bank.example"), "{status}");
    }
}

node_test! {
    async fn a_ca_certificate_that_was_not_asked_for_is_refused_under_every_prefix() {
        let cluster = Cluster::start(|_| {}).await;
        let ca = Authority::new("ca");
        for prefix in [CERTLET, CERT_MANAGER] {
            let pod = pod(prefix, "shop", prefix, &[]);
            let answer = |request: &Value| {
                ca.sign(request, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
            };
            let refused = cluster.publish_with(&pod, answer).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{prefix}: {refused}");
            assert!(refused.message().contains("no CA was asked for"), "{prefix}: {refused}");
            assert!(!cluster.kubelet.target(&pod).join("tls.crt").exists(), "{prefix}");
        }
    }
}

node_test! {
    async fn an_answer_that_does_not_lead_to_the_pinned_ca_is_refused_and_pods_trust_no_other() {
        let (pinned, evil) = (Authority::new("ca"), Authority::new("ca"));
        let cluster = Cluster::start(|node| {
            let file = node.root.join("pinned.pem");
            fs::write(&file, &pinned.pem).unwrap();
            node.flag(&format!("--pin-ca=Issuer.cert-manager.io/ca={}", file.display()));
        })
        .await;
        for prefix in [CERTLET, CERT_MANAGER] {
            let refused_pod = pod(prefix, "shop", &format!("refused.{prefix}"), &[]);
            let refused = cluster.publish_with(&refused_pod, |request| evil.sign(request, |_| {})).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{prefix}: {refused}");
            assert!(refused.message().contains("--pin-ca pins"), "{prefix}: {refused}");
            assert!(!cluster.kubelet.target(&refused_pod).join("tls.crt").exists(), "{prefix}");
            // The certificate is right, and the issuer names another CA to trust.
            let answer = |request: &Value| {
                let mut status = pinned.sign(request, |_| {});
                status["ca"] = evil.sign(request, |_| {})["ca"].take();
                status
            };
            let volume = cluster.publish_with(&pod(prefix, "shop", prefix, &[]), answer).await.unwrap();
            assert_signed_by(&pinned.pem, &volume, prefix);
        }
    }
}
