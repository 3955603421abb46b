//! `certlet demo`: the main job in half a minute, with nothing but this binary.
//!
//! It plays the kubelet against the real driver: two pods get their certificates, talk mTLS, see one rotate under an
//! open watch, and everything is gone after unpublish.

mod driver;
mod kubelet;
mod mtls;
pub mod namespace;
mod swaps;

pub use driver::Driver;
pub use kubelet::{Kubelet, Pod};
pub use mtls::{Leaf, leaf};
pub use swaps::Swaps;

use crate::cli::DemoArgs;
use jiff::Timestamp;
use mtls::Failure;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Names of the first pods; others are numbered.
const NAMES: [&str; 2] = ["orders", "payments"];

/// Runs the demo; a failure is said in one line, with exit code 1.
pub fn run(args: &DemoArgs) -> ExitCode {
    // The directory's name must be short: a Unix socket's path has 107 bytes.
    let root = std::env::temp_dir().join(format!("certlet-demo-{}", std::process::id()));
    if let Err(error) = namespace::enter().and_then(|()| namespace::scratch(&root)) {
        eprintln!("certlet demo: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(story(args, &root)),
        Err(error) => Err(error.into()),
    };
    // Mounts first: a directory with something mounted in it cannot go.
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

async fn story(args: &DemoArgs, root: &Path) -> Result<(), Failure> {
    let say = Voice::new();
    say.title("certlet gives every pod its own certificate");
    let started = Instant::now();
    let mut driver =
        Driver::start(&std::env::current_exe()?, root, &["--metrics-bind-address=0", "--log-format=text"])?;
    let kubelet = driver.register().await?;
    say.done(
        "driver",
        &format!("certlet node runs, and the kubelet has registered {}", driver::NAME),
        started,
    );

    let pods = publish_all(&say, &kubelet, args).await?;
    let volumes: Vec<PathBuf> = pods.iter().map(|pod| kubelet.target(pod)).collect();
    let [client, server, ..] = volumes.as_slice() else { return Err("the demo needs two pods".into()) };
    show_files(&say, client)?;
    let name = format!("{}.shop.svc.cluster.local", pods[1].name);
    talk(&say, client, server, &name).await?;
    rotate(&say, client, args.duration).await?;
    talk(&say, client, server, &name).await?;
    if args.keep {
        keep(&say, &driver, &volumes).await?;
    }
    clean_up(&say, &kubelet, &pods, &mut driver).await
}

async fn publish_all(say: &Voice, kubelet: &Kubelet, args: &DemoArgs) -> Result<Vec<Pod>, Failure> {
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
        say.done(&name, &format!("certificate {} until {}", short(&leaf.serial), leaf.not_after), started);
        pods.push(pod);
    }
    Ok(pods)
}

fn show_files(say: &Voice, volume: &Path) -> Result<(), Failure> {
    let mut names: Vec<String> = std::fs::read_dir(volume)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, std::io::Error>>()?;
    names.retain(|name| !name.starts_with(".."));
    names.sort();
    say.note("files", &format!("{}: on tmpfs, read-only, key 0400", names.join(", ")));
    Ok(())
}

async fn talk(say: &Voice, client: &Path, server: &Path, name: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let talk = mtls::converse(client, server, name).await.map_err(|error| format!("mTLS: {error}"))?;
    say.done("mTLS", &format!("{} -> {} ({})", talk.client, talk.server, talk.protocol), started);
    say.note("", &format!("\"{}\"", talk.answer));
    Ok(())
}

/// Waits for one rotation with a watch open, as a sidecar would have it.
async fn rotate(say: &Voice, volume: &Path, duration: Duration) -> Result<(), Failure> {
    let before = leaf(volume)?;
    let mut swaps = Swaps::watch(volume)?;
    say.note(
        "rotation",
        &format!("waiting for {} to be renewed, well before it expires ...", short(&before.serial)),
    );
    let started = Instant::now();
    tokio::time::timeout(duration, swaps.next())
        .await
        .map_err(|_| format!("no rotation within the lifetime of {} s", duration.as_secs()))??;
    let (after, left) = (leaf(volume)?, crate::clock::until(Timestamp::now(), before.not_after));
    if after == before {
        return Err("the watch fired, but the certificate is the same".into());
    }
    say.done(
        "rotation",
        &format!(
            "{} -> {}, {:.1} s before expiry",
            short(&before.serial),
            short(&after.serial),
            left.as_secs_f64()
        ),
        started,
    );
    Ok(())
}

async fn keep(say: &Voice, driver: &Driver, volumes: &[PathBuf]) -> Result<(), Failure> {
    say.note("keep", "driver and volumes stay up, and rotate, until Ctrl-C; from another shell:");
    let nsenter = format!("nsenter --user --preserve-credentials --mount --target {}", driver.id());
    for volume in volumes.iter().take(2) {
        say.note("", &format!("{nsenter} ls -l {}", volume.display()));
    }
    say.note("", &format!("driver's log: {nsenter} cat {}", driver.root.join("driver.log").display()));
    Ok(tokio::signal::ctrl_c().await?)
}

async fn clean_up(say: &Voice, kubelet: &Kubelet, pods: &[Pod], driver: &mut Driver) -> Result<(), Failure> {
    let started = Instant::now();
    for pod in pods {
        kubelet
            .unpublish(pod)
            .await
            .map_err(|status| format!("unpublish of {}: {}", pod.name, status.message()))?;
    }
    if let Some(left) = pods.iter().map(|pod| kubelet.target(pod)).find(|target| target.exists()) {
        return Err(format!("{} is still there after unpublish", left.display()).into());
    }
    let data = driver.root.join("plugins").join(driver::NAME).join("data");
    if let Some(left) = crate::store::read_volumes(&data)?.first() {
        return Err(format!("the store still holds {} after unpublish", left.dir).into());
    }
    let ended = driver.stop()?;
    if !ended.success() {
        return Err(format!("the driver ended with {ended}").into());
    }
    say.done("the end", "unpublished: no mount, no file, no key left; driver stopped", started);
    Ok(())
}

fn short(serial: &str) -> &str {
    serial.get(..8).unwrap_or(serial)
}

/// How the demo speaks: a word in front, a sentence, the time it took.
struct Voice {
    color: bool,
}

impl Voice {
    fn new() -> Self {
        Self { color: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn title(&self, text: &str) {
        println!("\n{}\n", self.paint("1", text));
    }

    fn done(&self, word: &str, text: &str, started: Instant) {
        let took = started.elapsed();
        let took = if took.as_secs() > 0 {
            format!("{:.1} s", took.as_secs_f64())
        } else {
            format!("{:.1} ms", took.as_secs_f64() * 1e3)
        };
        let word = self.paint("32", &format!("{word:>10}"));
        println!("{word}  {text}  {}", self.paint("2", &format!("({took})")));
    }

    fn note(&self, word: &str, text: &str) {
        println!("{}  {text}", self.paint("36", &format!("{word:>10}")));
    }
}
