//! The leader's work: watches all CertificateRequests, and decides those that are open.
//!
//! The watch keeps only the names of requests. Each is read again before it is decided, and the decision is written with the version
//! that was read. So what is decided is what is approved, and the memory does not grow with the requests.

use super::State;
use super::evaluate::{Denial, DenialReason, Granted, Rules, evaluate, evaluate_other};
use super::identity::ServiceAccount;
use super::metrics::ApproverMetrics;
use super::request::{IssuerRef, OpenRequest, SeenRequest};
use crate::kube::{ApiObserver, CallError, Caller, Cluster, RequestKey as Key, WatchError, follow};
use crate::model::shown;
use crate::platform::{Backoff, FairQueue};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::Api;
use kube::api::{GetParams, ListParams, PostParams};
use kube::core::Request;
use kube::runtime::watcher::{Config, Event};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Decisions at the same time.
const MAX_IN_FLIGHT: usize = 16;
/// Limit on the requests that wait for their turn. For one more, the namespace that has most of them loses one, and all are listed
/// again once the others are decided.
const MAX_WAITING: usize = 10_000;
/// Limit on the requests that wait for another attempt. One more is dropped until all are listed again. So requests that can never be
/// decided, such as those for an issuer that the approver may not approve, take no space from others.
const MAX_PAUSED: usize = 1_000;
/// Pauses before a decision is tried again that the API server has prevented.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
/// The shortest time from one list to the next, if requests were dropped.
const MIN_LIST_INTERVAL: Duration = Duration::from_mins(1);

/// Decides requests.
pub(super) struct Controller {
    pub(super) cluster: Cluster,
    pub(super) rules: Rules,
    /// The issuer of SPIFFE IDs, once it is known, if requests without the annotation are decided too.
    pub(super) spiffe_issuer: Option<watch::Receiver<Option<IssuerRef>>>,
    pub(super) metrics: Arc<ApproverMetrics>,
    pub(super) state: watch::Sender<State>,
}

/// A request that waits, and how often its decision has failed.
struct Waiting {
    key: Key,
    failures: u32,
}

/// The requests in memory.
#[derive(Default)]
struct Work<'a> {
    waiting: FairQueue<String, u32>,
    /// Being decided. What could not be decided waits for its next attempt.
    running: FuturesUnordered<BoxFuture<'a, Option<Waiting>>>,
    /// Waiting for the next attempt.
    paused: FuturesUnordered<BoxFuture<'a, Waiting>>,
    /// Whether a request was dropped.
    has_dropped: bool,
}

impl Work<'_> {
    fn len(&self) -> usize {
        self.waiting.len() + self.running.len() + self.paused.len()
    }

    fn add(&mut self, Waiting { key, failures }: Waiting) {
        if self.waiting.contains(&key.namespace, &key.name) {
            return;
        }
        self.waiting.insert(&key.namespace, key.name, failures);
        if self.waiting.len() > MAX_WAITING {
            self.has_dropped |= self.waiting.pop_first_of_largest().is_some();
        }
    }

    /// Has a decision tried again after a pause.
    fn pause(&mut self, Waiting { key, failures }: Waiting) {
        if self.paused.len() >= MAX_PAUSED {
            self.has_dropped = true;
            return;
        }
        let pause = sleep(RETRIES.full_pause(failures));
        self.paused.push(pause.map(move |()| Waiting { key, failures: failures + 1 }).boxed());
    }

    fn next(&mut self) -> Option<Waiting> {
        let (namespace, name, failures) = self.waiting.pop_first_of(|_| true)?;
        Some(Waiting { key: Key { namespace: namespace.to_string(), name }, failures })
    }
}

impl Controller {
    /// Decides until it is dropped.
    pub(super) async fn run(&self) {
        loop {
            self.follow().await;
            tracing::warn!("too many CertificateRequests waited; all are listed again");
        }
    }

