//! What the scene of the sockets measured.

use crate::load::percentile;
use crate::report::Idle;
use serde::Serialize;
use std::time::Duration;

/// All rounds of all programs, in the order in which they ran.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) streams: usize,
    pub(crate) rounds: Vec<Round>,
}

/// One program, measured once.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) program: &'static str,
    /// Load average of the last minute before the round.
    pub(crate) load_average: String,
    pub(crate) workload_api: Renewals,
    pub(crate) sds: Renewals,
    pub(crate) idle: Idle,
    /// From each kill -9 until every client has a message again, in milliseconds.
    pub(crate) streams_back_ms: Vec<f64>,
}

/// How soon renewed certificates reached their clients.
#[derive(Debug, Serialize)]
pub(crate) struct Renewals {
    pub(crate) one_by_one: Latency,
    pub(crate) at_once: Latency,
    /// Until the last of those that were due at once was received, in seconds.
    pub(crate) seconds: f64,
    /// CPU time of the program for each of those, in milliseconds.
    pub(crate) cpu_ms: f64,
}

/// Times from a verified certificate to the client's receipt, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) renewals: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) longest_ms: f64,
}

impl Latency {
    pub(crate) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let ms = |quantile| percentile(&took, quantile).as_secs_f64() * 1e3;
        Self { renewals: took.len(), p50_ms: ms(50), p99_ms: ms(99), longest_ms: ms(100) }
    }
}

/// One figure over all rounds of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Figures {
    /// The programs, certlet first.
    pub(crate) fn programs(&self) -> Vec<&'static str> {
        let mut programs: Vec<&str> = Vec::new();
        for round in &self.rounds {
            if !programs.contains(&round.program) {
                programs.push(round.program);
            }
        }
        programs
    }

    /// A figure of each of the program's rounds.
    pub(crate) fn spread(&self, program: &str, figure: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds.iter().filter(|round| round.program == program).map(figure).collect())
    }

    /// The time until the streams were back, over all kills.
    pub(crate) fn streams_back(&self, program: &str) -> Spread {
        let rounds = self.rounds.iter().filter(|round| round.program == program);
        Spread::of(rounds.flat_map(|round| round.streams_back_ms.iter().copied()).collect())
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), least: at(0), most: at(values.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Self { median, least, most } = self;
        write!(f, "{median:.digits$} ({least:.digits$}-{most:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_shows_median_least_and_most() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(format!("{spread:.1}"), "2.0 (1.0-3.0)");
    }
}
