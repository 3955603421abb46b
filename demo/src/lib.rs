//! `certlet demo`: shows certlet in half a minute, with nothing but this binary.
//!
//! It acts as the kubelet for the real driver. Two pods get their certificates and connect with mTLS. One certificate rotates
//! while a watch is open. After unpublish, no file is left.

mod mtls;
mod output;

use certlet_kubelet::{DRIVER_NAME, Driver, Kubelet, Pod, Swaps, leaf, namespace};
use jiff::Timestamp;
use mtls::Failure;
use output::Output;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Names of the first two pods. The others are numbered.
const NAMES: [&str; 2] = ["orders", "payments"];

/// How the demo runs.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// How many pods get a certificate, two or more; the first two talk to each other.
    pub pods: u16,
    /// How long each certificate lives.
    pub duration: Duration,
    /// Whether driver and volumes stay up until Ctrl-C.
    pub keep: bool,
}

/// The exit code after a Ctrl-C that nobody asked for, as in a shell.
const INTERRUPTED: u8 = 130;

/// Why the demo ended early, although nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EarlyEnd {
    /// A signal.
    Interrupted,
    /// Nobody reads the output any more.
    OutputClosed,
}

impl fmt::Display for EarlyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted; the driver is stopped, and nothing is left",
            Self::OutputClosed => "the output was closed",
        })
    }
}

impl std::error::Error for EarlyEnd {}

/// Runs the demo; a failure prints one line and returns exit code 1.
pub fn run(args: &DemoOptions) -> ExitCode {
    // The name must be short: the path of a Unix socket has at most 107 bytes.
    let root = std::env::temp_dir().join(format!("certlet-demo-{}", std::process::id()));
    let entered = namespace::enter().and_then(|()| namespace::scratch(&root));
    let result = entered.map_err(Failure::from).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(steps(args, &root))
    });
    // A directory with a mount in it cannot be removed.
    let _unmounted = nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH);
    let _removed = std::fs::remove_dir(&root);
    let Err(error) = result else { return ExitCode::SUCCESS };
    let code = match error.downcast_ref() {
        Some(EarlyEnd::OutputClosed) => return ExitCode::SUCCESS,
        Some(EarlyEnd::Interrupted) => INTERRUPTED,
        None => 1,
    };
    eprintln!("\ncertlet demo: {error}");
    ExitCode::from(code)
}

/// The driver, the kubelet's side of it, and the pods with a certificate.
struct Running {
    driver: Driver,
    kubelet: Kubelet,
    pods: Vec<Pod>,
}

async fn steps(args: &DemoOptions, root: &Path) -> Result<(), Failure> {
    let out = Output::new();
    let mut interrupts = Interrupts::new()?;
    let mut running = tokio::select! {
        biased;
        running = show(&out, args, root) => running?,
        () = interrupts.next() => return Err(EarlyEnd::Interrupted.into()),
    };
    if args.keep {
        keep(&out, &running)?;
        tokio::select! {
            () = interrupts.next() => {}
            () = output::closed() => {}
        }
    }
    clean_up(&out, &mut running).await
}

/// Everything up to the rotation.
async fn show(out: &Output, args: &DemoOptions, root: &Path) -> Result<Running, Failure> {
    out.title("certlet gives every pod its own certificate")?;
    let started = Instant::now();
    let flags = ["--metrics-bind-address=0", "--log-format=text"];
    let mut driver = Driver::start_in_own_group(&std::env::current_exe()?, root, &flags)?;
    let kubelet = driver.register().await?;
    out.done("driver", &format!("certlet node runs, and the kubelet has registered {DRIVER_NAME}"), started)?;

    let pods = publish_all(out, &kubelet, args).await?;
    let volumes: Vec<PathBuf> = pods.iter().map(|pod| kubelet.target(pod)).collect();
    let [client, server, ..] = volumes.as_slice() else { return Err("the demo needs two pods".into()) };
    show_files(out, client)?;
    let name = format!("{}.shop.svc.cluster.local", pods[1].name);
    talk(out, client, server, &name).await?;
    rotate(out, client, args.duration).await?;
    talk(out, client, server, &name).await?;
    Ok(Running { driver, kubelet, pods })
}

/// The signals that end the demo.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

