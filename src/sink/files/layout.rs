//! The files with key, chain and trust anchors, in every [`Layout`]: written, and read back.
//!
//! All of them hold PEM, and all are read by one rule: the private key is the first one in its file, the chain is every certificate
//! in its file, the anchors are every certificate in theirs.

use super::super::sds::TYPE_URL;
use super::super::trust_domains::trust_domain_name;
use super::{Contents, FileError, Pems, crls_pem, federated};
use crate::credential::Credential;
use crate::model::{CertificateFacts, CertificateSpec, Failure, Layout, SecretNames, hex, sha256};
use crate::store::Generation;
use crate::trust::TrustBundle;
use crate::x509::{self, Crl, PemError, PrivateKey, pem};
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The files of a layout, by name.
///
/// Without trust anchors the layouts `default` and `istio` have an empty file, since programs open the path whatever the issuer is.
/// `spiffe` and `envoy` have no file: a bundle has at least one certificate there, and an Envoy without anchors would accept any peer.
pub(super) fn encode(
    layout: &Layout,
    credential: &Credential,
    pems: Pems,
    crls: &[Arc<Crl>],
) -> Result<Vec<(String, Contents)>, FileError> {
    let anchors_file = ca_file(layout, &credential.facts)?.map(Cow::into_owned);
    let has_anchors = !pems.anchors.is_empty();
    let mut files = match layout {
        Layout::Default(_) | Layout::Istio => vec![
            (layout.certificate_file(), Contents::public(pems.chain)),
            (layout.private_key_file(), Contents::secret(pems.key)),
        ],
        Layout::Spiffe => {
            let key_and_chain = pems.combined();
            let hints = Contents::public(hints(&key_and_chain));
            vec![(Layout::CREDENTIAL_BUNDLE, Contents::secret(key_and_chain)), (Layout::HINTS, hints)]
        }
        Layout::Envoy(names) => {
            vec![(Layout::ENVOY_CERTIFICATE, Contents::secret(certificate_secret(names, &pems)))]
        }
    };
    let anchors = match layout {
        Layout::Default(_) | Layout::Istio => Some(pems.anchors),
        Layout::Spiffe => has_anchors.then_some(pems.anchors),
        Layout::Envoy(names) => has_anchors.then(|| trust_bundle_secret(names, &pems.anchors, crls)),
    };
    let anchors_file = anchors_file.as_deref().zip(anchors);
    files.extend(anchors_file.map(|(name, anchors)| (name, Contents::public(anchors))));
    Ok(files.into_iter().map(|(name, contents)| (name.to_owned(), contents)).collect())
}

/// Reads back what [`encode`] has written: the credential and its trust bundle, which were verified before. The CRLs are in a file of
/// their own. `None` before the first certificate.
pub(crate) fn read(
    generation: &Generation,
    spec: &CertificateSpec,
    crl_file: Option<&str>,
) -> Result<Option<(Credential, TrustBundle)>, Failure> {
    let layout = &spec.files.layout;
    let (Some(key), Some(chain)) =
        (generation.file(layout.private_key_file())?, generation.file(layout.certificate_file())?)
    else {
        return Ok(None);
    };
    let credential = credential(&key, &chain)?;
    let anchors = match ca_file(layout, &credential.facts)? {
        Some(file) => generation.file(&file)?,
        None => None,
    };
    let anchors = certificates(&anchors.unwrap_or_default()).map_err(FileError::from)?;
    // Only then are the names of these files no names of the author's choice.
    let federated =
        if spec.federated.is_some() { federated::read(generation, &credential)? } else { BTreeMap::new() };
    let crls = match crl_file {
        Some(file) => generation.file(file)?,
        None => None,
    };
    // Verified before it was written. Without it, the sources are read again.
    let crls = crls.and_then(|text| Crl::read_all(&text).ok()).unwrap_or_default();
    let crls = crls.into_iter().map(Arc::new).collect();
    Ok(Some((credential, TrustBundle { anchors, federated, crls })))
}

