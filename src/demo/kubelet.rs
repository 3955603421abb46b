//! The kubelet's side of CSI: registers a driver, and publishes volumes through its socket exactly as a kubelet does.

use crate::proto::csi::identity_client::IdentityClient;
use crate::proto::csi::node_client::NodeClient;
use crate::proto::csi::volume_capability::access_mode::Mode;
use crate::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use crate::proto::csi::{
    GetPluginInfoRequest, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodeUnpublishVolumeRequest, VolumeCapability,
};
use crate::proto::registration::registration_client::RegistrationClient;
use crate::proto::registration::{InfoRequest, RegistrationStatus};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A kubelet, as far as a CSI driver can tell.
#[derive(Clone, Debug)]
pub struct Kubelet {
    root: PathBuf,
    node: NodeClient<Channel>,
    identity: IdentityClient<Channel>,
}

/// A pod with one certlet volume.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// The volume's `volumeAttributes`.
    pub attributes: Vec<(String, String)>,
    /// Its fsGroup.
    pub fs_group: Option<u32>,
}

impl Pod {
    /// A pod whose uid follows from its name.
    pub fn new<K: Into<String>, V: Into<String>>(
        namespace: &str,
        name: &str,
        attributes: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let digest = hex(&Sha256::digest(format!("{namespace}/{name}")));
        let uid = [&digest[..8], &digest[8..12], &digest[12..16], &digest[16..20], &digest[20..32]].join("-");
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid,
            service_account: "default".to_owned(),
            attributes: attributes.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            fs_group: None,
        }
    }

    /// The id the kubelet gives an ephemeral inline volume: `csi-` and 64 hexadecimal digits.
    pub fn volume_id(&self) -> String {
        format!("csi-{}", hex(&Sha256::digest(format!("certlet{}{}", self.namespace, self.uid))))
    }

    /// What the kubelet sends as `volume_context`: the author's attributes and, with podInfoOnMount, the pod.
    pub fn volume_context(&self) -> HashMap<String, String> {
        let kubelet = [
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", &self.name),
            ("csi.storage.k8s.io/pod.namespace", &self.namespace),
            ("csi.storage.k8s.io/pod.uid", &self.uid),
            ("csi.storage.k8s.io/serviceAccount.name", &self.service_account),
        ];
        let kubelet = kubelet.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        kubelet.chain(self.attributes.iter().cloned()).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    crate::x509::hex(bytes)
}

impl Kubelet {
    /// Finds the registration socket, asks the driver who it is and where, checks that it answers there under the same
    /// name, and tells it that it is registered: the kubelet's plugin watcher, step by step.
    pub async fn register(root: &Path, registration_socket: &Path) -> Result<Self, Status> {
        let channel = connect(registration_socket).await?;
        let mut registration = RegistrationClient::new(channel);
        let info = registration.get_info(InfoRequest {}).await?.into_inner();
        let kubelet = Self::connect(root, Path::new(&info.endpoint)).await?;
        let name = kubelet.identity.clone().get_plugin_info(GetPluginInfoRequest {}).await?.into_inner().name;
        let fault = match (info.r#type.as_str(), name == info.name) {
            ("CSIPlugin", true) => String::new(),
            ("CSIPlugin", false) => format!("it registers as {} and answers as {name}", info.name),
            (other, _) => format!("it is a {other}, not a CSIPlugin"),
        };
        let status = RegistrationStatus { plugin_registered: fault.is_empty(), error: fault.clone() };
        registration.notify_registration_status(status).await?;
        if fault.is_empty() { Ok(kubelet) } else { Err(Status::failed_precondition(fault)) }
    }

    /// Talks to a driver that is registered already.
    pub async fn connect(root: &Path, endpoint: &Path) -> Result<Self, Status> {
        let channel = connect(endpoint).await?;
        Ok(Self {
            root: root.to_owned(),
            node: NodeClient::new(channel.clone()),
            identity: IdentityClient::new(channel),
        })
    }

    /// Where the kubelet has a pod's volume mounted.
    pub fn target(&self, pod: &Pod) -> PathBuf {
        self.root.join("pods").join(&pod.uid).join("volumes/kubernetes.io~csi/tls/mount")
    }

    /// The publish request for a pod, as the kubelet fills it in.
    pub fn publish_request(&self, pod: &Pod) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: pod.volume_id(),
            target_path: self.target(pod).display().to_string(),
            volume_capability: Some(VolumeCapability {
                access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
                access_type: Some(AccessType::Mount(MountVolume {
                    fs_type: String::new(),
                    mount_flags: Vec::new(),
                    volume_mount_group: pod.fs_group.map(|group| group.to_string()).unwrap_or_default(),
                })),
            }),
            readonly: true,
            volume_context: pod.volume_context(),
            ..NodePublishVolumeRequest::default()
        }
    }

    /// Makes the pod's volume directory and publishes its volume, with the kubelet's deadline of two minutes.
    pub async fn publish(&self, pod: &Pod) -> Result<PathBuf, Status> {
        let target = self.target(pod);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| Status::internal(format!("{}: {error}", parent.display())))?;
        }
        self.publish_with(self.publish_request(pod)).await?;
        Ok(target)
    }

    /// Sends one publish request.
    pub async fn publish_with(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        let mut request = Request::new(request);
        request.set_timeout(Duration::from_mins(2));
        self.node.clone().node_publish_volume(request).await.map(drop)
    }

    /// Unpublishes the pod's volume and removes its directory, as the kubelet does when a pod ends.
    pub async fn unpublish(&self, pod: &Pod) -> Result<(), Status> {
        let target = self.target(pod);
        let request = NodeUnpublishVolumeRequest {
            volume_id: pod.volume_id(),
            target_path: target.display().to_string(),
        };
        self.node.clone().node_unpublish_volume(request).await?;
        // Fails where the driver left something behind: that is for the caller to look at, not to hide.
        let _removed = std::fs::remove_dir(target.parent().unwrap_or(&self.root));
        Ok(())
    }

    /// Asks for usage and condition.
    pub async fn stats(&self, pod: &Pod) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: pod.volume_id(),
            volume_path: self.target(pod).display().to_string(),
            staging_target_path: String::new(),
        };
        Ok(self.node.clone().node_get_volume_stats(request).await?.into_inner())
    }

    /// The Node service, for calls not wrapped here.
    pub fn node(&self) -> NodeClient<Channel> {
        self.node.clone()
    }

    /// The Identity service.
    pub fn identity(&self) -> IdentityClient<Channel> {
        self.identity.clone()
    }
}

async fn connect(socket: &Path) -> Result<Channel, Status> {
    let failed =
        |error: tonic::transport::Error| Status::unavailable(format!("{}: {error}", socket.display()));
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(failed)?;
    endpoint.connect().await.map_err(failed)
}
