//! `certlet explain`: what attributes ask for, in words and as a signing request. It needs no cluster and no signer.

mod explanation;

use super::classes::ClassArgs;
use super::csi_driver_spiffe::CsiDriverSpiffeArgs;
use super::node::UsageError;
#[cfg(feature = "kubernetes")]
use super::shared::IssuerArgs;
use super::shared::{ClusterDomainArgs, SdsArgs, VariableArgs};
use super::sidecar::{AttributeList, attributes};
use super::values;
use crate::attributes::{AttributeErrors, OperatorClasses, OperatorDefaults, PodIp, VolumeContext};
use crate::model::{Dialect, OperatorIssuer, WorkloadIdentity};
use crate::run::ClassesError;
use crate::volume::accepted_spec;
use crate::x509::{KeyError, PrivateKey, RequestError, csr, pem};
use clap::{Args, ValueEnum};
use explanation::Explanation;
use thiserror::Error;

/// `certlet explain`
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Attributes, as a CSI volume has them, separated by commas or in repeated flags. A name without a prefix gets csi.certlet.io/.
    /// --attribute is the same.
    #[arg(long, alias = "attribute", value_name = "NAME=VALUE,...", value_parser = values::attribute_list)]
    pub attributes: Vec<AttributeList>,

    /// The pod: NAMESPACE/NAME.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "default/example", value_parser = values::pod_name)]
    pub pod: (String, String),

    /// Service account of the pod.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = values::not_empty)]
    pub service_account: String,

    /// UID of the pod.
    #[arg(long, value_name = "UID", default_value = "00000000-0000-0000-0000-000000000000", value_parser = values::not_empty)]
    pub pod_uid: String,

    /// Form of the output.
    #[arg(long, short, value_name = "FORM", value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Name of the CSI driver, as for certlet node.
    #[arg(long, value_name = "NAME", default_value = "csi.certlet.io", value_parser = values::driver_name)]
    pub driver_name: String,

    /// What variables stand for.
    #[command(flatten)]
    pub variables: VariableArgs,

    /// The cluster's DNS domain.
    #[command(flatten)]
    pub cluster_domain: ClusterDomainArgs,

    /// The operator's issuer.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub issuer: IssuerArgs,

    /// SPIFFE IDs.
    #[command(flatten)]
    pub spiffe: super::spiffe::SpiffeArgs,

    /// Classes of identity.
    #[command(flatten)]
    pub classes: ClassArgs,

    /// The volumes of csi-driver-spiffe.
    #[command(flatten)]
    pub csi_driver_spiffe: CsiDriverSpiffeArgs,

    /// Trust bundles.
    #[command(flatten)]
    pub trust: super::trust::TrustArgs,

    /// The names of SDS secrets.
    #[command(flatten)]
    pub sds: SdsArgs,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Words, and the signing request as PEM.
    Text,
    /// One JSON object.
    Json,
}

/// Why nothing can be explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// The flags.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The file of classes.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// The attributes: what the pod's Events would say.
    #[error(transparent)]
    Attributes(#[from] AttributeErrors),
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No request can be made.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl ExplainArgs {
    /// The explanation.
    pub fn render(self) -> Result<String, ExplainError> {
        let (namespace, name) = self.pod.clone();
        let (uid, service_account) = (self.pod_uid.clone(), self.service_account.clone());
        let pod = WorkloadIdentity { namespace, name, uid, service_account };
        let raw = attributes(&self.attributes)?;
        let (output, classes) = (self.output, self.classes.config());
        let mut defaults = self.defaults()?;
        if let Some(classes) = classes {
            classes.load(&mut defaults)?;
        }
        let context = VolumeContext::of_sidecar(pod, raw, None, defaults.dialect)?;
        let spec = accepted_spec(&context, &defaults)?;
        let key = PrivateKey::generate(spec.key.algorithm)?;
        let request = pem::certificate_request(&csr(&spec, &key)?);
        let request = String::from_utf8_lossy(&request).into_owned();
        let explanation = Explanation::new(&context, &spec, &defaults, request);
        Ok(match output {
            Output::Text => explanation.text(),
            Output::Json => explanation.json(),
        })
    }

    /// What the flags give to volumes.
    fn defaults(self) -> Result<OperatorDefaults, UsageError> {
        let dialect = Dialect::of_driver(&self.driver_name);
        let spiffe_ids = self.spiffe.ids(dialect)?;
        let trust = self.trust.defaults(spiffe_ids.as_ref()).map_err(UsageError::FederatedWithItself)?;
        Ok(OperatorDefaults {
            dialect,
            spiffe_ids,
            #[cfg(feature = "kubernetes")]
            issuer: OperatorIssuer::new(self.issuer.issuer(dialect)?, None),
            #[cfg(not(feature = "kubernetes"))]
            issuer: OperatorIssuer::default(),
            secret_names: self.sds.names(),
            svid: self.csi_driver_spiffe.defaults(!trust.sources.is_empty())?,
            trust,
            owner: None,
            pod_ip: match self.variables.pod_ip() {
                PodIp::Unknown => PodIp::Read,
                known => known,
            },
            node_name: self.variables.node_name,
            cluster_domain: self.cluster_domain.cluster_domain,
            classes: OperatorClasses::default(),
        })
    }
}
