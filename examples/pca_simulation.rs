//! Simulates a thousand nodes of fifty pods with the quotas of one AWS account, in virtual time: a cold start of all pods and
//! their renewals. It compares certlet's limiter and schedule with a renewer that has fixed intervals, no jitter and no
//! limiter. It is deterministic, and fails if a certificate expires.
//!
//! Real code: the limiter (`Bucket`, `WaitQueue`, `Fleet`) and `certlet::credential::renew_at`. Models: AWS (a token bucket with
//! one second of quota for each call, a certificate ready after 0.3 to 1 s), latency and kubelets.

#![allow(clippy::cast_precision_loss, clippy::indexing_slicing, reason = "a simulation's report")]

use certlet::credential::{Lifetime, renew_at};
use certlet::model::VolumeId;
use certlet::signer::{Bucket, CallKind, Caller, Fleet, WaitQueue};
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const NODES: usize = 1_000;
const PODS: usize = 50;
const SECOND: u64 = 1_000_000_000;
/// How long a kubelet waits for a publish.
const KUBELET_TIMEOUT: u64 = 120 * SECOND;
const KINDS: [CallKind; 2] = [CallKind::Issue, CallKind::Get];
const ISSUE: usize = 0;
const GET: usize = 1;

/// An event. Times are nanoseconds since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A pod needs a call.
    Want { pod: usize, kind: usize, attempts: u32 },
    /// The lane of a node may have a token.
    Serve { node: usize, kind: usize },
    /// A renewal is due.
    Due { pod: usize, generation: u32 },
    /// A certificate expires.
    End { pod: usize, generation: u32 },
}

#[derive(Clone, Default)]
struct Pod {
    generation: u32,
    ready_at: u64,
    not_after: u64,
}

struct Lane {
    bucket: Bucket,
    queue: WaitQueue<(usize, u32)>,
    /// Whether a `Serve` event is scheduled.
    is_scheduled: bool,
}

/// The quota of the account for one call.
struct Quota {
    rate: f64,
    tokens: f64,
    at: u64,
}

impl Quota {
    fn allows(&mut self, now: u64) -> bool {
        self.tokens = (self.tokens + self.rate * (now - self.at) as f64 / SECOND as f64).min(self.rate);
        self.at = now;
        let allowed = self.tokens >= 1.0;
        self.tokens -= if allowed { 1.0 } else { 0.0 };
        allowed
    }
}

/// Counters, for the cold start and for the time after it.
#[derive(Clone, Default)]
struct Count {
    calls: u64,
    throttled: u64,
    certificates: u64,
    lost: u64,
    largest_burst: u64,
}

struct World {
    lifetime: u64,
    limited: bool,
    now: u64,
    sequence: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    random: u64,
    pods: Vec<Pod>,
    nodes: Vec<[Lane; 2]>,
    quotas: [Quota; 2],
    counts: [Count; 2],
    first: usize,
    done_at: Option<u64>,
    second: (u64, u64),
}

