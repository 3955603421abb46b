//! The scenes: what is measured, in order.

use crate::Failure;
use crate::node::{Node, Pods};
use crate::process::{self, Activity};
use crate::report::{Idle, Machine, Renewal, Report, Restart, Series};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Settings of the benchmark.
pub(crate) struct Bench {
    pub(crate) binary: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) flags: Vec<String>,
    pub(crate) quick: bool,
    pub(crate) only: Option<String>,
    /// The directory of SPIRE's programs.
    pub(crate) spire: Option<PathBuf>,
    /// How often the scene of the sockets runs.
    pub(crate) rounds: usize,
}

const ECDSA: (&str, &[(&str, &str)]) = ("ECDSA P-256", &[]);
const RSA: (&str, &[(&str, &str)]) = ("RSA 2048", &[("key-algorithm", "RSA"), ("key-size", "2048")]);

/// With these attributes renewals fall due nine to ten seconds after the issue. Jitter is up to a tenth of the ten seconds
/// that `renew-before` leaves.
pub(crate) const DUE_AFTER_TEN_SECONDS: [(&str, &str); 2] = [("duration", "1h"), ("renew-before", "59m50s")];
/// After this time all volumes with these attributes are due.
const UNTIL_ALL_DUE: Duration = Duration::from_millis(10_200);

/// After this time the runtime has ended its idle threads for blocking work.
pub(crate) const UNTIL_IDLE_THREADS_END: Duration = Duration::from_secs(11);

impl Bench {
    pub(crate) async fn run(&self) -> Result<Report, Failure> {
        let mut report = Report::new(Machine::here(), &self.binary, &self.flags, self.quick)?;
        if self.wants("publish") {
            self.publish(&mut report).await?;
        }
        if self.wants("idle") || self.wants("restart") {
            self.idle_and_restart(&mut report).await?;
        }
        if self.wants("renewal") {
            report.renewal = Some(self.renewal().await?);
        }
        if self.wants("trust") {
            report.trust = Some(self.trust().await?);
        }
        if self.wants("sidecar") {
            report.sidecar = Some(self.sidecar().await?);
        }
        if self.wants("sockets") {
            report.sockets = Some(self.sockets().await?);
        }
        Ok(report)
    }

    fn wants(&self, scene: &str) -> bool {
        self.only.as_deref().is_none_or(|only| scene.starts_with(only))
    }

