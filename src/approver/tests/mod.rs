//! Tests of decisions, and tests against an API server with scripted objects.

mod deciding;
mod election;
mod evaluation;
mod server;

use crate::model::{KeyAlgorithm, Usage};
use crate::x509::{PrivateKey, extensions, pem};
use base64ct::{Base64, Encoding};
use der::Encode;
use der::asn1::{BitString, Ia5String, SetOfVec};
use serde_json::{Value, json};
use x509_cert::attr::Attribute;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const SPIFFE_ID: &str = "spiffe://cluster.local/ns/shop/sa/web";
const DRIVER: &str = "system:serviceaccount:certlet:driver";

/// What a signing request is made of.
struct Parts {
    subject: Name,
    names: Vec<GeneralName>,
    extensions: Vec<Extension>,
    attributes: Vec<Attribute>,
}

fn uri(text: &str) -> GeneralName {
    GeneralName::UniformResourceIdentifier(Ia5String::new(text).unwrap())
}

fn dns(text: &str) -> GeneralName {
    GeneralName::DnsName(Ia5String::new(text).unwrap())
}

fn usage_extensions(usages: &[Usage]) -> Vec<Extension> {
    extensions::usages(usages, false).unwrap()
}

/// A signing request as a SPIFFE driver makes it, but for `change`; base64 of PEM.
fn signing_request(change: impl FnOnce(&mut Parts)) -> String {
    let mut parts = Parts {
        subject: Name::default(),
        names: vec![uri(SPIFFE_ID)],
        extensions: Vec::new(),
        attributes: Vec::new(),
    };
    change(&mut parts);
    let mut requested = parts.extensions;
    if !parts.names.is_empty() {
        requested.push(SubjectAltName(parts.names).to_extension(&parts.subject, &[]).unwrap());
    }
    let mut attributes = SetOfVec::new();
    if !requested.is_empty() {
        attributes.insert(ExtensionReq(requested).try_into().unwrap()).unwrap();
    }
    for attribute in parts.attributes {
        attributes.insert(attribute).unwrap();
    }
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let public_key: SubjectPublicKeyInfoOwned = der::Decode::from_der(key.spki_der()).unwrap();
    let info = CertReqInfo { version: Version::V1, subject: parts.subject, public_key, attributes };
    let signature = BitString::from_bytes(&key.sign(&info.to_der().unwrap()).unwrap()).unwrap();
    let der = CertReq { info, algorithm: key.signature_algorithm(), signature }.to_der().unwrap();
    Base64::encode_string(&pem::certificate_request(&der))
}

/// The spec of the CertificateRequest of the pod's own account.
fn spec(signing_request: &str) -> Value {
    json!({
        "request": signing_request,
        "issuerRef": { "name": "my-spiffe-ca", "kind": "ClusterIssuer", "group": "cert-manager.io" },
        "duration": "1h0m0s",
        "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
        "username": "system:serviceaccount:shop:web",
        "extra": { "authentication.kubernetes.io/node-name": ["node-1"] },
    })
}
