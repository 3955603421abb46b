//! Builds the CertificateRequest for one issuance.

use super::api::{Key, NODE_LABEL, VOLUME_ANNOTATION, VOLUME_LABEL};
use crate::kube::IDENTITY_ANNOTATION;
use crate::model::{Failure, SignerSpec, fingerprint, go_duration, hex};
use crate::signer::SigningRequest;
use crate::x509::pem;
use aws_lc_rs::rand;
use base64ct::{Base64, Encoding};
use serde_json::{Map, Value, json};

/// A new, unique name for a request. It is saved in the checkpoint before the create: a create whose answer was lost is
/// found again, and a waiter can be registered first.
///
/// The name is random. A name derived from the signing request would find the old CertificateRequest with the old
/// certificate: with a kept key, RSA and Ed25519 give the same signing request at each renewal.
pub(super) fn new_key(request: &SigningRequest<'_>) -> Result<Key, Failure> {
    /// Characters of the pod's name. With the digits the name stays below the limit of 253.
    const MAX_STEM: usize = 220;
    let mut random = [0; 10];
    rand::fill(&mut random).map_err(|_| Failure::transient("the system has no random numbers"))?;
    let digits = hex(&random);
    let stem: String = request.identity.name.chars().take(MAX_STEM).collect();
    let name = format!("{}-{digits}", stem.trim_end_matches(['-', '.']));
    Ok(Key { namespace: request.identity.namespace.clone(), name })
}

/// `spec.request`: base64 of the PEM of the signing request.
pub(super) fn encoded_request(csr_der: &[u8]) -> String {
    Base64::encode_string(&pem::certificate_request(csr_der))
}

/// The object to create, with the label of this node if there is one. Fields that have the API's defaults are left out.
pub(super) fn body(request: &SigningRequest<'_>, key: &Key, node: Option<&str>) -> Result<Vec<u8>, Failure> {
    let SignerSpec::CertManager { issuer: Some(issuer), usage_words, annotations } = &request.spec.signer
    else {
        return Err(Failure::permanent("signer: cert-manager was called with a spec without an issuer"));
    };
    let spec = request.spec;
    let mut annotations: Map<String, Value> =
        annotations.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    if spec.is_spiffe
        && let Some(id) = spec.sans.uris.first()
    {
        annotations.insert(IDENTITY_ANNOTATION.to_owned(), id.as_str().into());
    }
    annotations.insert(VOLUME_ANNOTATION.to_owned(), request.id.as_str().into());
    let mut body = json!({
        "request": encoded_request(request.csr_der),
        // The form in which cert-manager's clients would write it again.
        "duration": go_duration(spec.duration),
        "issuerRef": { "name": issuer.name, "kind": issuer.kind, "group": issuer.group },
        "usages": usage_words,
    });
    if spec.is_ca {
        body["isCA"] = true.into();
    }
    let mut labels = Map::from_iter([(VOLUME_LABEL.to_owned(), label_value(request.id.as_str()).into())]);
    labels.extend(node.map(|node| (NODE_LABEL.to_owned(), label_value(node).into())));
    let object = json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "CertificateRequest",
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "labels": labels,
            "annotations": annotations,
            // Neither `controller` nor `blockOwnerDeletion`: both need more permissions.
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "Pod", "name": request.identity.name, "uid": request.identity.uid }
            ],
        },
        "spec": body,
    });
    Ok(object.to_string().into_bytes())
}

/// The text if it is a valid label value, else 128 bits of its hash: the kubelet's volume ids are too long.
pub(super) fn label_value(text: &str) -> String {
    let is_trimmed = text.trim_matches(|c: char| !c.is_ascii_alphanumeric()) == text;
    let is_label = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fits = (1..=63).contains(&text.len()) && is_trimmed && text.chars().all(is_label);
    if fits { text.to_owned() } else { fingerprint(&[text.as_bytes()]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_value_is_the_text_or_a_hash_without_collisions() {
        assert_eq!(label_value("node-1.example"), "node-1.example");
        let id = format!("csi-{}", "ab".repeat(32));
        let label = label_value(&id);
        assert_eq!(label.len(), 32);
        assert_ne!(label, label_value(&format!("{id}0")));
        for odd in ["", "-a", "a/b", "a."] {
            assert_eq!(label_value(odd).len(), 32, "{odd}");
        }
    }
}
