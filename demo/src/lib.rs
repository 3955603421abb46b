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
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

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

/// Runs the demo; a failure prints one line and returns exit code 1.
pub fn run(args: &DemoOptions) -> ExitCode {
    // The name must be short: the path of a Unix socket has at most 107 bytes.
    let root = std::env::temp_dir().join(format!("certlet-demo-{}", std::process::id()));
    if let Err(error) = namespace::enter().and_then(|()| namespace::scratch(&root)) {
        eprintln!("certlet demo: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(steps(args, &root)));
    // A directory with a mount in it cannot be removed.
    let _unmounted = nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH);
    let _removed = std::fs::remove_dir(&root);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncertlet demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn steps(args: &DemoOptions, root: &Path) -> Result<(), Failure> {
    let out = Output::new();
    out.title("certlet gives every pod its own certificate");
    let started = Instant::now();
    let mut driver =
        Driver::start(&std::env::current_exe()?, root, &["--metrics-bind-address=0", "--log-format=text"])?;
    let kubelet = driver.register().await?;
    out.done("driver", &format!("certlet node runs, and the kubelet has registered {DRIVER_NAME}"), started);

    let pods = publish_all(&out, &kubelet, args).await?;
    let volumes: Vec<PathBuf> = pods.iter().map(|pod| kubelet.target(pod)).collect();
    let [client, server, ..] = volumes.as_slice() else { return Err("the demo needs two pods".into()) };
    show_files(&out, client)?;
    let name = format!("{}.shop.svc.cluster.local", pods[1].name);
    talk(&out, client, server, &name).await?;
    rotate(&out, client, args.duration).await?;
    talk(&out, client, server, &name).await?;
    if args.keep {
        keep(&out, &driver, &volumes).await?;
    }
    clean_up(&out, &kubelet, &pods, &mut driver).await
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
        out.done(&name, &format!("certificate {} until {}", short(&leaf.serial), leaf.not_after), started);
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
    out.info("files", &format!("{}: on tmpfs, read-only, key 0400", names.join(", ")));
    Ok(())
}

async fn talk(out: &Output, client: &Path, server: &Path, name: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let talk = mtls::converse(client, server, name).await.map_err(|error| format!("mTLS: {error}"))?;
    out.done("mTLS", &format!("{} -> {} ({})", talk.client, talk.server, talk.protocol), started);
    out.info("", &format!("\"{}\"", talk.answer));
    Ok(())
}

/// Waits for one rotation with an open watch, like a sidecar.
async fn rotate(out: &Output, volume: &Path, duration: Duration) -> Result<(), Failure> {
    let before = leaf(volume)?;
    let mut swaps = Swaps::watch(volume)?;
    let old = short(&before.serial);
    out.info("rotation", &format!("waiting for {old} to be renewed, well before it expires ..."));
    let started = Instant::now();
    tokio::time::timeout(duration, swaps.next())
        .await
        .map_err(|_| format!("no rotation within the lifetime of {} s", duration.as_secs()))??;
    let (after, left) = (leaf(volume)?, before.not_after.duration_since(Timestamp::now()));
    if after == before {
        return Err("the watch fired, but the certificate is the same".into());
    }
    let rotated = format!("{old} -> {}, {:.1} s before expiry", short(&after.serial), left.as_secs_f64());
    out.done("rotation", &rotated, started);
    Ok(())
}

async fn keep(out: &Output, driver: &Driver, volumes: &[PathBuf]) -> Result<(), Failure> {
    out.info("keep", "driver and volumes run, and certificates rotate, until Ctrl-C; from another shell:");
    let nsenter = format!("nsenter --user --preserve-credentials --mount --target {}", driver.id());
    for volume in volumes.iter().take(2) {
        out.info("", &format!("{nsenter} ls -l {}", volume.display()));
    }
    out.info("", &format!("driver's log: {nsenter} cat {}", driver.root.join("driver.log").display()));
    Ok(tokio::signal::ctrl_c().await?)
}

async fn clean_up(out: &Output, kubelet: &Kubelet, pods: &[Pod], driver: &mut Driver) -> Result<(), Failure> {
    let started = Instant::now();
    for pod in pods {
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
    out.done("the end", "unpublished: no mount, file or key is left; driver stopped", started);
    Ok(())
}

fn short(serial: &str) -> &str {
    serial.get(..8).unwrap_or(serial)
}
