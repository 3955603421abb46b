//! The numbers, as a table beside the budget and as JSON.

use crate::Failure;
use crate::load::Load;
use crate::node::CpuPerCall;
use crate::process::Memory;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::path::Path;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) driver: Driver,
    /// Fewer volumes than the budget speaks of.
    pub(crate) quick: bool,
    pub(crate) budget: Vec<Line>,
    pub(crate) series: Vec<Series>,
    pub(crate) memory_after_load: Option<Memory>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) restart: Option<Restart>,
    pub(crate) renewal: Option<Renewal>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    /// Of the last minute, before the first call.
    load_average: String,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Driver {
    bytes: u64,
    flags: Vec<String>,
}

/// One line of the budget.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    what: String,
    target: &'static str,
    measured: String,
    met: bool,
}

/// A run of publishes, and of the unpublishes after it.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    calls_come: &'static str,
    key: &'static str,
    publish: Load,
    /// Milliseconds of CPU a publish, in the driver.
    driver_cpu_ms: f64,
    /// The same in the client, which shares the machine.
    client_cpu_ms: f64,
    unpublish: Load,
    unpublish_driver_cpu_ms: f64,
}

/// A driver at rest.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) volumes: usize,
    pub(crate) seconds: f64,
    pub(crate) millicores: f64,
    pub(crate) switches_per_second: f64,
    pub(crate) threads: u64,
    pub(crate) memory: Memory,
}

/// Starts after a kill -9.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Restart {
    pub(crate) volumes: usize,
    pub(crate) answers_ms: Vec<f64>,
    pub(crate) registered_ms: Vec<f64>,
    /// NodeGetVolumeStats of every volume.
    pub(crate) stats: Option<Load>,
    /// NodePublishVolume of volumes that are mounted and valid.
    pub(crate) republish: Option<Load>,
}

/// Volumes that fell due together.
#[derive(Debug, Serialize)]
pub(crate) struct Renewal {
    pub(crate) volumes: usize,
    pub(crate) seconds: f64,
    pub(crate) rate: f64,
    pub(crate) driver_cpu_ms: f64,
    pub(crate) memory: Memory,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo");
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: processor.map_or_else(String::new, |(_, name)| name.to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl Series {
    pub(crate) fn new(
        calls_come: &'static str,
        key: &'static str,
        (publish, cpu): (Load, CpuPerCall),
        (unpublish, unpublish_cpu): (Load, CpuPerCall),
    ) -> Self {
        Self {
            calls_come,
            key,
            publish,
            driver_cpu_ms: cpu.driver_ms,
            client_cpu_ms: cpu.client_ms,
            unpublish,
            unpublish_driver_cpu_ms: unpublish_cpu.driver_ms,
        }
    }
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        binary: &Path,
        flags: &[String],
        quick: bool,
    ) -> Result<Self, Failure> {
        Ok(Self {
            machine,
            driver: Driver { bytes: fs::metadata(binary)?.len(), flags: flags.to_vec() },
            quick,
            budget: Vec::new(),
            series: Vec::new(),
            memory_after_load: None,
            idle: Vec::new(),
            restart: None,
            renewal: None,
        })
    }

    /// Puts what was measured beside the budget.
    pub(crate) fn with_budget(mut self) -> Self {
        self.budget = self.publish_lines();
        if let Some(idle) = self.idle.first() {
            self.budget.extend(idle.lines());
        }
        if let Some(restart) = &self.restart {
            self.budget.push(restart.line());
        }
        self
    }

    fn publish_lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let ecdsa = || self.series.iter().filter(|series| series.key.starts_with("ECDSA"));
        let closed = |in_flight| {
            ecdsa()
                .filter(|series| {
                    series.calls_come.starts_with("as many") && series.publish.in_flight == in_flight
                })
                .max_by_key(|series| series.publish.calls)
        };
        let latency = |how: &str, load: &Load| Line {
            what: format!("publish, local signer, ECDSA, {how}: p50 / p99"),
            target: "2 / 10 ms",
            measured: format!("{:.2} / {:.2} ms", load.p50_ms, load.p99_ms),
            met: load.p50_ms <= 2.0 && load.p99_ms <= 10.0,
        };
        if let Some(one) = closed(1) {
            lines.push(latency("1 in flight", &one.publish));
        }
        if let Some(steady) = ecdsa().find(|series| series.calls_come.starts_with("1,000")) {
            lines.push(latency("1,000 a second, up to 50 in flight", &steady.publish));
        }
        if let Some(fifty) = closed(50) {
            lines.push(latency("always 50 in flight", &fifty.publish));
            lines.push(Line {
                what: "publish rate, local signer, ECDSA, 50 in flight".to_owned(),
                target: "over 1,000/s",
                measured: format!("{:.0}/s", fifty.publish.rate),
                met: fifty.publish.rate > 1000.0,
            });
            lines.push(Line {
                what: "CPU of the driver a publish, 50 in flight".to_owned(),
                target: "under 1 ms",
                measured: format!(
                    "{:.2} ms (and the client's {:.2} ms)",
                    fifty.driver_cpu_ms, fifty.client_cpu_ms
                ),
                met: fifty.driver_cpu_ms < 1.0,
            });
        }
        lines
    }
}

