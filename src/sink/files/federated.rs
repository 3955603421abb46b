//! The files of federated trust bundles: one for each trust domain in every layout, named after it. They are never a part of the file
//! with the volume's own trust anchors, which would let each trust domain speak for every other.

use super::super::sds::{SPIFFE_VALIDATOR, SPIFFE_VALIDATOR_TYPE};
use super::super::trust_domains::trust_domain_name;
use super::layout::{certificates, indented, secret};
use super::{Contents, FileError};
use crate::credential::Credential;
use crate::model::{Failure, Layout, SecretNames, TrustDomain};
use crate::store::Generation;
use crate::trust::TrustBundle;
use crate::x509::pem;
use serde_json::json;
use std::collections::BTreeMap;

/// The trust domains besides the credential's own, with their anchors in PEM.
fn pems<'a>(
    credential: &'a Credential,
    trust: &'a TrustBundle,
) -> impl Iterator<Item = (&'a TrustDomain, Vec<u8>)> {
    let own = credential.facts.spiffe_id().map(trust_domain_name);
    let others = trust
        .federated
        .iter()
        .filter(move |(domain, anchors)| Some(domain.as_str()) != own && !anchors.is_empty());
    others.map(|(domain, anchors)| (domain, pem_of(anchors)))
}

fn pem_of(anchors: &[Vec<u8>]) -> Vec<u8> {
    pem::certificates(anchors.iter().map(Vec::as_slice))
}

/// The files, by name. The layout `envoy` has one more: the secret with the trust bundles of all trust domains, the volume's own
/// included.
pub(super) fn encode(
    layout: &Layout,
    credential: &Credential,
    trust: &TrustBundle,
) -> Vec<(String, Contents)> {
    let file = |(domain, pem): (&TrustDomain, Vec<u8>)| {
        (format!("{domain}{}", Layout::TRUST_BUNDLE_SUFFIX), Contents::public(pem))
    };
    let mut files: Vec<_> = pems(credential, trust).map(file).collect();
    if let Layout::Envoy(names) = layout
        && let Some(id) = credential.facts.spiffe_id()
        && !trust.anchors.is_empty()
    {
        let own = (trust_domain_name(id), pem_of(&trust.anchors));
        let others: Vec<_> = pems(credential, trust).collect();
        let others = others.iter().map(|(domain, pem)| (domain.as_str(), pem.as_slice()));
        let all = [(own.0, own.1.as_slice())].into_iter().chain(others);
        files.push((Layout::ENVOY_ALL_TRUST_BUNDLES.to_owned(), Contents::public(all_secret(names, all))));
    }
    files
}

/// The SDS secret with the trust bundle of each trust domain, as a file for `path_config_source`.
fn all_secret<'a>(names: &SecretNames, all: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut file = secret(&names.all_bundles).into_bytes();
    file.extend_from_slice(b"  validation_context:\n    custom_validator_config:\n");
    let validator = format!(
        "      name: {SPIFFE_VALIDATOR}\n      typed_config:\n        \"@type\": {SPIFFE_VALIDATOR_TYPE}\n        trust_domains:\n"
    );
    file.extend_from_slice(validator.as_bytes());
    for (domain, pem) in all {
        let head = format!(
            "        - name: {}\n          trust_bundle:\n            inline_string: |\n",
            json!(domain)
        );
        file.extend_from_slice(head.as_bytes());
        file.extend_from_slice(&indented("              ", pem));
    }
    file
}

/// Reads back what [`encode`] has written for trust domains other than the credential's own.
pub(super) fn read(
    generation: &Generation,
    credential: &Credential,
) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, Failure> {
    let own = credential.facts.spiffe_id().map(trust_domain_name);
    let mut federated = BTreeMap::new();
    for name in generation.names()? {
        let domain = name.strip_suffix(Layout::TRUST_BUNDLE_SUFFIX).filter(|domain| Some(*domain) != own);
        let Some(Ok(domain)) = domain.map(str::parse::<TrustDomain>) else { continue };
        let pem = generation.file(&name)?.unwrap_or_default();
        federated.insert(domain, certificates(&pem).map_err(FileError::from)?);
    }
    Ok(federated)
}
