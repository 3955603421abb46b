//! The SPIFFE Workload API.

use crate::client::{bundles_request, next, secured, svids, workload_api};
use crate::in_process::{Behaviour, InProcess, started};
use crate::support::{eventually, pod_of, serial};
use crate::{SPIFFE_ID, node_test, spiffe_pod};
use certlet::model::{Failure, VolumeId};
use certlet::signer::LocalCa;
use certlet::trust::TrustBundle;
use certlet_kubelet::proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509svidRequest, X509svidResponse,
};
use jiff::SignedDuration;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tonic::Code;

/// Checks that a message is of one credential, and that it is the one in the volume's files.
fn assert_whole(message: &X509svidResponse, volume: &Path) {
    let [svid] = message.svids.as_slice() else { panic!("one SVID") };
    assert_eq!(svid.spiffe_id, SPIFFE_ID);
    let (rest, leaf) = x509_parser::parse_x509_certificate(&svid.x509_svid).unwrap();
    assert!(rest.is_empty(), "the chain of the local CA is the leaf");
    let key = rcgen::KeyPair::try_from(svid.x509_svid_key.as_slice()).unwrap();
    assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
    let file = |name: &str| {
        let pem = fs::read(volume.join(name)).unwrap();
        x509_parser::pem::parse_x509_pem(&pem).unwrap().1.contents
    };
    assert_eq!(svid.x509_svid, file("tls.crt"));
    assert_eq!(svid.bundle, file("ca.crt"));
}

fn another_anchor(driver: &InProcess) -> Vec<u8> {
    let ca = LocalCa::ephemeral(Arc::clone(&driver.clock) as _).unwrap();
    x509_parser::pem::parse_x509_pem(ca.anchor_pem()).unwrap().1.contents
}

/// Advances the clock until the volume has another certificate.
async fn renewed(driver: &InProcess, volume: &Path) {
    let before = serial(volume);
    eventually("the renewal", async || {
        driver.clock.advance(SignedDuration::from_hours(1));
        serial(volume) != before
    })
    .await;
}

node_test! {
    async fn a_client_gets_the_svid_at_once_and_every_renewal_and_trust_change_whole() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = spiffe_pod("web-0", &[]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let mut stream = svids(&volume).await.unwrap();
        assert_whole(&next(&mut stream).await.unwrap(), &volume);
        for _ in 0..3 {
            renewed(&driver, &volume).await;
            assert_whole(&next(&mut stream).await.unwrap(), &volume);
        }
        let anchor = another_anchor(&driver);
        let trust = TrustBundle { anchors: vec![anchor.clone()], ..TrustBundle::default() };
        driver.volumes.set_trust(&VolumeId::new(pod.volume_id()), trust).unwrap();
        let changed = next(&mut stream).await.unwrap();
        assert_whole(&changed, &volume);
        assert_eq!(changed.svids[0].bundle, anchor);
        kubelet.unpublish(&pod).await.unwrap();
        let end = next(&mut stream).await.err().unwrap();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "the volume is unmounted"));
        driver.stop().await;
    }
}

node_test! {
    async fn bundles_are_sent_when_trust_changes_and_not_at_a_renewal() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = spiffe_pod("web-0", &[]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let mut client = workload_api(&volume).await;
        let mut stream = client.fetch_x509_bundles(bundles_request()).await.unwrap().into_inner();
        let first = next(&mut stream).await.unwrap();
        assert_eq!(first.bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
        renewed(&driver, &volume).await;
        let anchor = another_anchor(&driver);
        let trust = TrustBundle { anchors: vec![anchor.clone()], ..TrustBundle::default() };
        driver.volumes.set_trust(&VolumeId::new(pod.volume_id()), trust).unwrap();
        let second = next(&mut stream).await.unwrap();
        assert_eq!(second.bundles["spiffe://example.org"], anchor, "the renewal was sent first");
        driver.stop().await;
    }
}

node_test! {
    async fn a_call_without_the_security_header_is_refused() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut client = workload_api(&volume).await;
        let error = client.fetch_x509svid(X509svidRequest {}).await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("workload.spiffe.io: true"), "{error}");
        driver.stop().await;
    }
}

node_test! {
    async fn jwt_and_wit_are_unimplemented_with_a_sentence() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut client = workload_api(&volume).await;
        let errors = [
            client.fetch_jwtsvid(secured(JwtsvidRequest {})).await.err(),
            client.fetch_jwt_bundles(secured(JwtBundlesRequest {})).await.err(),
            client.validate_jwtsvid(secured(ValidateJwtsvidRequest {})).await.err(),
            client.fetch_witsvid(secured(WitsvidRequest {})).await.err(),
            client.fetch_wit_bundles(secured(WitBundlesRequest {})).await.err(),
        ];
        for error in errors.map(Option::unwrap) {
            assert_eq!(error.code(), Code::Unimplemented);
            assert!(error.message().contains("X.509-SVIDs only"), "{error}");
        }
        driver.stop().await;
    }
}

node_test! {
    async fn a_certificate_without_a_spiffe_id_is_no_identity() {
        let (_node, driver, kubelet) = started(false).await;
        let usual = [("signer", "local"), ("dns-names", "web.example.org"), ("socket-file", "spiffe.sock")];
        let volume = kubelet.publish(&pod_of(&usual, "web-0", &[])).await.unwrap();
        let error = svids(&volume).await.err().unwrap();
        assert_eq!(error.code(), Code::PermissionDenied);
        assert!(error.message().contains("uri-sans"), "{error}");
        driver.stop().await;
    }
}

node_test! {
    async fn a_renewal_that_fails_leaves_the_stream_open() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = spiffe_pod("web-0", &[]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let mut stream = svids(&volume).await.unwrap();
        next(&mut stream).await.unwrap();
        driver.signer.set(Behaviour::Fails(Failure::transient("busy")));
        let calls = driver.signer.calls();
        eventually("a renewal that fails", async || {
            driver.clock.advance(SignedDuration::from_hours(1));
            driver.signer.calls() > calls
        }).await;
        driver.signer.set(Behaviour::Signs);
        renewed(&driver, &volume).await;
        assert_whole(&next(&mut stream).await.unwrap(), &volume);
        driver.stop().await;
    }
}
