//! Runs an operation many times, some of them at once, and measures how long each takes.

use crate::Failure;
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::time::ClockId;
use std::time::{Duration, Instant};

/// How many operations, and how many of them at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) in_flight: usize,
    pub(crate) count: usize,
}

/// How long each operation took, sorted, and how long all took together.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    times: Vec<Duration>,
    all: Duration,
    /// CPU time of this process during the run.
    cpu: Duration,
    /// CPU time of the driver during the run.
    pub(crate) driver_cpu: Duration,
}

impl Measured {
    /// Adds another round of the same load.
    pub(crate) fn add(&mut self, round: Self) {
        self.times.extend(round.times);
        self.times.sort_unstable();
        self.all += round.all;
        self.cpu += round.cpu;
        self.driver_cpu += round.driver_cpu;
    }

    /// Number of operations.
    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    /// A percentile of the durations, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    /// CPU time per operation in milliseconds: of this process, and of the driver.
    pub(crate) fn cpu(&self) -> [f64; 2] {
        [self.cpu, self.driver_cpu].map(|cpu| cpu.as_secs_f64() * 1000.0 / self.times.len() as f64)
    }

    /// Percent of the machine's CPU that this process and the driver have used. On a machine without idle CPU the issuer lacks
    /// this share.
    pub(crate) fn share_of_machine(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        100.0 * (self.cpu + self.driver_cpu).as_secs_f64() / (self.all.as_secs_f64() * cores as f64)
    }

    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.all.as_secs_f64()
    }
}

impl Load {
    /// Runs `one` for each number from 0 to `count` - 1.
    pub(crate) async fn run(
        self,
        one: impl AsyncFn(usize) -> Result<(), Failure>,
    ) -> Result<Measured, Failure> {
        let (begin, cpu) = (Instant::now(), own_cpu()?);
        let one = &one;
        let mut times: Vec<Duration> = stream::iter(0..self.count)
            .map(|n| async move {
                let begin = Instant::now();
                one(n).await?;
                Ok::<_, Failure>(begin.elapsed())
            })
            .buffer_unordered(self.in_flight)
            .try_collect()
            .await?;
        times.sort_unstable();
        Ok(Measured {
            times,
            all: begin.elapsed(),
            cpu: own_cpu()?.saturating_sub(cpu),
            driver_cpu: Duration::ZERO,
        })
    }
}

fn own_cpu() -> Result<Duration, Failure> {
    Ok(ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?.into())
}
