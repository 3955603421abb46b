//! The values of `--federated-bundle`.

use crate::attributes::SpiffeIds;
use crate::model::{Layout, TrustDomain, TrustSource, shown};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Linux's limit on a file name (`NAME_MAX`).
const MAX_FILE_NAME: usize = 255;

/// A trust domain, and a source of its trust bundle.
#[derive(Clone, Debug)]
pub struct FederatedBundle {
    domain: TrustDomain,
    source: TrustSource,
}

impl FromStr for FederatedBundle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str =
            "accepted: TRUST_DOMAIN=SOURCE, with a trust domain such as example.org, without spiffe://";
        let (name, source) =
            text.split_once('=').ok_or_else(|| format!("{} has no =; {ACCEPTED}", shown(text)))?;
        let domain: TrustDomain =
            name.parse().map_err(|problem| format!("{} {problem}; {ACCEPTED}", shown(name)))?;
        // Its trust bundle is also a file.
        let most = MAX_FILE_NAME - Layout::TRUST_BUNDLE_SUFFIX.len();
        if name.len() > most {
            return Err(format!("{} is {} bytes long; accepted are at most {most}", shown(name), name.len()));
        }
        match source.parse()? {
            TrustSource::Signer => Err(format!(
                "signer names no anchors of {name}; accepted: a file, a ConfigMap or ClusterTrustBundles"
            )),
            source => Ok(Self { domain, source }),
        }
    }
}

/// The sources by trust domain, each once. The error is the trust domain of the pods' own SPIFFE IDs.
pub(super) fn by_trust_domain(
    given: &[FederatedBundle],
    ids: Option<&SpiffeIds>,
) -> Result<BTreeMap<TrustDomain, Vec<TrustSource>>, TrustDomain> {
    let mut federated = BTreeMap::<TrustDomain, Vec<TrustSource>>::new();
    for FederatedBundle { domain, source } in given {
        if ids.is_some_and(|ids| ids.trust_domain() == domain.as_str()) {
            return Err(domain.clone());
        }
        let sources = federated.entry(domain.clone()).or_default();
        if !sources.contains(source) {
            sources.push(source.clone());
        }
    }
    Ok(federated)
}
