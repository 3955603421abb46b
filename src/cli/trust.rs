//! The flags for trust bundles.

use super::federated::{FederatedBundle, by_trust_domain};
use super::values;
use crate::attributes::{SpiffeIds, TrustDefaults};
use crate::model::{TrustDomain, TrustSource};
use crate::trust::{CrlOptions, CrlSource, Host, Pin};
use clap::Args;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// Whom pods trust.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Trust")]
pub struct TrustArgs {
    /// Where the trust bundles (ca.crt and others) of volumes without ca-source come from: a file, a ConfigMap or ClusterTrustBundles
    /// with PEM certificates, after spiffe-bundle: a file or a ConfigMap with a SPIFFE bundle document, or the signer. Changes reach
    /// running pods without a new certificate. Can be given several times: the sources are joined. Empty: the CA that the signer
    /// names. csi-driver-spiffe calls it source-ca-bundle, which is accepted too.
    #[arg(
        long,
        alias = "source-ca-bundle",
        env = "CERTLET_CA_SOURCE",
        value_name = "SOURCE",
        value_delimiter = ',',
        value_parser = source
    )]
    pub ca_source: Vec<CaSource>,

    /// A trust source that volumes may name in ca-source. SOURCE is as in --ca-source. Can be given several times: the sources of one
    /// NAME are joined.
    #[arg(long, env = "CERTLET_TRUST_SOURCE", value_name = "NAME=SOURCE", value_delimiter = ',', value_parser = named)]
    pub trust_source: Vec<NamedSource>,

    /// Names of ConfigMaps that pods may name in ca-source as configmap:NAME. Each pod gets that of its own namespace.
    #[arg(
        long,
        env = "CERTLET_TRUST_CONFIGMAP_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = values::object_name
    )]
    pub trust_configmap_names: Vec<String>,

    /// Trust bundle of another trust domain. SOURCE is as in --ca-source, without signer. Pods that ask for it with the attribute
    /// federated-bundles get it, apart from their own, on their socket and as a file. Changes reach running pods. Can be given several
    /// times: the sources of one trust domain are joined.
    #[arg(long, env = "CERTLET_FEDERATED_BUNDLE", value_name = "TRUST_DOMAIN=SOURCE", value_delimiter = ',')]
    pub federated_bundle: Vec<FederatedBundle>,

    /// How long pods still trust an anchor that was removed from a source other than the signer. 0: it is distrusted at once.
    #[arg(
        long,
        env = "CERTLET_TRUST_OVERLAP",
        value_name = "DURATION",
        default_value = "0s",
        value_parser = values::duration_or_zero
    )]
    pub trust_overlap: Duration,

    /// Trust anchors of an issuer: PEM certificates in FILE. Its certificates must lead to one of them, and pods get these anchors
    /// in place of the CA that the signer names. ISSUER is KIND.GROUP/NAME (in each namespace), KIND.GROUP/NAMESPACE/NAME, the
    /// ARN of a private CA, or local. Can be given several times. The file is read for each certificate.
    #[arg(long, env = "CERTLET_PIN_CA", value_name = "ISSUER=FILE", value_delimiter = ',')]
    pub pin_ca: Vec<Pin>,

    /// Where the CRLs of volumes with crl-file come from: an http:// URL, or PEM or DER in a file or in a ConfigMap. A CRL is used
    /// if a CA of the volume has signed it. Can be given several times.
    #[arg(long, env = "CERTLET_CRL", value_name = "SOURCE", value_delimiter = ',')]
    pub crl: Vec<CrlSource>,

    /// Hosts whose URLs are followed in the distribution points of certificates, and in redirects: HOST, with port 80, or HOST:PORT.
    /// A certificate can name any URL, so nothing is asked that is not named here or by --crl.
    #[arg(long, env = "CERTLET_CRL_ALLOWED_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub crl_allowed_hosts: Vec<Host>,

    /// How long a URL of a CRL is not asked again. It is asked sooner if its CRL ends soon, and after a failure.
    #[arg(long, env = "CERTLET_CRL_REFRESH_INTERVAL", value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    pub crl_refresh_interval: Duration,

    /// Limit on the text of a source of CRLs. All CRLs together take at most two fifths of the store.
    #[arg(long, env = "CERTLET_MAX_CRL_SIZE", value_name = "BYTES", default_value = "8Mi", value_parser = values::size)]
    pub max_crl_size: u64,
}

/// A trust source; none if the flag is given empty, as csi-driver-spiffe's chart does.
#[derive(Clone, Debug)]
pub struct CaSource(Option<TrustSource>);

/// A trust source with the name by which volumes name it.
#[derive(Clone, Debug)]
pub struct NamedSource(String, TrustSource);

fn named(text: &str) -> Result<NamedSource, String> {
    let accepted = "accepted: NAME=SOURCE, with a name of a-z, 0-9 and '-' that is not signer";
    let (name, source) = text.split_once('=').ok_or(accepted)?;
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !is_name || name == TrustSource::Signer.to_string() {
        return Err(accepted.to_owned());
    }
    TrustSource::from_str(source).map(|source| NamedSource(name.to_owned(), source))
}

fn source(text: &str) -> Result<CaSource, String> {
    if text.is_empty() {
        Ok(CaSource(None))
    } else {
        TrustSource::from_str(text).map(|source| CaSource(Some(source)))
    }
}

impl TrustArgs {
    /// What the operator says of CRLs.
    pub(super) fn crls(&self) -> CrlOptions {
        let mut sources: Vec<CrlSource> = Vec::new();
        for source in &self.crl {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        CrlOptions {
            sources,
            allowed_hosts: self.crl_allowed_hosts.clone(),
            max_bytes: usize::try_from(self.max_crl_size).unwrap_or(usize::MAX),
            refresh: self.crl_refresh_interval,
        }
    }

    /// Where trust bundles come from. Each source is there once. The error is a federated trust domain that is the one of `ids`.
    pub(super) fn defaults(&self, ids: Option<&SpiffeIds>) -> Result<TrustDefaults, TrustDomain> {
        let mut sources: Vec<TrustSource> = Vec::new();
        for source in self.ca_source.iter().filter_map(|source| source.0.as_ref()) {
            push_new(&mut sources, source);
        }
        let mut named: BTreeMap<String, Vec<TrustSource>> = BTreeMap::new();
        for NamedSource(name, source) in &self.trust_source {
            push_new(named.entry(name.clone()).or_default(), source);
        }
        let config_map_names = self.trust_configmap_names.iter().cloned().collect();
        Ok(TrustDefaults {
            sources,
            named,
            config_map_names,
            are_all_config_maps_allowed: false,
            are_unknown: false,
            federated: by_trust_domain(&self.federated_bundle, ids)?,
            overlap: self.trust_overlap,
        })
    }
}

fn push_new(sources: &mut Vec<TrustSource>, source: &TrustSource) {
    if !sources.contains(source) {
        sources.push(source.clone());
    }
}
