//! The scene of the sockets: how soon a renewed certificate reaches its client, what open streams cost, and how soon they are
//! back after a kill -9. It measures certlet, and SPIRE's agent in alternation with it if there is one.

mod agent;
pub(crate) mod client;
mod clients;
mod figures;
mod spire;

pub(crate) use figures::{Figures, Renewals, Round, Spread};

use crate::Failure;
use crate::process;
use crate::scenes::{Bench, UNTIL_IDLE_THREADS_END, say};
use agent::{Agent, Certlet, CertletSetup, Due};
use client::Api;
use clients::{Clients, Moment};
use figures::Latency;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use spire::Spire;
use std::path::Path;
use std::time::{Duration, Instant};

/// In this time every certificate is renewed once or twice, each by itself.
const RENEWALS_ONE_BY_ONE: Duration = Duration::from_secs(13);
/// After this time without CPU, every certificate is due: ten seconds with certlet, twelve with SPIRE.
const UNTIL_ALL_DUE: Duration = Duration::from_millis(12_500);
/// Renewals that take longer count as lost.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How often each round kills the program.
const KILLS: usize = 3;

impl Bench {
    /// Measures certlet once, or certlet and SPIRE `rounds` times in alternation.
    pub(crate) async fn sockets(&self) -> Result<Figures, Failure> {
        let certlet = CertletSetup { binary: self.binary.clone(), flags: self.flags.clone() };
        let rounds = if self.quick { 1 } else { self.rounds };
        let mut figures = Figures { streams: self.count(250), rounds: Vec::new() };
        for number in 0..rounds {
            figures.rounds.push(self.socket_round::<Certlet>(&certlet, number).await?);
            if let Some(spire) = &self.spire {
                figures.rounds.push(self.socket_round::<Spire>(spire, number).await?);
            }
        }
        Ok(figures)
    }

    async fn socket_round<A: Agent>(&self, setup: &A::Setup, number: usize) -> Result<Round, Failure> {
        let root = |part: &str| self.root.join(format!("{}{number}{part}", A::NAME));
        let load_average = process::load_average();
        let workload_api = self.renewals::<A>(setup, &root("w"), Api::Workload).await?;
        let sds = self.renewals::<A>(setup, &root("s"), Api::Sds).await?;
        let (idle, streams_back_ms) = self.open_streams::<A>(setup, &root("i")).await?;
        Ok(Round { program: A::NAME, load_average, workload_api, sds, idle, streams_back_ms })
    }

    /// Renewals that come one after the other, then all at once: the program is stopped until every certificate is due, as a
    /// suspend would.
    async fn renewals<A: Agent>(&self, setup: &A::Setup, root: &Path, api: Api) -> Result<Renewals, Failure> {
        let count = self.count(250);
        say(&format!("{}: renewals with {count} streams, {api:?}", A::NAME));
        let agent = A::start(setup, root, count, Due::Soon).await?;
        let clients = Clients::start(api, &agent.targets(), &root.join("clients")).await?;
        let begun = Timestamp::now();
        tokio::time::sleep(RENEWALS_ONE_BY_ONE).await;
        agent.signal(Signal::SIGSTOP)?;
        let stopped = Timestamp::now();
        tokio::time::sleep(UNTIL_ALL_DUE).await;
        let (resumed, cpu) = (Timestamp::now(), process::cpu(agent.id())?);
        agent.signal(Signal::SIGCONT)?;
        let at_once = wait_for_all(&agent, &clients, resumed, count).await?;
        let cpu = process::cpu(agent.id())?.saturating_sub(cpu);
        // A renewal that the stop interrupted is of neither kind.
        let settled = stopped - Duration::from_millis(500);
        let one_by_one = latencies(&agent.renewals()?, &clients.receipts()?, begun..settled);
        drop(clients);
        agent.stop()?;
        Ok(Renewals {
            one_by_one: Latency::of(one_by_one),
            seconds: at_once.seconds,
            cpu_ms: cpu.as_secs_f64() * 1e3 / at_once.latencies.len() as f64,
            at_once: Latency::of(at_once.latencies),
        })
    }

