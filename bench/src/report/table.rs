//! Prints the report as tables for people.

use super::{APIS, Idle, Line, Machine, Renewal, Report, Restart, SidecarFigures, mib};
use crate::load::Load;
use crate::process::Memory;
use crate::sockets::{Figures, Renewals, Round, Spread};
use std::fmt;

/// A line of the table: what it shows, and where the figure is.
type Row<T> = (&'static str, fn(&T) -> f64);

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
        if !self.series.is_empty() {
            self.show_series(f)?;
        }
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
        if let Some(sidecar) = &self.sidecar {
            writeln!(f, "{sidecar}")?;
        }
        if let Some(trust) = &self.trust {
            writeln!(
                f,
                "changed trust source, {} volumes, {} changes: to the last volume p50 {:.0} ms, p99 {:.0} ms; {:.0} ms CPU a change, {:.2} ms a volume",
                trust.volumes,
                trust.changes,
                trust.p50_ms,
                trust.p99_ms,
                trust.driver_cpu_ms,
                trust.driver_cpu_ms_per_volume
            )?;
        }
        self.sockets.as_ref().map_or(Ok(()), |figures| show_sockets(figures, f))
    }
}

impl fmt::Display for SidecarFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sidecar, {} starts: to the first certificate p50 {:.1} ms, p99 {:.1} ms; {:.2} ms CPU a renewal; waiting: {:.2} mc, {:.1} \
             switches/s, {}; {:.1} s CPU a day at lifetimes of an hour",
            self.starts,
            self.p50_ms,
            self.p99_ms,
            self.cpu_ms_per_renewal,
            self.idle_millicores,
            self.switches_per_second,
            Shown(&self.memory),
            self.cpu_seconds_a_day
        )
    }
}

/// A line for each figure, and a column for each program: the median, the least and the most of its rounds.
fn show_sockets(figures: &Figures, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let programs = figures.programs();
    write!(f, "\n{:<64}", "sockets: median (least-most) of the rounds")?;
    for program in &programs {
        write!(f, " {program:>26}")?;
    }
    writeln!(f)?;
    let mut line = |what: String, digits: usize, spread: &dyn Fn(&str) -> Spread| {
        write!(f, "{what:<64}")?;
        for program in &programs {
            write!(f, " {:>26}", format!("{:.digits$}", spread(program)))?;
        }
        writeln!(f)
    };
    for (api, renewals) in APIS {
        let rows: [Row<Renewals>; 8] = [
            ("one by one, renewals", |of| of.one_by_one.renewals as f64),
            ("one by one, verified to client p50, ms", |of| of.one_by_one.p50_ms),
            ("one by one, verified to client p99, ms", |of| of.one_by_one.p99_ms),
            ("all at once, verified to client p50, ms", |of| of.at_once.p50_ms),
            ("all at once, verified to client p99, ms", |of| of.at_once.p99_ms),
            ("all at once, verified to client longest, ms", |of| of.at_once.longest_ms),
            ("all at once, until the last has its certificate, s", |of| of.seconds),
            ("all at once, CPU for each, ms", |of| of.cpu_ms),
        ];
        for (what, figure) in rows {
            let spread = |program: &str| figures.spread(program, |round| figure(renewals(round)));
            line(format!("{api}: {what}"), 2, &spread)?;
        }
    }
    let rows: [Row<Round>; 6] = [
        ("idle, millicores", |round| round.idle.millicores),
        ("idle, context switches per second", |round| round.idle.switches_per_second),
        ("idle, threads", |round| round.idle.threads as f64),
        ("memory, resident, MiB", |round| mib(round.idle.memory.resident)),
        ("memory, anonymous, MiB", |round| mib(round.idle.memory.anonymous)),
        ("memory, resident at its peak, MiB", |round| mib(round.idle.memory.peak)),
    ];
    for (what, figure) in rows {
        line(format!("{} open streams: {what}", figures.streams), 2, &|program| {
            figures.spread(program, figure)
        })?;
    }
    line("kill -9 until every stream has a message again, ms".to_owned(), 0, &|program| {
        figures.streams_back(program)
    })
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
