//! The CertificateRequest that is made for one issuance.

use super::api::{Key, NODE_LABEL, VOLUME_ANNOTATION, VOLUME_LABEL};
use crate::signer::{SignError, SigningRequest};
use crate::x509::pem;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64ct::{Base64, Encoding};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// A name for a request that nothing has had before. It is noted before it is used, so that a create whose answer was
/// lost is found again, and a waiter can stand before the object exists. Nothing that is the same at the next renewal
/// may decide it: with a key that is kept, RSA and Ed25519 give the same signing request each time, and the old
/// CertificateRequest would be found with the old certificate.
pub(super) fn new_key(request: &SigningRequest<'_>) -> Result<Key, SignError> {
    /// Leaves room for the digits within the 253 bytes of a name.
    const STEM: usize = 220;
    let mut random = [0; 10];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| SignError::Transient { reason: "the system has no random numbers".to_owned() })?;
    let digits = crate::x509::hex(&random);
    let stem: String = request.pod.name.chars().take(STEM).collect();
    let name = format!("{}-{digits}", stem.trim_end_matches(['-', '.']));
    Ok(Key { namespace: request.pod.namespace.clone(), name })
}

/// `spec.request`: base64 of the PEM of the signing request.
pub(super) fn encoded_request(csr_der: &[u8]) -> String {
    Base64::encode_string(&pem::certificate_request(csr_der))
}

/// The object as it is created. Fields that are the API's defaults are left out.
pub(super) fn body(request: &SigningRequest<'_>, key: &Key, node_label: &str) -> Vec<u8> {
    let attributes = request.attributes;
    let issuer = attributes.issuer.as_ref();
    let mut annotations: Map<String, Value> =
        attributes.annotations.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    annotations.insert(VOLUME_ANNOTATION.to_owned(), request.volume.as_str().into());
    let mut spec = json!({
        "request": encoded_request(request.csr_der),
        "duration": go_duration(attributes.duration),
        "issuerRef": {
            "name": issuer.map(|issuer| &issuer.name),
            "kind": issuer.map(|issuer| &issuer.kind),
            "group": issuer.map(|issuer| &issuer.group),
        },
        "usages": attributes.usages.iter().map(|usage| usage.as_str()).collect::<Vec<_>>(),
    });
    if attributes.is_ca {
        spec["isCA"] = true.into();
    }
    json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "CertificateRequest",
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "labels": { NODE_LABEL: node_label, VOLUME_LABEL: label_value(request.volume.as_str()) },
            "annotations": annotations,
            // Not a controller, and nothing blocks the pod's deletion: both would need more rights.
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "Pod", "name": request.pod.name, "uid": request.pod.uid }
            ],
        },
        "spec": spec,
    })
    .to_string()
    .into_bytes()
}

/// The text itself where it is a label value, else 128 bits of its hash: what the kubelet calls a volume is too long.
pub(super) fn label_value(text: &str) -> String {
    let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = text.len() <= 63
        && is_edge(text.chars().next())
        && is_edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits { text.to_owned() } else { digest(&[text.as_bytes()], 32) }
}

/// So many hexadecimal digits of SHA-256 over the parts.
fn digest(parts: &[&[u8]], digits: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut text = crate::x509::hex(&hash.finalize());
    text.truncate(digits);
    text
}

/// As Go's `time.Duration` prints it, so that what is stored is what was sent.
fn go_duration(duration: Duration) -> String {
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let seconds = duration.as_secs() % 60;
    let fraction = format!("{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    let seconds = if fraction.is_empty() { format!("{seconds}s") } else { format!("{seconds}.{fraction}s") };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (seconds, text) in [(86_400, "24h0m0s"), (90, "1m30s"), (59, "59s"), (7_261, "2h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(go_duration(Duration::from_millis(1_500)), "1.5s");
    }

    #[test]
    fn a_label_value_is_the_text_or_a_hash_without_collisions() {
        assert_eq!(label_value("node-1.example"), "node-1.example");
        let volume = format!("csi-{}", "ab".repeat(32));
        let label = label_value(&volume);
        assert_eq!(label.len(), 32);
        assert_ne!(label, label_value(&format!("{volume}0")));
        for odd in ["", "-a", "a/b", "a."] {
            assert_eq!(label_value(odd).len(), 32, "{odd}");
        }
    }
}
