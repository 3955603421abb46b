//! Which volume, and whose.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The CSI `volume_id`: for an ephemeral inline volume, `csi-` and 64 hexadecimal digits. Cheap to clone: many tables have
/// it for their key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(Arc<str>);

impl VolumeId {
    /// Takes the identifier as the kubelet sent it.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The identifier as the kubelet sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pod that declares the volume, as the kubelet's `podInfoOnMount` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// `csi.storage.k8s.io/pod.namespace`
    pub namespace: String,
    /// `csi.storage.k8s.io/pod.name`
    pub name: String,
    /// `csi.storage.k8s.io/pod.uid`
    pub uid: String,
    /// `csi.storage.k8s.io/serviceAccount.name`
    pub service_account: String,
}

impl PodIdentity {
    /// Its service account: `NAMESPACE/NAME`.
    pub fn account(&self) -> String {
        format!("{}/{}", self.namespace, self.service_account)
    }
}