impl Idle {
    fn lines(&self) -> [Line; 3] {
        [
            Line {
                what: format!("idle with {} volumes: CPU", self.volumes),
                target: "under 1 millicore",
                measured: format!("{:.3} millicores", self.millicores),
                met: self.millicores < 1.0,
            },
            Line {
                what: format!("idle with {} volumes: context switches", self.volumes),
                target: "under 5/s",
                measured: format!("{:.1}/s", self.switches_per_second),
                met: self.switches_per_second < 5.0,
            },
            Line {
                what: format!("memory with {} volumes, resident", self.volumes),
                target: "under 20 MiB",
                measured: format!("{:.1} MiB", mib(self.memory.resident)),
                met: mib(self.memory.resident) < 20.0,
            },
        ]
    }
}

impl Restart {
    fn line(&self) -> Line {
        let worst = self.registered_ms.iter().copied().fold(0.0, f64::max);
        Line {
            what: format!(
                "ready after kill -9 with {} volumes, worst of {}",
                self.volumes,
                self.registered_ms.len()
            ),
            target: "under 1 s",
            measured: format!("{worst:.0} ms"),
            met: worst < 1000.0,
        }
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, processor, kernel, load_average } = &self.machine;
        writeln!(f, "{cores} cores ({processor}), Linux {kernel}, load average before {load_average}")?;
        if self.quick {
            writeln!(f, "--quick: too few volumes for the budget")?;
        }
        writeln!(f, "\n{:<82} {:<18} {:<7} measured", "what", "target", "")?;
        for Line { what, target, measured, met } in &self.budget {
            writeln!(f, "{what:<82} {target:<18} {:<7} {measured}", if *met { "met" } else { "MISSED" })?;
        }
        self.show_series(f)?;
        for Idle { volumes, millicores, switches_per_second, threads, memory, .. } in &self.idle {
            writeln!(
                f,
                "idle, {volumes} volumes: {millicores:.3} millicores, {switches_per_second:.1} switches/s, {threads} threads, {}",
                Shown(memory)
            )?;
        }
        if let Some(memory) = &self.memory_after_load {
            writeln!(f, "memory right after all publishes above: {}", Shown(memory))?;
        }
        if let Some(Restart { volumes, answers_ms, registered_ms, stats, republish }) = &self.restart {
            writeln!(
                f,
                "restart with {volumes} volumes: answers after {answers_ms:.0?} ms, registered after {registered_ms:.0?} ms"
            )?;
            for (what, load) in [("volume stats", stats), ("republish", republish)] {
                if let Some(Load { rate, p50_ms, p99_ms, in_flight, .. }) = load {
                    writeln!(f, "{what}, {in_flight} in flight: {rate:.0}/s, {p50_ms:.2} / {p99_ms:.2} ms")?;
                }
            }
        }
        if let Some(Renewal { volumes, seconds, rate, driver_cpu_ms, memory }) = &self.renewal {
            writeln!(
                f,
                "renewal of {volumes} volumes that fell due together: {seconds:.2} s, {rate:.0}/s, {driver_cpu_ms:.2} ms CPU each, {}",
                Shown(memory)
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn show_series(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<28} {:<12} {:>6} {:>6} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10} {:>11} {:>9} {:>10}",
            "calls come",
            "key",
            "calls",
            "flight",
            "rate/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "driver ms",
            "client ms",
            "unpublish/s",
            "p99 ms",
            "driver ms"
        )?;
        for series in &self.series {
            let (publish, unpublish) = (&series.publish, &series.unpublish);
            writeln!(
                f,
                "{:<28} {:<12} {:>6} {:>6} {:>8.0} {:>8.2} {:>8.2} {:>8.2} {:>10.2} {:>10.2} {:>11.0} {:>9.2} {:>10.2}",
                series.calls_come,
                series.key,
                publish.calls,
                publish.in_flight,
                publish.rate,
                publish.p50_ms,
                publish.p99_ms,
                publish.longest_ms,
                series.driver_cpu_ms,
                series.client_cpu_ms,
                unpublish.rate,
                unpublish.p99_ms,
                series.unpublish_driver_cpu_ms
            )?;
        }
        writeln!(f)
    }
}

/// Memory, for people.
struct Shown<'a>(&'a Memory);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { resident, peak, anonymous, proportional } = self.0;
        write!(f, "{:.1} MiB resident ({:.1} anonymous", mib(*resident), mib(*anonymous))?;
        if let Some(proportional) = proportional {
            write!(f, ", {:.1} proportional", mib(*proportional))?;
        }
        write!(f, "), {:.1} at its peak", mib(*peak))
    }
}
