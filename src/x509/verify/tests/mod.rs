//! Tests of `verify`, with answers from a hierarchy of CAs.

use super::*;
use crate::model::{KeyAlgorithm, Subject};
use crate::x509::certificate::{self, Template};
use crate::x509::csr;
use crate::x509::extensions::{basic_constraints, subject_alt_names, usages};
use crate::x509::testing::{ALL_ALGORITHMS, attributes, openssl};
use crate::x509::{PrivateKey, pem, testing};
use jiff::SignedDuration;

mod accepted;
mod added;
mod lead;
mod refused;

fn now() -> Timestamp {
    "2026-05-01T12:00:00Z".parse().unwrap()
}

/// Verifies an answer of a signer without templates.
fn verify(
    chain: &[u8],
    ca: Option<&[u8]>,
    spki: &[u8],
    spec: &CertificateSpec,
    now: Timestamp,
) -> Result<VerifiedChain, VerifyError> {
    super::verify(&SignerAnswer { chain, ca, template_usages: &[] }, spki, spec, now)
}

/// What a signer answers.
struct Answer {
    chain: Vec<u8>,
    ca: Option<Vec<u8>>,
}

/// A hierarchy of CAs (two roots, an upper and a lower intermediate), a key for the leaf, and the spec.
struct Hierarchy {
    root: Authority,
    upper: Authority,
    lower: Authority,
    other_root: Authority,
    key: PrivateKey,
    attributes: CertificateSpec,
}

struct Authority {
    name: Vec<u8>,
    key: PrivateKey,
    der: Vec<u8>,
}

fn authority(name: &str, algorithm: KeyAlgorithm, issuer: Option<&Authority>) -> Authority {
    let key = PrivateKey::generate(algorithm).unwrap();
    let subject = testing::name(name);
    let template = Template {
        serial: &[1],
        issuer: issuer.map_or(&subject, |issuer| &issuer.name),
        not_before: now() - SignedDuration::from_hours(1),
        not_after: now() + SignedDuration::from_hours(1000),
        subject: &subject,
        spki: key.spki_der(),
        extensions: &[basic_constraints(true).unwrap()],
    };
    let der = template.sign(issuer.map_or(&key, |issuer| &issuer.key)).unwrap();
    Authority { name: subject, key, der }
}

/// A certificate of version 1, which has no extensions.
fn version_1(subject: &Authority, issuer: &Authority) -> Vec<u8> {
    let hour = SignedDuration::from_hours(1);
    let template = Template {
        serial: &[1],
        issuer: &issuer.name,
        not_before: now() - hour,
        not_after: now() + hour,
        subject: &subject.name,
        spki: subject.key.spki_der(),
        extensions: &[],
    };
    template.sign(&issuer.key).unwrap()
}

/// Changes the algorithm in a certificate from ecdsa-with-SHA256 to ecdsa-with-SHA224, which is not accepted.
fn with_sha224(der: &[u8]) -> Vec<u8> {
    const ECDSA_WITH_SHA2: [u8; 9] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let mut changed = der.to_vec();
    for at in 0..der.len() - ECDSA_WITH_SHA2.len() {
        if der[at..].starts_with(&ECDSA_WITH_SHA2) {
            changed[at + ECDSA_WITH_SHA2.len()] = 1;
        }
    }
    changed
}

/// A leaf for the hierarchy's key in PEM, and the PEM of the root that signed it, made by `openssl req` with these arguments.
fn openssl_chain(hierarchy: &Hierarchy, root: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, ca, request) = (path("key"), path("ca"), path("csr"));
    std::fs::write(&request, csr(&hierarchy.attributes, &hierarchy.key).unwrap()).unwrap();
    let usual = ["req", "-x509", "-nodes", "-subj", "/CN=openssl", "-keyout", &key, "-out", &ca];
    openssl(&[&usual, root].concat(), b"");
    let sign = ["x509", "-req", "-sha256", "-inform", "DER", "-in", &request, "-CA", &ca, "-CAkey", &key];
    let leaf = openssl(&[&sign[..], &["-copy_extensions", "copy"]].concat(), b"");
    (leaf, std::fs::read(&ca).unwrap())
}

fn hierarchy() -> Hierarchy {
    let root = authority("CN=root", KeyAlgorithm::EcdsaP384, None);
    let upper = authority("CN=upper", KeyAlgorithm::EcdsaP256, Some(&root));
    let lower = authority("CN=lower", KeyAlgorithm::EcdsaP521, Some(&upper));
    let other_root = authority("CN=other root", KeyAlgorithm::Ed25519, None);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    Hierarchy { root, upper, lower, other_root, key, attributes: attributes() }
}

/// The contents of a leaf. A test changes them to get another leaf than the requested one.
struct Leaf {
    attributes: CertificateSpec,
    spki: Vec<u8>,
    from: Timestamp,
    to: Timestamp,
}

impl Hierarchy {
    fn leaf(&self, issuer: &Authority, change: impl FnOnce(&mut Leaf)) -> Vec<u8> {
        let mut leaf = Leaf {
            attributes: self.attributes.clone(),
            spki: self.key.spki_der().to_vec(),
            from: now(),
            to: now() + SignedDuration::from_hours(24),
        };
        change(&mut leaf);
        let subject = name::encode(&leaf.attributes.subject, leaf.attributes.dialect).unwrap();
        let mut extensions = usages(&leaf.attributes.usages, leaf.attributes.is_ca).unwrap();
        if !leaf.attributes.sans.is_empty() {
            extensions.push(subject_alt_names(&leaf.attributes.sans, &subject).unwrap());
        }
        extensions.push(basic_constraints(leaf.attributes.is_ca).unwrap());
        extensions.push(certificate::subject_key_id(&[7; 20]).unwrap());
        let template = Template {
            serial: &[0, 0xab, 0x01],
            issuer: &issuer.name,
            not_before: leaf.from,
            not_after: leaf.to,
            subject: &testing::encoded(&leaf.attributes.subject),
            spki: &leaf.spki,
            extensions: &extensions,
        };
        template.sign(&issuer.key).unwrap()
    }

    fn check(&self, chain: &[&[u8]], ca: Option<&[&[u8]]>) -> Result<VerifiedChain, VerifyError> {
        let chain = pem::certificates(chain.iter().copied());
        let ca = ca.map(|ca| pem::certificates(ca.iter().copied()));
        verify(&chain, ca.as_deref(), self.key.spki_der(), &self.attributes, now())
    }

    fn check_leaf(&self, change: impl FnOnce(&mut Leaf)) -> Result<VerifiedChain, VerifyError> {
        self.check(&[&self.leaf(&self.root, change)], Some(&[&self.root.der]))
    }
}
