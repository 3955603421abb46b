//! The identity of a volume and of its pod.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The CSI `volume_id`: for an ephemeral inline volume, `csi-` and 64 hexadecimal digits. It is cheap to clone, because
/// many tables use it as their key.
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

impl From<VolumeId> for Arc<str> {
    fn from(id: VolumeId) -> Self {
        id.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pod that declares the volume, as sent by the kubelet with `podInfoOnMount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadIdentity {
    /// `csi.storage.k8s.io/pod.namespace`
    pub namespace: String,
    /// `csi.storage.k8s.io/pod.name`
    pub name: String,
    /// `csi.storage.k8s.io/pod.uid`
    pub uid: String,
    /// `csi.storage.k8s.io/serviceAccount.name`
    pub service_account: String,
}

impl WorkloadIdentity {
    /// Its service account: `NAMESPACE/NAME`.
    pub(crate) fn account(&self) -> String {
        format!("{}/{}", self.namespace, self.service_account)
    }
}
