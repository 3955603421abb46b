//! The parts of Kubernetes objects that this plugin reads. Fields that are missing are empty.

use jiff::Timestamp;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The container of the driver, and of an injected sidecar.
pub(crate) const CONTAINER: &str = "certlet";

/// The names under which certlet serves volumes, unless an operator gives it another.
const DRIVERS: [&str; 3] = ["csi.certlet.io", "csi.cert-manager.io", "spiffe.csi.cert-manager.io"];

#[derive(Debug, Deserialize)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) creation_timestamp: Option<Timestamp>,
    pub(crate) owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) uid: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: String,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) volumes: Vec<Volume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) env: Vec<Variable>,
    pub(crate) security_context: SecurityContext,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SecurityContext {
    pub(crate) privileged: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) csi: Option<Csi>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Csi {
    pub(crate) driver: String,
    pub(crate) volume_attributes: BTreeMap<String, String>,
}

impl Pod {
    /// `NAMESPACE/POD`
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Its volumes of certlet. `driver_names` are the names that operators gave their drivers: a volume with such a name can have no
    /// attribute that shows whose it is.
    pub(crate) fn certificate_volumes<'a>(
        &'a self,
        driver_names: &'a BTreeSet<String>,
    ) -> impl Iterator<Item = (&'a str, &'a Csi)> {
        self.spec.volumes.iter().filter_map(|volume| {
            let csi = volume.csi.as_ref()?;
            let is_ours = DRIVERS.contains(&csi.driver.as_str())
                || driver_names.contains(&csi.driver)
                || csi.volume_attributes.keys().any(|key| key.starts_with("csi.certlet.io/"));
            is_ours.then_some((volume.name.as_str(), csi))
        })
    }

    /// Whether it has a volume of any CSI driver.
    pub(crate) fn has_csi_volume(&self) -> bool {
        self.spec.volumes.iter().any(|volume| volume.csi.is_some())
    }

    /// Whether it has certlet as a container of its own. The driver's own pod is privileged.
    pub(crate) fn has_sidecar(&self) -> bool {
        let all = self.spec.containers.iter().chain(&self.spec.init_containers);
        all.into_iter().any(|container| container.name == CONTAINER && !container.security_context.privileged)
    }
}

/// A core Event, with the fields of `events.k8s.io` that the API server puts into it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Event {
    pub(crate) metadata: Metadata,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) r#type: String,
    pub(crate) last_timestamp: Option<Timestamp>,
    #[serde(rename = "eventTime")]
    pub(crate) first_at: Option<Timestamp>,
    pub(crate) involved_object: ObjectReference,
    pub(crate) reporting_component: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectReference {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Event {
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.last_timestamp.or(self.first_at).or(self.metadata.creation_timestamp)
    }

    /// Whether it is about this pod, and not one of the same name before it.
    pub(crate) fn is_about(&self, pod: &Pod) -> bool {
        let object = &self.involved_object;
        object.kind == "Pod" && object.name == pod.metadata.name && object.uid == pod.metadata.uid
    }

    /// Whether certlet has recorded it, or it says why a volume is not mounted.
    pub(crate) fn is_of_certificates(&self) -> bool {
        let by_driver = DRIVERS.contains(&self.reporting_component.as_str())
            || self.reporting_component == CONTAINER
            || self.reason.starts_with("Certificate");
        by_driver || (self.reason == "FailedMount" && self.message.contains("csi"))
    }

    pub(crate) fn is_warning(&self) -> bool {
        self.r#type == "Warning"
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CertificateRequest {
    pub(crate) metadata: Metadata,
    pub(crate) spec: CertificateRequestSpec,
    pub(crate) status: CertificateRequestStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CertificateRequestSpec {
    pub(crate) issuer_ref: IssuerRef,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct IssuerRef {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) group: String,
}

impl IssuerRef {
    /// The kind, which is an Issuer unless the reference says another.
    pub(crate) fn kind(&self) -> &str {
        if self.kind.is_empty() { "Issuer" } else { &self.kind }
    }

    pub(crate) fn group(&self) -> &str {
        if self.group.is_empty() { "cert-manager.io" } else { &self.group }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CertificateRequestStatus {
    pub(crate) conditions: Vec<Condition>,
    /// Base64 of PEM.
    pub(crate) certificate: String,
}

/// An issuer of any kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Issuer {
    pub(crate) status: IssuerStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct IssuerStatus {
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    pub(crate) r#type: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Condition {
    /// `Ready=False (Pending): message`
    pub(crate) fn shown(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        let message = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        format!("{}={}{reason}{message}", self.r#type, self.status)
    }
}
