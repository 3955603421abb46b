//! Leader election by a Lease (`coordination.k8s.io/v1`), as client-go does it: of several approvers one decides.
//!
//! Another holder's lease has ended when it has not changed for [`Timings::lease`] on this process's monotonic clock. So the clocks of
//! nodes are never compared. Writes name the version that was read, so that of two candidates one gets a conflict.

use crate::kube::{CallError, Caller, Cluster};
use jiff::Timestamp;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// The lease that candidates compete for.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) cluster: Cluster,
    pub(super) namespace: String,
    pub(super) name: String,
    /// This candidate; unique.
    pub(super) identity: String,
    pub(super) timings: Timings,
}

/// The times of an election. The same as client-go's, but for the pause between two renewals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timings {
    /// A lease that has not been renewed for so long is free.
    pub(super) lease: Duration,
    /// A leader that could not renew its lease for so long stops. It is shorter than `lease`, so that two never lead.
    pub(super) deadline: Duration,
    /// The pause between two attempts to get or to renew the lease.
    pub(super) pause: Duration,
}

impl Timings {
    pub(super) const USUAL: Self = Self {
        lease: Duration::from_secs(15),
        deadline: Duration::from_secs(10),
        pause: Duration::from_secs(4),
    };
}

/// What another holder has written last, and when this process has seen it first.
#[derive(Debug)]
struct Observed {
    spec: Value,
    at: Instant,
}

/// The state of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// This candidate has the lease.
    Held,
    /// Another candidate has it.
    HeldBy(String),
}

/// One candidate in the election.
pub(super) struct Candidate {
    lease: Lease,
    observed: Option<Observed>,
}

impl Candidate {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease, observed: None }
    }

    /// Returns once this candidate leads: the time from which its lease counts. `report` hears of each attempt.
    pub(super) async fn acquire(&mut self, mut report: impl FnMut(&Result<Attempt, CallError>)) -> Instant {
        loop {
            let begun = Instant::now();
            let deadline = self.lease.timings.deadline;
            let attempt = timeout(deadline, self.attempt()).await.unwrap_or(Err(CallError::TimedOut));
            report(&attempt);
            if attempt == Ok(Attempt::Held) {
                return begun;
            }
            sleep(self.lease.timings.pause).await;
        }
    }

    /// Keeps the lease, which counts from `renewed`. Returns why it is lost.
    pub(super) async fn keep(&mut self, mut renewed: Instant) -> String {
        let Timings { deadline, pause, .. } = self.lease.timings;
        let mut fault = None;
        loop {
            sleep_until((Instant::now() + pause).min(renewed + deadline)).await;
            let begun = Instant::now();
            match timeout_at(renewed + deadline, self.attempt()).await {
                Ok(Ok(Attempt::Held)) => (renewed, fault) = (begun, None),
                Ok(Ok(Attempt::HeldBy(other))) => return format!("{other} has taken it"),
                Ok(Err(error)) => fault = Some(error.to_string()),
                Err(_) => {
                    return fault.unwrap_or_else(|| "the Kubernetes API server does not answer".to_owned());
                }
            }
        }
    }

    /// Gives the lease away, so that another candidate need not wait for its end. Best effort.
    pub(super) async fn release(&mut self) {
        let released = timeout(self.lease.timings.deadline, async {
            let mut object = self.lease.read().await?;
            if holder(&object) == Some(&self.lease.identity) {
                object["spec"]["holderIdentity"] = "".into();
                object["spec"]["renewTime"] = micro_time(Timestamp::now());
                self.lease.write(&object).await?;
            }
            Ok::<_, CallError>(())
        });
        if let Ok(Err(error)) = released.await {
            tracing::warn!(%error, "the lease could not be released; another approver takes it when it ends");
        }
    }

    /// Gets or renews the lease, if it is free or this candidate's.
    async fn attempt(&mut self) -> Result<Attempt, CallError> {
        let object = match self.lease.read().await {
            Err(CallError::Refused { code: 404, .. }) => {
                self.lease.create().await?;
                return Ok(Attempt::Held);
            }
            object => object?,
        };
        match self.observe(&object, Instant::now()) {
            Attempt::Held => {
                self.lease.write(&self.claimed(object, Timestamp::now())).await?;
                Ok(Attempt::Held)
            }
            held @ Attempt::HeldBy(_) => Ok(held),
        }
    }

    /// Whether this candidate may claim the lease.
    fn observe(&mut self, object: &Value, now: Instant) -> Attempt {
        let spec = &object["spec"];
        let observed = match &mut self.observed {
            Some(observed) if observed.spec == *spec => observed,
            observed => observed.insert(Observed { spec: spec.clone(), at: now }),
        };
        match holder(object) {
            Some(other) if other != self.lease.identity && now < observed.at + self.lease.timings.lease => {
                Attempt::HeldBy(other.to_owned())
            }
            _ => Attempt::Held,
        }
    }

    /// The object with this candidate as its holder.
    fn claimed(&self, mut object: Value, now: Timestamp) -> Value {
        let is_held = holder(&object) == Some(&self.lease.identity);
        if !object["spec"].is_object() {
            object["spec"] = json!({});
        }
        let spec = &mut object["spec"];
        if !is_held {
            spec["holderIdentity"] = self.lease.identity.clone().into();
            spec["acquireTime"] = micro_time(now);
            spec["leaseTransitions"] =
                (spec["leaseTransitions"].as_i64().unwrap_or(0).saturating_add(1)).into();
        }
        spec["leaseDurationSeconds"] = self.lease.timings.lease.as_secs().max(1).into();
        spec["renewTime"] = micro_time(now);
        object
    }
}

impl Lease {
    fn collection(&self) -> Request {
        Request::new(format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace))
    }

    async fn read(&self) -> Result<Value, CallError> {
        self.cluster.read(Caller::Driver, self.collection().get(&self.name, &GetParams::default())).await
    }

    async fn write(&self, object: &Value) -> Result<(), CallError> {
        let body = object.to_string().into_bytes();
        let request = self.collection().replace(&self.name, &PostParams::default(), body);
        self.cluster.call(Caller::Driver, request).await.map(drop)
    }

    async fn create(&self) -> Result<(), CallError> {
        let now = micro_time(Timestamp::now());
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "namespace": self.namespace, "name": self.name },
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": self.timings.lease.as_secs().max(1),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        });
        let request = self.collection().create(&PostParams::default(), object.to_string().into_bytes());
        self.cluster.call(Caller::Driver, request).await.map(drop)
    }
}

/// The holder of a lease; none if it is free.
fn holder(object: &Value) -> Option<&str> {
    object["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty())
}

/// Kubernetes' `MicroTime`.
fn micro_time(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into()
}