    pub(crate) fn count(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    async fn node(&self, name: &str) -> Result<Node, Failure> {
        self.node_with(name, &[]).await
    }

    pub(crate) async fn node_with(&self, name: &str, flags: &[&str]) -> Result<Node, Failure> {
        let flags: Vec<String> =
            self.flags.iter().cloned().chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
        Ok(Node::start(&self.binary, &self.root.join(name), &flags).await?.0)
    }

    /// Measures every mix of volumes, keys and calls in flight, on one driver. Each mix begins without volumes.
    async fn publish(&self, report: &mut Report) -> Result<(), Failure> {
        let node = self.node("p").await?;
        let warm = node.pods(50, ECDSA.1)?;
        node.publish(&warm, 10).await?;
        node.unpublish(&warm, 10).await?;
        for (key, volumes) in [(ECDSA, self.count(250)), (ECDSA, self.count(1000)), (RSA, self.count(60))] {
            for in_flight in [1, 10, 50] {
                let pods = node.pods(volumes, key.1)?;
                say(&format!("publish {volumes} volumes, {}, {in_flight} in flight", key.0));
                let published = node.publish(&pods, in_flight).await?;
                let unpublished = node.unpublish(&pods, in_flight).await?;
                report.series.push(Series::new("as many as allowed", key.0, published, unpublished));
            }
        }
        let pods = node.pods(self.count(250), ECDSA.1)?;
        say("publish with a connection for each call");
        let published = node.publish_connecting(&pods).await?;
        report.series.push(Series::new(
            "a connection for each call",
            ECDSA.0,
            published,
            node.unpublish(&pods, 10).await?,
        ));
        let pods = node.pods(self.count(2000), ECDSA.1)?;
        say("publish 1,000 per second");
        let published = node.publish_steadily(&pods, 1000, 50).await?;
        report.series.push(Series::new(
            "1,000 per second",
            ECDSA.0,
            published,
            node.unpublish(&pods, 10).await?,
        ));
        report.memory_after_load = Some(process::memory(node.id())?);
        node.stop()
    }

    /// Measures an idle driver with 250 and then with 1,000 volumes, and how soon it is ready after a kill -9.
    async fn idle_and_restart(&self, report: &mut Report) -> Result<(), Failure> {
        let mut node = self.node("i").await?;
        let pods = [node.pods(self.count(250), ECDSA.1)?, node.pods(self.count(1000), ECDSA.1)?];
        for pods in &pods {
            // The larger set contains the smaller. Publishing a volume again changes nothing.
            node.publish(pods, 50).await?;
            if self.wants("idle") {
                report.idle.push(self.idle(&node, pods.count()).await?);
            }
        }
        let [_, all] = &pods;
        if self.wants("restart") {
            let mut restart = Restart { volumes: all.count(), ..Restart::default() };
            for _ in 0..5 {
                say(&format!("kill -9, and start again with {} volumes", all.count()));
                // Dropping the node kills the driver with SIGKILL and waits for it.
                drop(node);
                let (next, start) = Node::start(&self.binary, &self.root.join("i"), &self.flags).await?;
                node = next;
                restart.answers_ms.push(start.answers.as_secs_f64() * 1e3);
                restart.registered_ms.push(start.registered.as_secs_f64() * 1e3);
            }
            restart.stats = Some(node.stats(all).await?);
            restart.republish = Some(node.publish(all, 10).await?.0);
            report.restart = Some(restart);
        }
        node.unpublish(all, 50).await?;
        node.stop()
    }

    async fn idle(&self, node: &Node, volumes: usize) -> Result<Idle, Failure> {
        say(&format!("idle with {volumes} volumes"));
        let span = Duration::from_secs(if self.quick { 2 } else { 10 });
        tokio::time::sleep(UNTIL_IDLE_THREADS_END).await;
        let (begun, before) = (Instant::now(), process::activity(node.id())?);
        tokio::time::sleep(span).await;
        let Activity { cpu, switches, threads } = process::activity(node.id())?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Idle {
            volumes,
            seconds,
            millicores: cpu.saturating_sub(before.cpu).as_secs_f64() * 1e3 / seconds,
            switches_per_second: switches.saturating_sub(before.switches) as f64 / seconds,
            threads,
            memory: process::memory(node.id())?,
        })
    }

    /// Stops the driver until every volume is due, as a suspend would. Then the driver has to renew all volumes at once.
    async fn renewal(&self) -> Result<Renewal, Failure> {
        let node = self.node_with("r", &["--min-renewal-interval=1s"]).await?;
        let pods = node.pods(self.count(1000), &DUE_AFTER_TEN_SECONDS)?;
        node.publish(&pods, 50).await?;
        node.signal(Signal::SIGSTOP)?;
        say(&format!("waiting until {} volumes are due", pods.count()));
        tokio::time::sleep(UNTIL_ALL_DUE).await;
        let (before, cpu) = (pods.generations()?, process::cpu(node.id())?);
        let begun = Instant::now();
        node.signal(Signal::SIGCONT)?;
        wait_for_renewals(&pods, &before).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = process::cpu(node.id())?.saturating_sub(cpu);
        let memory = process::memory(node.id())?;
        node.unpublish(&pods, 50).await?;
        node.stop()?;
        Ok(Renewal {
            volumes: pods.count(),
            seconds,
            rate: pods.count() as f64 / seconds,
            driver_cpu_ms: cpu.as_secs_f64() * 1e3 / pods.count() as f64,
            memory,
        })
    }
}

async fn wait_for_renewals(pods: &Pods, before: &[PathBuf]) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let old = pods.generations()?.iter().zip(before).filter(|(now, before)| now == before).count();
        if old == 0 {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_mins(1) {
            return Err(format!("{old} volumes have not been renewed within a minute").into());
        }
    }
}

pub(crate) fn say(text: &str) {
    println!("  {text}");
}
