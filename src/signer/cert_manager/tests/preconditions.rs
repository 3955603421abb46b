//! Preconditions of a request: tokens and gates.

use super::*;
use crate::attributes::VolumeContext;
use jiff::SignedDuration;
use serde_json::json;
use std::collections::HashMap;

#[tokio::test]
async fn requests_are_made_with_the_pods_token_until_it_expires() {
    let options = CertManagerOptions { token_audience: Some(String::new()), ..CertManagerOptions::default() };
    let mut driver = Driver::with(options).await;
    let missing = transient(driver.sign().await);
    assert!(missing.contains("tokenRequests"), "{missing}");

    driver.tokens = tokens("", "2026-05-01T12:10:00Z");
    driver.sign_and_issue().await;
    assert_eq!(driver.server.tokens(), [Some("pods-own".to_owned())]);

    *driver.clock.0.lock() += SignedDuration::from_mins(10);
    *driver.checkpoint.0.lock() = None;
    let expired = transient(driver.sign_csr(b"another").await);
    assert!(expired.contains("expired at 2026-05-01T12:10:00Z"), "{expired}");
    assert_eq!(driver.server.calls("create"), 1);
    driver.tokens = tokens("", "2026-05-01T12:20:00Z");
    driver.sign_new_request().await;
}

#[tokio::test]
async fn the_token_has_the_audience_that_the_operator_named() {
    let audience = "https://kubernetes.example";
    let options =
        CertManagerOptions { token_audience: Some(audience.into()), ..CertManagerOptions::default() };
    let mut driver = Driver::with(options).await;
    driver.tokens = tokens("", "2026-05-01T12:10:00Z");
    let missing = transient(driver.sign().await);
    assert!(missing.contains(audience), "{missing}");
    driver.tokens = tokens(audience, "2026-05-01T12:10:00Z");
    driver.sign_and_issue().await;
}

pub(super) fn tokens(audience: &str, expires: &str) -> PodTokens {
    let pod = [("pod.name", "p"), ("pod.namespace", "n"), ("pod.uid", "u"), ("serviceAccount.name", "s")];
    let mut context: HashMap<String, String> =
        pod.iter().map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), (*value).to_owned())).collect();
    context.insert("csi.storage.k8s.io/ephemeral".into(), "true".into());
    let tokens = json!({ audience: { "token": "pods-own", "expirationTimestamp": expires } }).to_string();
    context.insert("csi.storage.k8s.io/serviceAccount.tokens".into(), tokens);
    VolumeContext::parse(context, HashMap::new(), crate::model::Dialect::Certlet).unwrap().tokens
}

#[tokio::test]
async fn no_request_is_made_before_the_gates_open() {
    let gates = vec!["pod-ip:any".parse().unwrap()];
    let driver = Driver::with(CertManagerOptions { gates, ..CertManagerOptions::default() }).await;
    driver.server.put_pod("web-0", json!({ "metadata": {}, "status": {} }));
    let reason = driver.sign().await.unwrap_err().message;
    assert!(reason.contains("the pod has no IP address yet"), "{reason}");
    assert_eq!(driver.server.calls("create"), 0);
    driver.server.put_pod("web-0", json!({ "metadata": {}, "status": { "podIPs": [{ "ip": "10.0.0.1" }] } }));
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_pods_mounts_is_told_also_when_a_request_is_resumed() {
    let gates = vec!["pod-ip:any".parse().unwrap()];
    let mut driver = Driver::with(CertManagerOptions { gates, ..CertManagerOptions::default() }).await;
    let id = crate::model::sha256(&[driver.pod.uid.as_bytes(), b"tls"]);
    driver.id = RequestId::new(format!("csi-{}", crate::model::hex(&id)));
    let mounts = json!([{ "name": "tls", "subPath": "tls.crt" }]);
    let pod = json!({
        "spec": { "containers": [{ "name": "web", "volumeMounts": mounts }] },
        "status": { "podIPs": [{ "ip": "10.0.0.1" }] }
    });
    driver.server.put_pod("web-0", pod);
    driver.sign_until_cancelled().await;
    let signed = driver.sign_while(async |server, name| server.issue(&name)).await.unwrap();
    let warning = signed.warning.unwrap_or_default();
    assert!(warning.contains("web mounts a part of the volume by subPath"), "{warning}");

    // Without the pod, or the right to read it, the request is resumed as well.
    *driver.checkpoint.0.lock() = None;
    let known = driver.server.names();
    driver.sign_until_cancelled().await;
    driver.pod.name = "web-1".into();
    let signed = tokio::join!(driver.sign(), driver.issue_new(&known)).0.unwrap();
    assert_eq!((signed.chain.as_slice(), signed.warning), (&b"leaf"[..], None));
}