    /// The cost of open streams where nothing is due, and the time until they are back after a kill -9.
    async fn open_streams<A: Agent>(
        &self,
        setup: &A::Setup,
        root: &Path,
    ) -> Result<(crate::report::Idle, Vec<f64>), Failure> {
        let count = self.count(250);
        say(&format!("{}: {count} open streams, idle", A::NAME));
        let mut agent = A::start(setup, root, count, Due::Later).await?;
        let clients = Clients::start(Api::Workload, &agent.targets(), &root.join("clients")).await?;
        tokio::time::sleep(UNTIL_IDLE_THREADS_END).await;
        let span = Duration::from_secs(if self.quick { 2 } else { 30 });
        let (begun, cpu, before) =
            (Instant::now(), process::cpu(agent.id())?, process::activity(agent.id())?.switches);
        tokio::time::sleep(span).await;
        let cpu = process::cpu(agent.id())?.saturating_sub(cpu);
        let activity = process::activity(agent.id())?;
        let seconds = begun.elapsed().as_secs_f64();
        let idle = crate::report::Idle {
            volumes: count,
            seconds,
            millicores: cpu.as_secs_f64() * 1e3 / seconds,
            switches_per_second: activity.switches.saturating_sub(before) as f64 / seconds,
            threads: activity.threads,
            memory: process::memory(agent.id())?,
        };
        let mut back = Vec::with_capacity(KILLS);
        for _ in 0..KILLS {
            let killed = Timestamp::now();
            agent = agent.kill_and_start().await?;
            back.push(milliseconds(killed, clients.wait_for_messages(killed).await?));
            // The next kill finds every stream settled.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(clients);
        agent.stop()?;
        Ok((idle, back))
    }
}

/// Renewals that fell due together.
struct AtOnce {
    latencies: Vec<Duration>,
    /// From the first moment until the last client had its certificate.
    seconds: f64,
}

/// Waits until each identity has been renewed since this time, and its client has the new certificate.
async fn wait_for_all<A: Agent>(
    agent: &A,
    clients: &Clients,
    since: Timestamp,
    count: usize,
) -> Result<AtOnce, Failure> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut renewals = agent.renewals()?;
        let mut renewed = vec![false; count];
        // Only the first renewal of each: some certificates may be due again.
        renewals.retain(|Moment { identity, at }| {
            *at >= since
                && renewed.get_mut(*identity).is_some_and(|renewed| !std::mem::replace(renewed, true))
        });
        let receipts = clients.receipts()?;
        let pairs = pairs(&renewals, &receipts);
        if pairs.len() == count {
            let last = pairs.iter().map(|(_, received)| *received).max().unwrap_or(since);
            let latencies = pairs.iter().map(|(renewed, received)| elapsed(*renewed, *received)).collect();
            return Ok(AtOnce { latencies, seconds: milliseconds(since, last) / 1e3 });
        }
        if begun.elapsed() > TIMEOUT {
            return Err(
                format!("{} of {count} clients have a new certificate after a minute", pairs.len()).into()
            );
        }
    }
}

/// How long the renewals of this time took to their clients.
fn latencies(renewals: &[Moment], receipts: &[Moment], during: std::ops::Range<Timestamp>) -> Vec<Duration> {
    let renewals: Vec<Moment> =
        renewals.iter().filter(|renewal| during.contains(&renewal.at)).copied().collect();
    pairs(&renewals, receipts).into_iter().map(|(renewed, received)| elapsed(renewed, received)).collect()
}

/// Each renewal with the first receipt after it by its client.
fn pairs(renewals: &[Moment], receipts: &[Moment]) -> Vec<(Timestamp, Timestamp)> {
    let received = |renewal: &Moment| {
        let mut own = receipts.iter().filter(|receipt| receipt.identity == renewal.identity);
        own.find(|receipt| receipt.at >= renewal.at).map(|receipt| (renewal.at, receipt.at))
    };
    renewals.iter().filter_map(received).collect()
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).unsigned_abs()
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    elapsed(from, to).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn moment(identity: usize, at: i64) -> Moment {
        Moment { identity, at: Timestamp::from_millisecond(at).unwrap() }
    }

    #[test]
    fn a_renewal_is_paired_with_the_next_receipt_of_its_own_client() {
        let renewals = [moment(1, 10), moment(2, 11), moment(1, 100), moment(3, 200)];
        let receipts = [moment(1, 5), moment(2, 12), moment(1, 15), moment(1, 107)];
        let during = moment(0, 10).at..moment(0, 300).at;
        let expected = [5, 1, 7].map(Duration::from_millis);
        assert_eq!(latencies(&renewals, &receipts, during), expected);
        let during = moment(0, 10).at..moment(0, 11).at;
        assert_eq!(latencies(&renewals, &receipts, during), [Duration::from_millis(5)]);
    }
}
