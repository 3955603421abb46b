//! cert-manager: one CertificateRequest per issuance, and one watch for all of them.
//!
//! ```text
//! sign: permit for calls -> gates -> checkpoint saved -> waiter registered -> create -> ... watch event -> chain
//! ```
//!
//! A request's name is chosen and saved in the checkpoint before the create. Whatever is cut off (the publish, the
//! process, the answer to the create), the next call finds the same request and resumes it. A request that has failed or
//! was refused is final in cert-manager: the next call makes another one with the same signing request and deletes the
//! old one. How long a refusal stands before that call is up to the caller.
//!
//! A process that may not watch reads its request again and again instead: [`Following::Poll`].

mod api;
mod checkpoint;
mod deletion;
mod errors;
mod gate;
mod limiter;
mod object;
mod pod;
mod pod_address;
mod polling;
mod signing;
#[cfg(test)]
mod tests;
mod tracker;
mod watching;

pub use gate::{Gate, GateBackoff};
pub use pod_address::PodReader;
#[cfg(fuzzing)]
pub(crate) use tracker::fuzz_certificate_request;

use super::budget::IssuanceBudget;
use super::{
    IssuedCertificate, LiveRequests, RequestId, SignedChain, Signer, SignerNotification, SigningRequest,
};
use crate::kube::{ApiObserver, Cluster, TextDigest};
use crate::model::{CertificateSpec, Failure, SignerKind};
use crate::platform::Clock;
use crate::store::JournalFile;
use api::Key;
use checkpoint::RequestCheckpoint;
use deletion::Deletions;
use futures_util::future::BoxFuture;
use limiter::CallLimiter;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;
use tracker::RequestTracker;

/// How a signing learns what has become of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Following {
    /// By one watch on the requests of this node.
    #[default]
    Watch,
    /// By reading its request again and again. For a process with one request at a time, whose permissions are those of a pod:
    /// `create` and `get`, perhaps `delete`. A request that no signing waits for is not read.
    Poll,
}

/// What an operator can choose.
#[derive(Clone, Debug, Default)]
pub struct CertManagerOptions {
    /// This node's name.
    pub node: String,
    /// How many requests to keep per request id; at least one.
    pub keep_requests: usize,
    /// The audience of the pods' tokens that requests are made with; none: with the driver's own account.
    pub token_audience: Option<String>,
    /// What must hold of a pod before a request is made for it.
    pub gates: Vec<Gate>,
    /// The pauses between attempts while a pod is not ready.
    pub gate_backoff: GateBackoff,
    /// CertificateRequests an hour for the pods of one namespace; 0 for no limit.
    pub max_issuances_per_hour: u32,
    /// How a signing learns what has become of its request.
    pub following: Following,
    /// The file that lists the requests, for a process that cannot list those of an earlier one, and has one volume.
    pub journal: Option<JournalFile>,
}

/// Signs with cert-manager's CertificateRequests.
pub struct CertManager {
    cluster: Cluster,
    clock: Arc<dyn Clock>,
    options: CertManagerOptions,
    tracker: Arc<RequestTracker>,
    deletions: Arc<Deletions>,
    limiter: CallLimiter,
    budget: IssuanceBudget,
    /// The driver's own account, as the server names it. Learned from its first create, or asked for when it is needed.
    username: OnceLock<TextDigest>,
    /// None once it runs, and if requests are polled.
    watch: Mutex<Option<BoxFuture<'static, ()>>>,
    observer: Arc<dyn ApiObserver>,
    /// Requests of earlier processes in the journal, the oldest first.
    earlier: Mutex<Vec<Key>>,
}

impl CertManager {
    /// Prepares the signer. Its watch begins with the first request, because a node whose pods use other signers needs no
    /// cert-manager. It ends with `shutdown`.
    pub fn new(
        cluster: Cluster,
        options: CertManagerOptions,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn ApiObserver>,
        live: Arc<dyn LiveRequests>,
        shutdown: CancellationToken,
    ) -> Self {
        let tracker = RequestTracker::new(live);
        let deletions = Deletions::new(cluster.clone(), Arc::clone(&tracker), options.following);
        let watch = watching::watch(
            cluster.clone(),
            object::label_value(&options.node),
            Arc::clone(&tracker),
            Arc::clone(&deletions),
            Arc::clone(&observer),
            shutdown,
        );
        let watch = Box::pin(watch) as BoxFuture<'static, ()>;
        let is_watched = options.following == Following::Watch;
        let listed = options.journal.as_ref().map(JournalFile::load).unwrap_or_default();
        let earlier = listed.lines().filter_map(Key::parse).collect();
        Self {
            cluster,
            clock,
            options,
            tracker,
            deletions,
            limiter: CallLimiter::default(),
            budget: IssuanceBudget::new("--max-issuances-per-hour"),
            username: OnceLock::new(),
            watch: Mutex::new(Some(watch).filter(|_| is_watched)),
            observer,
            earlier: Mutex::new(earlier),
        }
    }

    /// Deletes requests of earlier processes that are too many beside those of this one, and lists what is kept.
    fn update_journal(&self, id: &RequestId) {
        let Some(journal) = &self.options.journal else { return };
        let own = self.tracker.requests_of(id);
        let mut earlier = self.earlier.lock();
        earlier.retain(|key| !own.contains(key));
        let kept = self.options.keep_requests.max(1).saturating_sub(own.len());
        let superseded = earlier.len().saturating_sub(kept);
        self.deletions.delete_all(earlier.drain(..superseded));
        let lines: Vec<String> = earlier.iter().chain(&own).map(ToString::to_string).collect();
        journal.save(&lines.join("\n"));
    }

    fn delete_superseded(&self, id: &RequestId) {
        self.deletions.delete_all(self.tracker.superseded(id, self.options.keep_requests.max(1)));
    }

    fn ensure_watching(&self) {
        if let Some(watch) = self.watch.lock().take() {
            tokio::spawn(watch);
        }
    }
}

impl Signer for CertManager {
    fn kind(&self) -> SignerKind {
        SignerKind::CertManager
    }

    fn is_resumable(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        Box::pin(self.sign_one(request))
    }

    fn needs_token(&self, _spec: &CertificateSpec) -> bool {
        self.options.token_audience.is_some()
    }

    fn describe(&self, checkpoint: &str) -> String {
        let Some(RequestCheckpoint { key, .. }) = RequestCheckpoint::parse(checkpoint) else {
            return checkpoint.to_owned();
        };
        format!("CertificateRequest {key}: {}", self.tracker.describe(&key))
    }
}

impl SignerNotification for CertManager {
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(self.tracker.next_completed())
    }

    fn in_use(&self, issued: &IssuedCertificate<'_>) {
        self.tracker.mark_in_use(issued.id);
        self.delete_superseded(issued.id);
        self.update_journal(issued.id);
    }

    fn removed(&self, issued: &IssuedCertificate<'_>) {
        self.ensure_watching();
        self.deletions.delete_all(self.tracker.requests_of(issued.id));
    }
}
