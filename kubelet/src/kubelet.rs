//! The kubelet's side of CSI: registers a driver, and publishes volumes through its socket, like a kubelet.

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
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A kubelet, as a CSI driver sees it.
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
    /// A pod with a uid that is derived from its name.
    pub fn new<K: Into<String>, V: Into<String>>(
        namespace: &str,
        name: &str,
        attributes: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let digest = sha256(&format!("{namespace}/{name}"));
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
        format!("csi-{}", sha256(&format!("certlet{}{}", self.namespace, self.uid)))
    }

    /// The `volume_context` of the kubelet: the author's attributes and, with podInfoOnMount, the pod.
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

/// The SHA-256 digest in hexadecimal.
fn sha256(text: &str) -> String {
    base16ct::lower::encode_string(digest(&SHA256, text.as_bytes()).as_ref())
}

impl Kubelet {
    /// Does the steps of the kubelet's plugin watcher. It asks the registration socket for name and CSI socket, checks that the
    /// CSI socket answers with the same name, and confirms the registration.
    pub async fn register(root: &Path, registration_socket: &Path) -> Result<Self, Status> {
        let channel = connect(registration_socket).await?;
        let mut registration = RegistrationClient::new(channel);
        let info = registration.get_info(InfoRequest {}).await?.into_inner();
        let kubelet = Self::connect(root, Path::new(&info.endpoint)).await?;
        let name = kubelet.identity.clone().get_plugin_info(GetPluginInfoRequest {}).await?.into_inner().name;
        let fault = match (info.r#type.as_str(), name == info.name) {
            ("CSIPlugin", true) => String::new(),
            ("CSIPlugin", false) => format!("it registers as {} but answers as {name}", info.name),
            (other, _) => format!("it is a {other}, not a CSIPlugin"),
        };
        let status = RegistrationStatus { plugin_registered: fault.is_empty(), error: fault.clone() };
        registration.notify_registration_status(status).await?;
        if fault.is_empty() { Ok(kubelet) } else { Err(Status::failed_precondition(fault)) }
    }

    /// Connects to a driver that is already registered.
    pub async fn connect(root: &Path, endpoint: &Path) -> Result<Self, Status> {
        let channel = connect(endpoint).await?;
        Ok(Self {
            root: root.to_owned(),
            node: NodeClient::new(channel.clone()),
            identity: IdentityClient::new(channel),
        })
    }

    /// The target path of a pod's volume.
    pub fn target(&self, pod: &Pod) -> PathBuf {
        self.root.join("pods").join(&pod.uid).join("volumes/kubernetes.io~csi/tls/mount")
    }

    /// The publish request of the kubelet for a pod.
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

    /// Creates the pod's volume directory and publishes its volume, with the kubelet's deadline of two minutes.
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

    /// Unpublishes the pod's volume and removes its directory, like the kubelet after a pod has ended.
    pub async fn unpublish(&self, pod: &Pod) -> Result<(), Status> {
        self.call_unpublish(pod).await?;
        // This fails if the driver has not removed the target. The caller checks that.
        let _removed = std::fs::remove_dir(self.target(pod).parent().unwrap_or(&self.root));
        Ok(())
    }

    /// Calls `NodeUnpublishVolume`, and leaves the directory for another publish of the volume.
    pub async fn call_unpublish(&self, pod: &Pod) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: pod.volume_id(),
            target_path: self.target(pod).display().to_string(),
        };
        self.node.clone().node_unpublish_volume(request).await.map(drop)
    }

    /// Calls NodeGetVolumeStats.
    pub async fn stats(&self, pod: &Pod) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: pod.volume_id(),
            volume_path: self.target(pod).display().to_string(),
            staging_target_path: String::new(),
        };
        Ok(self.node.clone().node_get_volume_stats(request).await?.into_inner())
    }

    /// The Node service, for other calls.
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
