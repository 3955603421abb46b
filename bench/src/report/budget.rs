//! The budgets, beside the measured values.

use super::{APIS, Idle, Line, Report, Restart, mib};
use crate::load::Load;
use crate::sockets::{Figures, Renewals, Round};

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
        if let Some(sockets) = &self.sockets {
            self.budget.extend(socket_lines(sockets));
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

/// The budgets of the sockets, with the medians of all rounds. They are certlet's, not SPIRE's.
fn socket_lines(figures: &Figures) -> Vec<Line> {
    const PROGRAM: &str = "certlet";
    let streams = figures.streams;
    let median = |figure: fn(&Round) -> f64| figures.spread(PROGRAM, figure).median;
    let latency = |api: &str, when: &str, p50: f64, p99: f64| Line {
        what: format!("{api}, {streams} streams, {when}: verified to client, p50 / p99"),
        target: "p99 under 10 ms",
        measured: format!("{p50:.2} / {p99:.2} ms"),
        met: p99 < 10.0,
    };
    let mut lines = Vec::new();
    for (api, renewals) in APIS {
        let of =
            |figure: fn(&Renewals) -> f64| figures.spread(PROGRAM, |round| figure(renewals(round))).median;
        let (p50, p99) = (of(|of| of.one_by_one.p50_ms), of(|of| of.one_by_one.p99_ms));
        lines.push(latency(api, "one by one", p50, p99));
        lines.push(latency(api, "all at once", of(|of| of.at_once.p50_ms), of(|of| of.at_once.p99_ms)));
    }
    let millicores = median(|round| round.idle.millicores);
    lines.push(Line {
        what: format!("{streams} open streams, idle: CPU"),
        target: "0 millicores",
        measured: format!("{millicores:.2} millicores"),
        met: millicores < 0.05,
    });
    let resident = median(|round| mib(round.idle.memory.resident));
    lines.push(Line {
        what: format!("{streams} open streams: memory, resident"),
        target: "under 32 MiB",
        measured: format!("{resident:.1} MiB"),
        met: resident < 32.0,
    });
    lines
}