    /// Returns if requests were dropped, once the others are decided.
    async fn follow(&self) {
        let api: Api<SeenRequest> = Api::all(self.cluster.own.clone());
        let mut events = pin!(follow(api, Config::default()));
        let mut work = Work::default();
        let next_list = Instant::now() + MIN_LIST_INTERVAL;
        loop {
            while work.running.len() < MAX_IN_FLIGHT
                && let Some(next) = work.next()
            {
                work.running.push(self.attempt(next).boxed());
            }
            self.metrics.waiting(work.len());
            let must_list = work.has_dropped && work.running.is_empty();
            tokio::select! {
                Some(event) = events.next() => self.saw(event, &mut work),
                Some(failed) = work.running.next() => {
                    if let Some(failed) = failed {
                        self.metrics.will_retry();
                        work.pause(failed);
                    }
                }
                Some(waiting) = work.paused.next() => work.add(waiting),
                () = sleep_until(next_list), if must_list => return,
                else => return,
            }
        }
    }

    fn saw(&self, event: Result<Event<SeenRequest>, WatchError>, work: &mut Work<'_>) {
        match event {
            Ok(Event::InitApply(request) | Event::Apply(request)) => {
                let is_relevant = request.is_annotated() || self.spiffe_issuer.is_some();
                if is_relevant
                    && !request.is_decided()
                    && let Some(key) = request.key()
                {
                    work.add(Waiting { key, failures: 0 });
                }
            }
            Ok(Event::Delete(request)) => {
                if let Some(Key { namespace, name }) = request.key() {
                    work.waiting.remove(&namespace, &name);
                }
            }
            Ok(Event::Init) => {}
            Ok(Event::InitDone) => {
                self.state.send_replace(State::Deciding);
            }
            // If the API server stays away, the lease is lost too.
            Err(error) => {
                self.metrics.watch_restarted();
                tracing::warn!(error = error.cause, "the watch on CertificateRequests is interrupted");
            }
        }
    }

    /// Decides a request. Returns it if that has failed.
    async fn attempt(&self, Waiting { key, failures }: Waiting) -> Option<Waiting> {
        match self.decide(&key).await {
            Ok(()) => None,
            Err(error) => {
                let Key { namespace, name } = &key;
                tracing::warn!(namespace, name, %error, "a CertificateRequest could not be decided; trying again");
                Some(Waiting { key, failures })
            }
        }
    }

    /// Reads a request, decides it, and writes the decision. A request that is gone or decided needs none.
    async fn decide(&self, key: &Key) -> Result<(), CallError> {
        let get = key.collection().get(&key.name, &GetParams::default());
        let object: Value = match self.cluster.read(Caller::Driver, get).await {
            Err(CallError::Refused { code: 404, .. }) => return Ok(()),
            object => object?,
        };
        let request = OpenRequest::read(object).map_err(|error| CallError::Unreadable(error.to_string()))?;
        let Some(request) = request else { return Ok(()) };
        let Some(decision) = self.judge(key, &request).await? else { return Ok(()) };
        let body = request.decided(&decision, Timestamp::now());
        let put = key.collection().replace_subresource("status", &key.name, &PostParams::default(), body);
        match self.cluster.call(Caller::Driver, put).await {
            Err(CallError::Refused { code: 404, .. }) => return Ok(()),
            written => written?,
        };
        self.metrics.decided(&decision);
        let Key { namespace, name } = key;
        match &decision {
            Ok(message) => tracing::info!(namespace, name, "approved: {message}"),
            Err(Denial { reason, message }) => {
                tracing::info!(namespace, name, reason = reason.as_str(), "denied: {message}");
            }
        }
        Ok(())
    }

