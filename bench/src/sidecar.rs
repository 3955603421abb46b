//! The scene of the sidecar: how soon its pod has the first certificate, and what it costs until the pod ends.

use crate::Failure;
use crate::load::percentile;
use crate::process;
use crate::report::SidecarFigures;
use crate::scenes::{Bench, UNTIL_IDLE_THREADS_END, say};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many sidecars start, one after the other.
const STARTS: usize = 200;
/// How many renewals the CPU time is measured over.
const RENEWALS: usize = 20;
/// A sidecar that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Renewals a day at lifetimes of an hour: after two thirds of it, less up to a tenth.
const RENEWALS_A_DAY: f64 = 24.0 * 60.0 / 38.0;

impl Bench {
    pub(crate) async fn sidecar(&self) -> Result<SidecarFigures, Failure> {
        let starts = self.count(STARTS);
        say(&format!("{starts} starts of a sidecar"));
        let mut to_certificate = Vec::new();
        for number in 0..starts {
            let begun = Instant::now();
            let sidecar = self.start_sidecar(&format!("sc{number}"), &["duration=1h"])?;
            sidecar.generation(1).await?;
            to_certificate.push(begun.elapsed());
            sidecar.stop()?;
        }
        to_certificate.sort();
        say("a sidecar with a socket that renews");
        let socket = ["socket-file=spiffe.sock", "uri-sans=spiffe://example.org/ns/shop/sa/web"];
        let renewing = self.start_sidecar("renewing", &[&["duration=3s"], &socket[..]].concat())?;
        renewing.generation(2).await?;
        let renewals = self.count(RENEWALS) as u64;
        let before = process::cpu(renewing.id())?;
        renewing.generation(2 + renewals).await?;
        let cpu_per_renewal =
            process::cpu(renewing.id())?.saturating_sub(before).as_secs_f64() / renewals as f64;
        renewing.stop()?;
        say("a sidecar that waits");
        let waiting = self.start_sidecar("waiting", &[&["duration=1h"], &socket[..]].concat())?;
        waiting.generation(1).await?;
        tokio::time::sleep(UNTIL_IDLE_THREADS_END).await;
        let (before, begun) = (process::activity(waiting.id())?, Instant::now());
        tokio::time::sleep(Duration::from_secs(if self.quick { 5 } else { 30 })).await;
        let (after, seconds) = (process::activity(waiting.id())?, begun.elapsed().as_secs_f64());
        let idle_millicores = after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds * 1e3;
        let memory = process::memory(waiting.id())?;
        waiting.stop()?;
        Ok(SidecarFigures {
            starts,
            p50_ms: percentile(&to_certificate, 50).as_secs_f64() * 1e3,
            p99_ms: percentile(&to_certificate, 99).as_secs_f64() * 1e3,
            cpu_ms_per_renewal: cpu_per_renewal * 1e3,
            idle_millicores,
            switches_per_second: (after.switches - before.switches) as f64 / seconds,
            cpu_seconds_a_day: cpu_per_renewal * RENEWALS_A_DAY + idle_millicores * 86.4,
            memory,
        })
    }

    fn start_sidecar(&self, name: &str, attributes: &[&str]) -> Result<Sidecar, Failure> {
        let directory = self.root.join(name);
        fs::create_dir(&directory)?;
        let log = fs::File::create(self.root.join(format!("{name}.log")))?;
        let mut command = Command::new(&self.binary);
        command.arg("sidecar").arg("--directory").arg(&directory).args(&self.flags).args([
            "--allow-local-signer",
            "--min-renewal-interval=0",
            "--pod-namespace=shop",
            "--pod-name=web-0",
            "--pod-uid=b8f1",
            "--service-account=web",
            "--attributes=signer=local",
            "--attributes=dns-names=web.shop.svc",
        ]);
        command.args(attributes.iter().map(|attribute| format!("--attributes={attribute}")));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        Ok(Sidecar { directory, child })
    }
}

struct Sidecar {
    directory: PathBuf,
    child: Child,
}

impl Sidecar {
    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for this generation, or a later one.
    async fn generation(&self, number: u64) -> Result<(), Failure> {
        let begun = Instant::now();
        while generation_in(&self.directory).is_none_or(|live| live < number) {
            if begun.elapsed() > TIMEOUT * u32::try_from(number)? {
                return Err(format!("no generation {number} in {}", self.directory.display()).into());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    /// Ends it with a SIGTERM.
    fn stop(mut self) -> Result<(), Failure> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the sidecar ended with {status}").into()) }
    }
}

/// The number of the live generation.
fn generation_in(directory: &Path) -> Option<u64> {
    fs::read_link(directory.join("..data")).ok()?.to_str()?.strip_prefix("..")?.parse().ok()
}
