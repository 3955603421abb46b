//! The budgets, beside the measured values.

use super::{Idle, Line, Report, Restart, mib};
use crate::load::Load;

impl Report {
    /// Adds the budget lines to the report.
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
            lines.push(latency("1,000 per second, up to 50 in flight", &steady.publish));
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
                what: "CPU of the driver per publish, 50 in flight".to_owned(),
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
