//! A certlet driver, and a kubelet that calls it.

use crate::Failure;
use crate::load::{Load, Measured};
use certlet_kubelet::{Kubelet, Pod as KubeletPod};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const NAME: &str = "bench.certlet.io";
const METRICS: &str = "127.0.0.1:19402";

/// A driver of the benchmark's own, beside any that is installed.
pub(crate) struct Driver {
    root: PathBuf,
    child: Child,
    kubelet: Kubelet,
    issuer: String,
}

impl Driver {
    pub(crate) async fn start(binary: &Path, issuer: &str) -> Result<Self, Failure> {
        // The name must be short, because a Unix socket's path has at most 107 bytes.
        let root = std::env::temp_dir().join(format!("certlet-bench-{}", std::process::id()));
        fs::create_dir_all(root.join("plugins_registry"))?;
        let kubeconfig = std::env::var("KUBECONFIG")?;
        let child = Command::new(binary)
            .args([
                "node",
                "--node-id=bench",
                "--driver-name",
                NAME,
                "--log-level=warn",
                "--store-size=256Mi",
            ])
            .args(["--metrics-bind-address", METRICS, "--kubeconfig", &kubeconfig])
            .arg("--endpoint")
            .arg(root.join("csi.sock"))
            .arg("--data-root")
            .arg(root.join("data"))
            .arg("--registration-dir")
            .arg(root.join("plugins_registry"))
            .env("MALLOC_ARENA_MAX", "2") // as in the chart
            .stderr(Stdio::from(File::create(root.join("driver.log"))?))
            .kill_on_drop(true)
            .spawn()?;
        let registration = root.join("plugins_registry").join(format!("{NAME}-reg.sock"));
        for _ in 0..300 {
            if let Ok(kubelet) = Kubelet::register(&root, &registration).await {
                // The watch begins with the process. On a node, too, some time passes between the start and the first pod.
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Ok(Self { root, child, kubelet, issuer: issuer.to_owned() });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("the driver does not start:\n{}", fs::read_to_string(root.join("driver.log"))?).into())
    }

    /// Publishes a volume for each of the first `load.count` pods.
    pub(crate) async fn measure(&self, pods: &[Pod], load: Load) -> Result<Measured, Failure> {
        let pods: Vec<KubeletPod> = pods.iter().map(|pod| self.volume_of(pod)).collect();
        let before = self.cpu()?;
        let mut measured = load.run(async |n| Ok(self.kubelet.publish(&pods[n]).await.map(drop)?)).await?;
        measured.driver_cpu = self.cpu()?.saturating_sub(before);
        Ok(measured)
    }

    /// CPU time of all the driver's threads so far, to the nanosecond. /proc counts in ticks, which is far too inexact on a busy
    /// machine.
    fn cpu(&self) -> Result<Duration, Failure> {
        let id = self.child.id().ok_or("the driver has ended")?;
        Ok(clock_getcpuclockid(Pid::from_raw(id.try_into()?))?.now()?.into())
    }

    pub(crate) async fn unpublish(&self, pods: &[Pod]) -> Result<(), Failure> {
        for pod in pods {
            self.kubelet.unpublish(&self.volume_of(pod)).await?;
        }
        Ok(())
    }

    fn volume_of(&self, pod: &Pod) -> KubeletPod {
        let attributes = [
            ("csi.certlet.io/issuer-name", self.issuer.as_str()),
            ("csi.certlet.io/issuer-kind", "ClusterIssuer"),
            ("csi.certlet.io/common-name", "bench"),
            ("csi.certlet.io/duration", "1h"),
        ];
        let namespace = pod.namespace().unwrap_or_default();
        KubeletPod {
            uid: pod.uid().unwrap_or_default(),
            ..KubeletPod::new(&namespace, &pod.name_any(), attributes)
        }
    }

    /// The CPU that the driver takes for `time` while nothing calls it, in thousandths of a core.
    pub(crate) async fn idle_millicores(&self, time: Duration) -> Result<f64, Failure> {
        let before = self.cpu()?;
        tokio::time::sleep(time).await;
        Ok(1000.0 * self.cpu()?.saturating_sub(before).as_secs_f64() / time.as_secs_f64())
    }

    /// Reports memory, and API calls so far.
    pub(crate) async fn report(&self) -> Result<String, Failure> {
        let id = self.child.id().ok_or("the driver has ended")?;
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let of = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let metrics = metrics().await?;
        let calls: Vec<&str> = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("certlet_kubernetes_api_calls_total"))
            .collect();
        Ok(format!(
            "{} resident, {} of it anonymous; API calls so far, including those of unpublishes: {}",
            of("VmRSS:"),
            of("RssAnon:"),
            calls.join(", ")
        ))
    }

    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        self.child.kill().await?;
        // The driver's tmpfs is in this process's mount namespace, and is unmounted when this process ends.
        let _mounted = fs::remove_dir_all(&self.root);
        Ok(())
    }
}

async fn metrics() -> Result<String, Failure> {
    let mut stream = TcpStream::connect(METRICS).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
