//! The report: the numbers as tables beside the budgets, and as JSON.

mod budget;
mod table;

use crate::Failure;
use crate::load::Load;
use crate::node::CpuPerCall;
use crate::process::{self, Memory};
use crate::sockets::{Figures, Renewals, Round};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// An API of a socket, and its part of a round.
type Api = (&'static str, fn(&Round) -> &Renewals);

/// The APIs of a socket.
const APIS: [Api; 2] = [("Workload API", |round| &round.workload_api), ("SDS", |round| &round.sds)];

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) driver: Driver,
    /// Whether fewer volumes were measured than the budgets are for.
    pub(crate) quick: bool,
    pub(crate) budget: Vec<Line>,
    pub(crate) series: Vec<Series>,
    pub(crate) memory_after_load: Option<Memory>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) restart: Option<Restart>,
    pub(crate) renewal: Option<Renewal>,
    pub(crate) trust: Option<TrustChange>,
    pub(crate) sidecar: Option<SidecarFigures>,
    pub(crate) sockets: Option<Figures>,
}

/// The machine that measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    /// Load average of the last minute before the first call.
    load_average: String,
}

/// The driver that was measured: size of the binary, and flags.
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

/// A run of publishes, and the unpublishes after it.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    calls_come: &'static str,
    key: &'static str,
    publish: Load,
    /// CPU time of the driver per publish, in milliseconds.
    driver_cpu_ms: f64,
    /// The same of the client, which shares the machine.
    client_cpu_ms: f64,
    unpublish: Load,
    unpublish_driver_cpu_ms: f64,
}

/// An idle driver.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) volumes: usize,
    pub(crate) seconds: f64,
    pub(crate) millicores: f64,
    pub(crate) switches_per_second: f64,
    pub(crate) threads: u64,
    pub(crate) memory: Memory,
}

/// Restarts after a kill -9.
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

/// What a sidecar costs.
#[derive(Debug, Serialize)]
pub(crate) struct SidecarFigures {
    /// How many sidecars were started.
    pub(crate) starts: usize,
    /// From the start of the process to the first certificate, with the local signer.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_ms_per_renewal: f64,
    pub(crate) idle_millicores: f64,
    pub(crate) switches_per_second: f64,
    /// At lifetimes of an hour.
    pub(crate) cpu_seconds_a_day: f64,
    /// Of one that waits, with a socket.
    pub(crate) memory: Memory,
}

/// Changes of a trust source that all volumes use.
#[derive(Debug, Serialize)]
pub(crate) struct TrustChange {
    pub(crate) volumes: usize,
    pub(crate) changes: usize,
    /// Until the last volume has it: median of the changes.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU time of the driver for a change.
    pub(crate) driver_cpu_ms: f64,
    pub(crate) driver_cpu_ms_per_volume: f64,
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
            load_average: process::load_average(),
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
            trust: None,
            sidecar: None,
            sockets: None,
        })
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