fn credential(key: &[u8], chain: &[u8]) -> Result<Credential, FileError> {
    let key = PrivateKey::from_pem(key).map_err(FileError::StoredKey)?;
    let mut chain = certificates(chain)?.into_iter();
    let leaf = chain.next().ok_or(FileError::StoredLeaf)?;
    let facts = x509::facts_of_pem(&pem::certificates([leaf.as_slice()])).ok_or(FileError::StoredLeaf)?;
    Ok(Credential { key, leaf, intermediates: chain.collect(), facts: Arc::new(facts) })
}

/// Every certificate in a text, DER.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
    let blocks = match pem::blocks(text) {
        Err(PemError::NoBlock) => Vec::new(),
        blocks => blocks?,
    };
    let certificates = blocks.into_iter().filter(|block| block.label == "CERTIFICATE");
    Ok(certificates.map(|block| block.der.to_vec()).collect())
}

/// The file with the trust anchors, if there is one. In the layout `spiffe` it is named after the certificate's trust domain, also
/// after the operator has changed that of new certificates.
fn ca_file<'a>(layout: &'a Layout, facts: &CertificateFacts) -> Result<Option<Cow<'a, str>>, FileError> {
    if *layout != Layout::Spiffe {
        return Ok(layout.ca_file().map(Cow::from));
    }
    let id = facts.spiffe_id().ok_or(FileError::NoTrustDomain)?;
    Ok(Some(format!("{}{}", trust_domain_name(id), Layout::TRUST_BUNDLE_SUFFIX).into()))
}

/// `hints.json`: one credential bundle, without a hint. The fingerprint is of the bundle's bytes, so that a reader sees whether the
/// bundle that it has read is the one listed.
fn hints(credential_bundle: &[u8]) -> Vec<u8> {
    let fingerprint = format!("sha256:{}", hex(&sha256(&[credential_bundle])));
    format!("{:#}\n", json!({ "hints": [{ "hint": "", "id": 0, "fingerprint": fingerprint }] })).into_bytes()
}

/// The SDS secret with certificate and key, as a file for `path_config_source`.
fn certificate_secret(names: &SecretNames, pems: &Pems) -> Zeroizing<Vec<u8>> {
    let indent = "        ";
    let (head, chain, key) = (
        secret(&names.certificate) + "  tls_certificate:\n    certificate_chain:\n      inline_string: |\n",
        indented(indent, &pems.chain),
        indented(indent, &pems.key),
    );
    let before_key = "    private_key:\n      inline_string: |\n";
    // Allocated in full: a buffer that grows leaves copies of the key behind.
    let mut file =
        Zeroizing::new(Vec::with_capacity(head.len() + chain.len() + before_key.len() + key.len()));
    for part in [head.as_bytes(), &chain, before_key.as_bytes(), &key] {
        file.extend_from_slice(part);
    }
    file
}

/// The SDS secret with the trust bundle, as a file for `path_config_source`.
fn trust_bundle_secret(names: &SecretNames, anchors: &[u8], crls: &[Arc<Crl>]) -> Vec<u8> {
    let head =
        secret(&names.trust_bundle) + "  validation_context:\n    trusted_ca:\n      inline_string: |\n";
    let mut file = [head.as_bytes(), &indented("        ", anchors)].concat();
    if !crls.is_empty() {
        file.extend_from_slice(b"    crl:\n      inline_string: |\n");
        file.extend_from_slice(&indented("        ", &crls_pem(crls)));
    }
    file
}

/// The beginning of a `DiscoveryResponse` with one secret. A JSON string is a YAML scalar too (YAML 1.2 section 1.3).
pub(super) fn secret(name: &str) -> String {
    format!("resources:\n- \"@type\": {TYPE_URL}\n  name: {}\n", json!(name))
}

/// PEM as a YAML block scalar. Its lines have no character that YAML treats specially there.
pub(super) fn indented(indent: &str, pem: &[u8]) -> Zeroizing<Vec<u8>> {
    let lines = pem.split_inclusive(|byte| *byte == b'\n');
    let mut block = Zeroizing::new(Vec::with_capacity(pem.len() + indent.len() * lines.clone().count()));
    for line in lines {
        block.extend_from_slice(indent.as_bytes());
        block.extend_from_slice(line);
    }
    block
}
