//! The flags for trust bundles.

use crate::model::TrustSource;
use crate::trust::Pin;
use clap::Args;
use std::str::FromStr;

/// Whom pods trust.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Trust")]
pub struct TrustArgs {
    /// Where pods' trust bundles (ca.crt and others) come from, in place of the CA that the signer names: PEM certificates in a file
    /// or in a ConfigMap. Changes reach running pods without a new certificate. Can be given several times: the sources are joined.
    /// Empty: the CA that the signer names. csi-driver-spiffe calls it source-ca-bundle, which is accepted too.
    #[arg(
        long,
        alias = "source-ca-bundle",
        env = "CERTLET_CA_SOURCE",
        value_name = "SOURCE",
        value_delimiter = ',',
        value_parser = source
    )]
    pub ca_source: Vec<CaSource>,

    /// Trust anchors of an issuer: PEM certificates in FILE. Its certificates must lead to one of them, and pods get these anchors
    /// in place of the CA that the signer names. ISSUER is KIND.GROUP/NAME (in each namespace), KIND.GROUP/NAMESPACE/NAME, the
    /// ARN of a private CA, or local. Can be given several times. The file is read for each certificate.
    #[arg(long, env = "CERTLET_PIN_CA", value_name = "ISSUER=FILE", value_delimiter = ',')]
    pub pin_ca: Vec<Pin>,
}

/// A trust source; none if the flag is given empty, as csi-driver-spiffe's chart does.
#[derive(Clone, Debug)]
pub struct CaSource(Option<TrustSource>);

fn source(text: &str) -> Result<CaSource, String> {
    if text.is_empty() {
        Ok(CaSource(None))
    } else {
        TrustSource::from_str(text).map(|source| CaSource(Some(source)))
    }
}

impl TrustArgs {
    /// The trust sources, each once.
    pub(super) fn sources(&self) -> Vec<TrustSource> {
        let mut sources: Vec<TrustSource> = Vec::new();
        for source in self.ca_source.iter().filter_map(|source| source.0.as_ref()) {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        sources
    }
}
