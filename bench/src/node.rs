//! One node: a driver, the kubelet that calls it, and the pods of a scene.

use crate::load::{Load, closed, open};
use crate::{Failure, process};
use certlet_kubelet::proto::csi::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, ProbeRequest,
};
use certlet_kubelet::{Driver, Kubelet, Pod};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A driver that takes longer to start counts as broken.
const START: Duration = Duration::from_secs(30);

/// The name of the sockets in the volumes.
const SOCKET: &str = "spiffe.sock";

/// A driver and its kubelet.
pub(crate) struct Node {
    driver: Driver,
    kubelet: Kubelet,
}

/// How soon a driver was ready, measured from the start of its process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Until its socket answered Probe.
    pub(crate) answers: Duration,
    /// Until the kubelet had registered it. Then `/readyz` reports it as ready.
    pub(crate) registered: Duration,
}

/// CPU time of driver and client, in milliseconds per call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuPerCall {
    pub(crate) driver_ms: f64,
    pub(crate) client_ms: f64,
}

impl Node {
    /// Starts a driver under `root` and registers it. `root` may have files of an earlier driver.
    pub(crate) async fn start(
        binary: &Path,
        root: &Path,
        flags: &[String],
    ) -> Result<(Self, Start), Failure> {
        fs::create_dir_all(root)?;
        let flags: Vec<&str> = ["--metrics-bind-address=127.0.0.1:0"]
            .into_iter()
            .chain(flags.iter().map(String::as_str))
            .collect();
        let begun = Instant::now();
        let mut driver = Driver::start(binary, root, &flags)?;
        while !answers(root, &driver.endpoint()).await {
            if begun.elapsed() > START {
                // This returns an error with the driver's log.
                driver.register().await?;
                return Err("the driver does not answer Probe".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let answers = begun.elapsed();
        let kubelet = driver.register().await?;
        Ok((Self { driver, kubelet }, Start { answers, registered: begun.elapsed() }))
    }

    /// The driver's process id.
    pub(crate) fn id(&self) -> u32 {
        self.driver.id()
    }

    /// The driver's log.
    pub(crate) fn log(&self) -> Result<String, Failure> {
        Ok(fs::read_to_string(self.driver.root.join("driver.log"))?)
    }

    /// Sends the driver a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(self.driver.signal(signal)?)
    }

    /// Ends the driver with SIGTERM.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let ended = self.driver.stop()?;
        if ended.success() { Ok(()) } else { Err(format!("the driver ended with {ended}").into()) }
    }

    /// Makes pods whose volumes have these attributes, and the directories that the kubelet makes for them.
    pub(crate) fn pods(&self, count: usize, attributes: &[(&str, &str)]) -> Result<Pods, Failure> {
        let common = [
            ("signer", "local"),
            ("dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc.cluster.local"),
            ("uri-sans", "spiffe://cluster.local/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}"),
        ];
        self.pods_of(count, &[&common, attributes].concat())
    }

    /// As [`Self::pods`], for volumes with a SPIFFE ID and a socket.
    pub(crate) fn pods_with_sockets(
        &self,
        count: usize,
        attributes: &[(&str, &str)],
    ) -> Result<Pods, Failure> {
        let common = [("signer", "local"), ("spiffe", "true"), ("socket-file", SOCKET)];
        self.pods_of(count, &[&common, attributes].concat())
    }

    fn pods_of(&self, count: usize, attributes: &[(&str, &str)]) -> Result<Pods, Failure> {
        let attributes: Vec<(String, &str)> =
            attributes.iter().map(|(key, value)| (format!("csi.certlet.io/{key}"), *value)).collect();
        let pods: Vec<Pod> = (0..count)
            .map(|number| Pod::new("bench", &format!("pod-{number}"), attributes.clone()))
            .collect();
        let targets: Vec<PathBuf> = pods.iter().map(|pod| self.kubelet.target(pod)).collect();
        for target in &targets {
            fs::create_dir_all(target.parent().unwrap_or(target))?;
        }
        let requests = pods.iter().map(|pod| self.kubelet.publish_request(pod)).collect();
        Ok(Pods { requests: Arc::new(requests), targets })
    }

    /// Publishes every pod's volume, `in_flight` at once.
    pub(crate) async fn publish(&self, pods: &Pods, in_flight: usize) -> Result<(Load, CpuPerCall), Failure> {
        let (kubelet, requests) = (self.kubelet.clone(), Arc::clone(&pods.requests));
        let call = move |index: usize| {
            let (kubelet, request) = (kubelet.clone(), requests[index].clone());
            async move { kubelet.publish_with(request).await }
        };
        self.with_cpu(closed(pods.requests.len(), in_flight, call)).await
    }

    /// As [`Self::publish`], with a new connection for each call, as the kubelet does today. The duration includes connecting.
    pub(crate) async fn publish_connecting(&self, pods: &Pods) -> Result<(Load, CpuPerCall), Failure> {
        let (root, endpoint) = (self.driver.root.clone(), self.driver.endpoint());
        let requests = Arc::clone(&pods.requests);
        let call = move |index: usize| {
            let (root, endpoint, request) = (root.clone(), endpoint.clone(), requests[index].clone());
            async move { Kubelet::connect(&root, &endpoint).await?.publish_with(request).await }
        };
        self.with_cpu(closed(pods.requests.len(), 1, call)).await
    }

    /// Publishes at a steady rate, with at most `in_flight` open.
    pub(crate) async fn publish_steadily(
        &self,
        pods: &Pods,
        rate: u32,
        in_flight: usize,
    ) -> Result<(Load, CpuPerCall), Failure> {
        let (kubelet, requests) = (self.kubelet.clone(), Arc::clone(&pods.requests));
        let call = move |index: usize| {
            let (kubelet, request) = (kubelet.clone(), requests[index].clone());
            async move { kubelet.publish_with(request).await }
        };
        self.with_cpu(open(pods.requests.len(), rate, in_flight, call)).await
    }

    /// Unpublishes every pod's volume.
    pub(crate) async fn unpublish(
        &self,
        pods: &Pods,
        in_flight: usize,
    ) -> Result<(Load, CpuPerCall), Failure> {
        let (node, requests) = (self.kubelet.node(), Arc::clone(&pods.requests));
        let call = move |index: usize| {
            let mut node = node.clone();
            let NodePublishVolumeRequest { volume_id, target_path, .. } = requests[index].clone();
            async move {
                node.node_unpublish_volume(NodeUnpublishVolumeRequest { volume_id, target_path })
                    .await
                    .map(drop)
            }
        };
        self.with_cpu(closed(pods.requests.len(), in_flight, call)).await
    }

    /// Asks for usage and condition of every volume. Fails if one is no longer mounted.
    pub(crate) async fn stats(&self, pods: &Pods) -> Result<Load, Failure> {
        let (node, requests) = (self.kubelet.node(), Arc::clone(&pods.requests));
        let call = move |index: usize| {
            let mut node = node.clone();
            let NodePublishVolumeRequest { volume_id, target_path: volume_path, .. } =
                requests[index].clone();
            async move {
                let request = NodeGetVolumeStatsRequest {
                    volume_id,
                    volume_path,
                    ..NodeGetVolumeStatsRequest::default()
                };
                node.node_get_volume_stats(request).await.map(drop)
            }
        };
        closed(pods.requests.len(), 10, call).await
    }

    async fn with_cpu(
        &self,
        load: impl Future<Output = Result<Load, Failure>>,
    ) -> Result<(Load, CpuPerCall), Failure> {
        let now = || Ok::<_, Failure>((process::cpu(self.id())?, process::cpu(std::process::id())?));
        let before = now()?;
        let load = load.await?;
        let after = now()?;
        let each = |took: Duration| took.as_secs_f64() * 1e3 / load.calls as f64;
        let cpu = CpuPerCall {
            driver_ms: each(after.0.saturating_sub(before.0)),
            client_ms: each(after.1.saturating_sub(before.1)),
        };
        Ok((load, cpu))
    }
}

async fn answers(root: &Path, endpoint: &Path) -> bool {
    match Kubelet::connect(root, endpoint).await {
        Ok(kubelet) => kubelet.identity().probe(ProbeRequest {}).await.is_ok(),
        Err(_) => false,
    }
}

/// Pods of a scene.
pub(crate) struct Pods {
    requests: Arc<Vec<NodePublishVolumeRequest>>,
    targets: Vec<PathBuf>,
}

impl Pods {
    /// Number of pods.
    pub(crate) fn count(&self) -> usize {
        self.targets.len()
    }

    /// A file of a volume.
    pub(crate) fn file(&self, pod: usize, name: &str) -> PathBuf {
        self.targets[pod].join(name)
    }

    /// The id of each volume.
    pub(crate) fn volume_ids(&self) -> impl Iterator<Item = &str> {
        self.requests.iter().map(|request| request.volume_id.as_str())
    }

    /// The socket in each volume.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = PathBuf> {
        self.targets.iter().map(|target| target.join(SOCKET))
    }

    /// The target of each volume's `..data`, which changes with every renewal.
    pub(crate) fn generations(&self) -> Result<Vec<PathBuf>, Failure> {
        Ok(self
            .targets
            .iter()
            .map(|target| fs::read_link(target.join("..data")))
            .collect::<Result<_, _>>()?)
    }
}
