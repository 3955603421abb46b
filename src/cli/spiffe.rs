//! The flags for SPIFFE IDs.

use crate::attributes::{SPIFFE_ID_TEMPLATE, SpiffeIds, SpiffeIdsError};
use crate::model::Dialect;
use clap::Args;

/// How the driver makes SPIFFE IDs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "SPIFFE")]
pub struct SpiffeArgs {
    /// Trust domain of this cluster's SPIFFE IDs, such as example.org. Without one, "spiffe: true" is refused. A running volume gets
    /// an ID of another trust domain at its next renewal. [default with the driver name spiffe.csi.cert-manager.io: cluster.local]
    #[arg(long, env = "CERTLET_TRUST_DOMAIN", value_name = "NAME")]
    pub trust_domain: Option<String>,

    /// How "spiffe: true" makes the ID of a pod: `spiffe://{trustDomain}/` and a path with {namespace}, {serviceAccount}, {podName} and
    /// {podUID}. Pods with the same ID are the same to their peers, so name the namespace.
    #[arg(long, env = "CERTLET_SPIFFE_ID_TEMPLATE", value_name = "TEMPLATE", default_value = SPIFFE_ID_TEMPLATE, requires = "trust_domain")]
    pub spiffe_id_template: String,
}

impl SpiffeArgs {
    /// The SPIFFE IDs of pods; none without a trust domain.
    pub(super) fn ids(&self, dialect: Dialect) -> Result<Option<SpiffeIds>, SpiffeIdsError> {
        let default = match dialect {
            Dialect::CsiDriverSpiffe => Some("cluster.local"),
            Dialect::CertManager | Dialect::Certlet => None,
        };
        self.trust_domain
            .as_deref()
            .or(default)
            .map(|domain| SpiffeIds::new(domain, &self.spiffe_id_template))
            .transpose()
    }
}
