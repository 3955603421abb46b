//! Prints the report as tables for people.

use super::{Idle, Line, Machine, Renewal, Report, Restart, mib};
use crate::load::Load;
use crate::process::Memory;
use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, processor, kernel, load_average } = &self.machine;
        writeln!(f, "{cores} cores ({processor}), Linux {kernel}, load average before {load_average}")?;
        if self.quick {
            writeln!(f, "--quick: too few volumes to compare with the budgets")?;
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

/// Prints memory for people.
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