impl World {
    fn new(lifetime: Duration, limited: bool) -> Self {
        let fleet = Fleet { nodes: 1_000, ..Fleet::DEFAULT };
        let lane = |kind, node: usize| Lane {
            bucket: Bucket::new(fleet.pace(kind), node as f64 / NODES as f64),
            queue: WaitQueue::default(),
            is_scheduled: false,
        };
        let mut world = Self {
            lifetime: u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX),
            limited,
            now: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            pods: vec![Pod::default(); NODES * PODS],
            nodes: (0..NODES).map(|node| KINDS.map(|kind| lane(kind, node))).collect(),
            quotas: KINDS.map(|kind| Quota { rate: kind.quota(), tokens: kind.quota(), at: 0 }),
            counts: Default::default(),
            first: 0,
            done_at: None,
            second: (0, 0),
        };
        for pod in 0..NODES * PODS {
            // Kubelets start at different times, within ten seconds.
            let begins = world.between(0.0, 10.0);
            world.after(begins, Event::Want { pod, kind: ISSUE, attempts: 0 });
        }
        world
    }

    /// A random number, from a xorshift generator.
    fn between(&mut self, least: f64, most: f64) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        least + (most - least) * (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn after(&mut self, seconds: f64, event: Event) {
        let pause = u64::try_from(Duration::from_secs_f64(seconds.max(0.0)).as_nanos()).unwrap_or(u64::MAX);
        self.at(self.now.saturating_add(pause), event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn run(&mut self, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            if time > until {
                break;
            }
            self.now = time;
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Want { pod, kind, attempts } if self.limited => {
                let Pod { generation, not_after, .. } = self.pods[pod];
                let needed_by = if generation == 0 { self.now + KUBELET_TIMEOUT } else { not_after };
                let needed_by = Timestamp::UNIX_EPOCH + Duration::from_nanos(needed_by);
                let node = pod / PODS;
                let lane = &mut self.nodes[node][kind];
                // All pods are of one namespace.
                let caller = Caller { namespace: Arc::default(), needed_by };
                lane.queue.push(&caller, (pod, attempts));
                if !lane.is_scheduled {
                    self.serve(node, kind);
                }
            }
            Event::Want { pod, kind, attempts } => self.call(pod, kind, attempts),
            Event::Serve { node, kind } => self.serve(node, kind),
            Event::Due { pod, generation } if self.pods[pod].generation == generation => {
                self.at(self.now, Event::Want { pod, kind: ISSUE, attempts: 0 });
            }
            Event::End { pod, generation } if self.pods[pod].generation == generation => {
                self.count().lost += 1;
            }
            Event::Due { .. } | Event::End { .. } => {}
        }
    }

    /// Starts calls while there are tokens.
    fn serve(&mut self, node: usize, kind: usize) {
        self.nodes[node][kind].is_scheduled = false;
        while !self.nodes[node][kind].queue.is_empty() {
            let now = Duration::from_nanos(self.now);
            let lane = &mut self.nodes[node][kind];
            match lane.bucket.take(now) {
                Ok(()) => {
                    if let Some((pod, attempts)) = lane.queue.pop() {
                        self.call(pod, kind, attempts);
                    }
                }
                Err(wait) => {
                    lane.is_scheduled = true;
                    return self.after(wait.as_secs_f64(), Event::Serve { node, kind });
                }
            }
        }
    }

    fn call(&mut self, pod: usize, kind: usize, attempts: u32) {
        self.count().calls += 1;
        if kind == ISSUE {
            let second = self.now / SECOND;
            self.second = if self.second.0 == second { (second, self.second.1 + 1) } else { (second, 1) };
            let burst = self.second.1;
            let count = self.count();
            count.largest_burst = count.largest_burst.max(burst);
        }
        let now = Duration::from_nanos(self.now);
        let lane = &mut self.nodes[pod / PODS][kind];
        if !self.quotas[kind].allows(self.now) {
            lane.bucket.throttled(now);
            self.count().throttled += 1;
            let pause = self.backoff(attempts);
            return self.after(pause, Event::Want { pod, kind, attempts: attempts + 1 });
        }
        let demand = !lane.queue.is_empty();
        lane.bucket.succeeded(demand, now);
        if kind == ISSUE { self.issued(pod) } else { self.collected(pod) }
    }

    /// certlet: at most five seconds, with jitter. The other one: doubles up to a minute, without jitter.
    fn backoff(&mut self, attempts: u32) -> f64 {
        let doubled = f64::from(1_u32 << attempts.min(10));
        if self.limited {
            (0.2 * doubled).min(5.0) * self.between(0.5, 1.0)
        } else {
            // Calls that start at the same time arrive within two seconds.
            doubled.min(60.0) + self.between(0.0, 2.0)
        }
    }

    fn issued(&mut self, pod: usize) {
        let issue_time = self.between(0.3, 1.0);
        self.pods[pod].ready_at =
            self.now + u64::try_from(Duration::from_secs_f64(issue_time).as_nanos()).unwrap_or(0);
        self.pods[pod].not_after = self.now + self.lifetime;
        let wait = self.between(0.85, 1.05);
        self.after(wait, Event::Want { pod, kind: GET, attempts: 0 });
    }

    fn collected(&mut self, pod: usize) {
        if self.now < self.pods[pod].ready_at {
            return self.after(0.5, Event::Want { pod, kind: GET, attempts: 0 });
        }
        self.count().certificates += 1;
        let state = &mut self.pods[pod];
        self.first += usize::from(state.generation == 0);
        state.generation += 1;
        let (generation, not_after) = (state.generation, state.not_after);
        if self.first == self.pods.len() && self.done_at.is_none() {
            self.done_at = Some(self.now);
        }
        let due = if self.limited {
            let lifetime = Lifetime { issued_at: instant(self.now), not_after: instant(not_after) };
            let due = renew_at(&VolumeId::new(format!("csi-{pod}")), lifetime, None, Duration::ZERO);
            u64::try_from(due.duration_since(Timestamp::UNIX_EPOCH).as_nanos()).unwrap_or(0)
        } else {
            not_after - self.lifetime / 3
        };
        self.at(due, Event::Due { pod, generation });
        self.at(not_after, Event::End { pod, generation });
    }

    fn count(&mut self) -> &mut Count {
        &mut self.counts[usize::from(self.done_at.is_some())]
    }
}

fn instant(time: u64) -> Timestamp {
    let since = SignedDuration::from_nanos(i64::try_from(time).unwrap_or(i64::MAX));
    Timestamp::UNIX_EPOCH.checked_add(since).unwrap_or(Timestamp::MAX)
}

fn report(name: &str, phase: &str, count: &Count, done: &str) {
    let each = count.calls as f64 / count.certificates.max(1) as f64;
    let throttled = 100.0 * count.throttled as f64 / count.calls.max(1) as f64;
    println!(
        "{name:<24} {phase:<22} {:>9} {each:>10.2} {throttled:>9.1}% {:>8} {done:>9} {:>6}",
        count.certificates, count.largest_burst, count.lost
    );
}

fn main() -> ExitCode {
    println!(
        "{NODES} nodes x {PODS} pods; IssueCertificate {}/s, GetCertificate {}/s\n\n{:<24} {:<22} {:>9} {:>10} {:>10} {:>8} \
         {:>9} {:>6}",
        CallKind::Issue.quota(),
        CallKind::Get.quota(),
        "",
        "",
        "issued",
        "calls each",
        "throttled",
        "burst/s",
        "done",
        "lost"
    );
    let mut lost = 0;
    for (hours, until) in [(24, 72), (1, 8)] {
        for (name, limited) in [("certlet", true), ("fixed, no jitter", false)] {
            let mut world = World::new(Duration::from_hours(hours), limited);
            world.run(Duration::from_hours(until));
            let done = world.done_at.map_or("never".to_owned(), |at| format!("{} min", at / SECOND / 60));
            report(&format!("{name}, {hours} h"), "cold start of all", &world.counts[0], &done);
            report(&format!("{name}, {hours} h"), &format!("then, to {until} h"), &world.counts[1], "-");
            lost += if limited { world.counts[0].lost + world.counts[1].lost } else { 0 };
        }
    }
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
