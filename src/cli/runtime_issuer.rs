//! The flags that name a ConfigMap with an issuer, for `certlet node` and `certlet approver`.

use super::values;
use crate::model::RuntimeConfigMap;
use clap::Args;
use thiserror::Error;

/// Which ConfigMap names the issuer.
#[derive(Clone, Debug, Args)]
pub struct RuntimeIssuerArgs {
    /// Name of a ConfigMap that names the issuer in the keys issuer-name, issuer-kind and issuer-group. While it exists, it takes
    /// precedence over the flags. Changes apply at once. Empty: the flags alone.
    #[arg(long, env = "CERTLET_RUNTIME_ISSUANCE_CONFIG_MAP_NAME", value_name = "NAME", default_value = "")]
    pub runtime_issuance_config_map_name: String,

    /// Namespace of that ConfigMap.
    #[arg(
        long,
        env = "CERTLET_RUNTIME_ISSUANCE_CONFIG_MAP_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = ""
    )]
    pub runtime_issuance_config_map_namespace: String,
}

/// The ConfigMap cannot be found.
#[derive(Debug, Error)]
#[error(
    "--runtime-issuance-config-map-name: needs --runtime-issuance-config-map-namespace; accepted: names of objects in Kubernetes"
)]
pub struct RuntimeIssuerError;

impl RuntimeIssuerArgs {
    /// The ConfigMap, if one is named. csi-driver-spiffe's chart gives the namespace always.
    pub(super) fn config_map(&self) -> Result<Option<RuntimeConfigMap>, RuntimeIssuerError> {
        let name = &self.runtime_issuance_config_map_name;
        let namespace = &self.runtime_issuance_config_map_namespace;
        if name.is_empty() {
            return Ok(None);
        }
        match (values::object_name(namespace), values::object_name(name)) {
            (Ok(namespace), Ok(name)) => Ok(Some(RuntimeConfigMap { namespace, name })),
            _ => Err(RuntimeIssuerError),
        }
    }
}