async fn publish_all(out: &Output, kubelet: &Kubelet, args: &DemoOptions) -> Result<Vec<Pod>, Failure> {
    let duration = format!("{}ms", args.duration.as_millis());
    let mut pods = Vec::new();
    for number in 0..args.pods {
        let name =
            NAMES.get(usize::from(number)).map_or_else(|| format!("pod-{number}"), |name| (*name).to_owned());
        let pod = Pod::new(
            "shop",
            &name,
            [
                ("csi.certlet.io/signer", "local"),
                ("csi.certlet.io/duration", &duration),
                ("csi.certlet.io/dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc.cluster.local"),
                ("csi.certlet.io/uri-sans", "spiffe://certlet.demo/ns/${POD_NAMESPACE}/pod/${POD_NAME}"),
                ("csi.certlet.io/key-usages", "digital signature, server auth, client auth"),
            ],
        );
        let started = Instant::now();
        let volume = kubelet
            .publish(&pod)
            .await
            .map_err(|status| format!("publish of {name}: {}", status.message()))?;
        let leaf = leaf(&volume)?;
        out.done(&name, &format!("certificate {} until {}", short(&leaf.serial), leaf.not_after), started)?;
        pods.push(pod);
    }
    Ok(pods)
}

fn show_files(out: &Output, volume: &Path) -> Result<(), Failure> {
    let mut names: Vec<String> = std::fs::read_dir(volume)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, std::io::Error>>()?;
    names.retain(|name| !name.starts_with(".."));
    names.sort();
    out.info("files", &format!("{}: on tmpfs, read-only, key 0400", names.join(", ")))
}

async fn talk(out: &Output, client: &Path, server: &Path, name: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let talk = mtls::converse(client, server, name).await.map_err(|error| format!("mTLS: {error}"))?;
    out.done("mTLS", &format!("{} -> {} ({})", talk.client, talk.server, talk.protocol), started)?;
    out.info("", &format!("\"{}\"", talk.answer))
}

/// Waits for one rotation with an open watch, like a sidecar.
async fn rotate(out: &Output, volume: &Path, duration: Duration) -> Result<(), Failure> {
    let before = leaf(volume)?;
    let mut swaps = Swaps::watch(volume)?;
    let old = short(&before.serial);
    out.info("rotation", &format!("waiting for {old} to be renewed, well before it expires ..."))?;
    let started = Instant::now();
    tokio::time::timeout(duration, swaps.next())
        .await
        .map_err(|_| format!("no rotation within the lifetime of {} s", duration.as_secs()))??;
    let (after, left) = (leaf(volume)?, before.not_after.duration_since(Timestamp::now()));
    if after == before {
        return Err("the watch fired, but the certificate is the same".into());
    }
    let rotated = format!("{old} -> {}, {:.1} s before expiry", short(&after.serial), left.as_secs_f64());
    out.done("rotation", &rotated, started)
}

/// Prints commands that show the volumes from another shell, whoever has started the demo.
fn keep(out: &Output, running: &Running) -> Result<(), Failure> {
    let Running { driver, kubelet, pods } = running;
    out.info("keep", "driver and volumes run, and certificates rotate, until Ctrl-C; from another shell:")?;
    // The mounts are private to this process, and /proc leads to them.
    let inside = Path::new("/proc").join(std::process::id().to_string()).join("root");
    let seen = |path: &Path| inside.join(path.strip_prefix("/").unwrap_or(path)).display().to_string();
    for pod in pods.iter().take(NAMES.len()) {
        let link = driver.root.join(&pod.name);
        // Relative: from outside, an absolute link would lead out of /proc.
        let target = kubelet.target(pod);
        std::os::unix::fs::symlink(target.strip_prefix(&driver.root).unwrap_or(&target), &link)?;
        out.command(&format!("ls -l {}/", seen(&link)))?;
    }
    out.info("", "the driver's log:")?;
    out.command(&format!("cat {}", seen(&driver.root.join("driver.log"))))
}

async fn clean_up(out: &Output, running: &mut Running) -> Result<(), Failure> {
    let started = Instant::now();
    let Running { driver, kubelet, pods } = running;
    for pod in &*pods {
        kubelet
            .unpublish(pod)
            .await
            .map_err(|status| format!("unpublish of {}: {}", pod.name, status.message()))?;
    }
    if let Some(left) = pods.iter().map(|pod| kubelet.target(pod)).find(|target| target.exists()) {
        return Err(format!("{} still exists after unpublish", left.display()).into());
    }
    if let Some(left) = std::fs::read_dir(driver.data_root().join("volumes"))?.next() {
        return Err(format!("the store still holds {} after unpublish", left?.path().display()).into());
    }
    let ended = driver.stop()?;
    if !ended.success() {
        return Err(format!("the driver ended with {ended}").into());
    }
    out.done("the end", "unpublished: no mount, file or key is left; driver stopped", started)
}

fn short(serial: &str) -> &str {
    serial.get(..8).unwrap_or(serial)
}