    /// The decision on a request, with its reason in words; none if it is not for this approver.
    async fn judge(
        &self,
        key: &Key,
        request: &OpenRequest,
    ) -> Result<Option<Result<String, Denial>>, CallError> {
        if request.is_annotated {
            let granted = match evaluate(&self.rules, &key.namespace, &request.spec) {
                Err(denial) => return Ok(Some(Err(denial))),
                Ok(granted) => granted,
            };
            return Ok(Some(match self.missing(&granted).await? {
                Some(denial) => Err(denial),
                None => Ok(format!("the SPIFFE ID of {}", granted.account)),
            }));
        }
        let Some(issuer) = &self.spiffe_issuer else { return Ok(None) };
        let issuer = issuer.borrow().clone();
        let issuer = issuer.ok_or_else(|| {
            CallError::Unreachable("the runtime ConfigMap has not been read yet".to_owned())
        })?;
        let decision = evaluate_other(&issuer, &request.spec);
        Ok(Some(decision.map(|()| "no SPIFFE ID, and not the issuer of SPIFFE IDs".to_owned())))
    }

    /// Looks up what a request depends on. Returns why it is denied.
    async fn missing(&self, granted: &Granted) -> Result<Option<Denial>, CallError> {
        let Granted { account, node, services } = granted;
        if let Some(node) = node
            && !self.has_pod(account, node).await?
        {
            let message = format!(
                "spec.request: the node {} of the requester's token has no pod of the service account {}/{}",
                shown(node),
                account.namespace,
                account.name
            );
            return Ok(Some(Denial::new(DenialReason::Pod, message)));
        }
        for service in services {
            if !self.has_service(&account.namespace, service).await? {
                let message = format!(
                    "spec.request: has a DNS name of the Service {}/{service}, which does not exist",
                    account.namespace
                );
                return Ok(Some(Denial::new(DenialReason::Service, message)));
            }
        }
        Ok(None)
    }

    /// Whether the node has a pod of the account that has not ended.
    async fn has_pod(&self, account: &ServiceAccount, node: &str) -> Result<bool, CallError> {
        #[derive(Deserialize)]
        struct Pods {
            /// The server writes `null` for an empty list of metadata.
            items: Option<Vec<IgnoredAny>>,
        }
        let selector = format!(
            "spec.nodeName={node},spec.serviceAccountName={},status.phase!=Succeeded,status.phase!=Failed",
            account.name
        );
        let pods = Request::new(format!("/api/v1/namespaces/{}/pods", account.namespace));
        let list = pods.list_metadata(&ListParams::default().fields(&selector).limit(1));
        let found: Pods = self.cluster.read(Caller::Driver, list).await?;
        Ok(found.items.is_some_and(|items| !items.is_empty()))
    }

    async fn has_service(&self, namespace: &str, name: &str) -> Result<bool, CallError> {
        let services = Request::new(format!("/api/v1/namespaces/{namespace}/services"));
        match self.cluster.call(Caller::Driver, services.get_metadata(name, &GetParams::default())).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused { code: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(namespace: &str, name: &str) -> Waiting {
        Waiting { key: Key { namespace: namespace.into(), name: name.into() }, failures: 0 }
    }

    #[tokio::test]
    async fn a_flood_of_requests_costs_other_namespaces_nothing() {
        let mut work = Work::default();
        work.add(waiting("innocent", "first"));
        for n in 0..2 * MAX_WAITING {
            work.add(waiting("hostile", &n.to_string()));
        }
        work.add(waiting("innocent", "last"));
        assert!(work.has_dropped && work.len() == MAX_WAITING);
        let served: Vec<String> =
            std::iter::from_fn(|| work.next()).map(|next| next.key.namespace).take(3).collect();
        assert_eq!(served, ["innocent", "hostile", "innocent"]);
        // Those that can never be decided take no space from the others.
        let mut work = Work::default();
        for n in 0..2 * MAX_PAUSED {
            work.pause(waiting("hostile", &n.to_string()));
        }
        assert!(work.has_dropped && work.len() == MAX_PAUSED);
        work.add(waiting("innocent", "one"));
        work.add(waiting("innocent", "one"));
        assert_eq!(work.waiting.len(), 1);
    }
}
