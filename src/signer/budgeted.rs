//! A decorator that limits how many certificates the pods of a namespace get in an hour. Each can cost money, and work of the
//! issuer that all share.

use super::{SignedChain, Signer, SigningRequest};
use crate::model::{CertificateSpec, Failure, SignerKind};
use crate::platform::TokenBucket;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const HOUR: f64 = 3600.0;

/// A signer whose new requests are limited for each namespace. An unfinished request can always be resumed.
pub(crate) struct BudgetedSigner {
    inner: Arc<dyn Signer>,
    limit: Limit,
    /// Of the namespaces that have used a part of their budget.
    buckets: Mutex<HashMap<String, TokenBucket>>,
    started: Instant,
}

/// The limit, and where the operator sets it.
pub(crate) struct Limit {
    /// Certificates an hour for one namespace, 0 for no limit. It may change.
    pub(crate) per_hour: Box<dyn Fn() -> u32 + Send + Sync>,
    /// The flag or the field.
    pub(crate) option: &'static str,
}

impl BudgetedSigner {
    /// Wraps a signer.
    pub(crate) fn wrap(inner: Arc<dyn Signer>, limit: Limit) -> Arc<dyn Signer> {
        Arc::new(Self { inner, limit, buckets: Mutex::default(), started: Instant::now() })
    }

    /// Takes one certificate from the budget. False: there is no limit.
    fn take(&self, namespace: &str) -> Result<bool, Failure> {
        let per_hour = (self.limit.per_hour)();
        if per_hour == 0 {
            return Ok(false);
        }
        let (now, burst) = (self.started.elapsed(), f64::from(per_hour));
        let mut buckets = self.buckets.lock();
        if !buckets.contains_key(namespace) {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let new = || TokenBucket::new(burst / HOUR, burst).at(now);
        let bucket = buckets.entry(namespace.to_owned()).or_insert_with(new);
        bucket.set_limits(burst / HOUR, burst, now);
        bucket.take(now).map(|()| true).map_err(|pause| {
            let (option, seconds) = (self.limit.option, pause.as_secs_f64().ceil());
            let message = format!(
                "the pods of namespace {namespace} on this node have used up their budget of {per_hour} certificates an hour \
                 ({option}); the next one is possible in {seconds} s; accepted: fewer certificates, or longer ones, or a larger \
                 budget"
            );
            Failure::throttled(message, Some(pause.max(Duration::from_secs(1))))
        })
    }

    fn put_back(&self, namespace: &str) {
        if let Some(bucket) = self.buckets.lock().get_mut(namespace) {
            bucket.put_back();
        }
    }
}

impl Signer for BudgetedSigner {
    fn kind(&self) -> SignerKind {
        self.inner.kind()
    }

    fn is_resumable(&self) -> bool {
        self.inner.is_resumable()
    }

    fn needs_token(&self, spec: &CertificateSpec) -> bool {
        self.inner.needs_token(spec)
    }

    fn describe(&self, checkpoint: &str) -> String {
        self.inner.describe(checkpoint)
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        Box::pin(async move {
            let namespace = &request.identity.namespace;
            let is_counted = request.checkpoint.load().is_none() && self.take(namespace)?;
            let answer = self.inner.sign(request).await;
            // A signer saves a checkpoint before it asks anybody. Without one, the request was refused on this node.
            if is_counted && answer.is_err() && request.checkpoint.load().is_none() {
                self.put_back(namespace);
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureKind, PodTokens, SignerKind, WorkloadIdentity};
    use crate::signer::{Checkpoint, Purpose, RequestId};
    use crate::x509::testing::{attributes, pod};
    use jiff::Timestamp;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Saves a checkpoint and fails, or refuses at once.
    struct Scripted {
        refuses: bool,
    }

    impl Signer for Scripted {
        fn kind(&self) -> SignerKind {
            SignerKind::AcmPca
        }

        fn is_resumable(&self) -> bool {
            true
        }

        fn needs_token(&self, _spec: &CertificateSpec) -> bool {
            false
        }

        fn describe(&self, checkpoint: &str) -> String {
            checkpoint.to_owned()
        }

        fn sign<'a>(
            &'a self,
            request: &'a SigningRequest<'a>,
        ) -> BoxFuture<'a, Result<SignedChain, Failure>> {
            Box::pin(async move {
                if !self.refuses {
                    request.checkpoint.save("begun")?;
                }
                Err(Failure::permanent("no"))
            })
        }
    }

    #[derive(Default)]
    struct Saved(Mutex<Option<String>>);

    impl Checkpoint for Saved {
        fn load(&self) -> Option<String> {
            self.0.lock().clone()
        }

        fn save(&self, text: &str) -> Result<(), Failure> {
            *self.0.lock() = Some(text.to_owned());
            Ok(())
        }
    }

    /// The kind of the failure of a request, and when to try again.
    async fn sign(
        signer: &dyn Signer,
        namespace: &str,
        checkpoint: &Saved,
    ) -> (FailureKind, Option<Duration>) {
        let identity = WorkloadIdentity { namespace: namespace.into(), ..pod() };
        let request = SigningRequest {
            id: &RequestId::new("csi-1"),
            identity: &identity,
            tokens: &PodTokens::default(),
            spec: &attributes(),
            csr_der: &[],
            checkpoint,
            purpose: Purpose::Renewal,
            needed_by: Timestamp::UNIX_EPOCH,
            not_ready_count: 0,
        };
        let failure = signer.sign(&request).await.unwrap_err();
        (failure.kind, failure.retry_after)
    }

    fn budgeted(refuses: bool, per_hour: &Arc<AtomicU32>) -> Arc<dyn Signer> {
        let per_hour = Arc::clone(per_hour);
        let per_hour = Box::new(move || per_hour.load(Ordering::Relaxed));
        BudgetedSigner::wrap(Arc::new(Scripted { refuses }), Limit { per_hour, option: "--flag" })
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_gets_so_many_certificates_an_hour_and_another_one_its_own() {
        let per_hour = Arc::new(AtomicU32::new(3));
        let signer = budgeted(false, &per_hour);
        for _ in 0..3 {
            assert_eq!(sign(&*signer, "shop", &Saved::default()).await.0, FailureKind::Permanent);
        }
        let (kind, retry_after) = sign(&*signer, "shop", &Saved::default()).await;
        assert_eq!(kind, FailureKind::Throttled);
        assert_eq!(retry_after.unwrap().as_secs(), 1200);
        assert_eq!(sign(&*signer, "other", &Saved::default()).await.0, FailureKind::Permanent);
        tokio::time::advance(Duration::from_secs(1201)).await;
        assert_eq!(sign(&*signer, "shop", &Saved::default()).await.0, FailureKind::Permanent);
        assert_eq!(sign(&*signer, "shop", &Saved::default()).await.0, FailureKind::Throttled);
        per_hour.store(0, Ordering::Relaxed);
        assert_eq!(sign(&*signer, "shop", &Saved::default()).await.0, FailureKind::Permanent, "no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_resumed_request_costs_nothing_and_one_that_asked_nobody_neither() {
        let per_hour = Arc::new(AtomicU32::new(1));
        let signer = budgeted(false, &per_hour);
        let checkpoint = Saved::default();
        for _ in 0..5 {
            assert_eq!(sign(&*signer, "shop", &checkpoint).await.0, FailureKind::Permanent);
        }
        assert_eq!(sign(&*signer, "shop", &Saved::default()).await.0, FailureKind::Throttled);
        let signer = budgeted(true, &per_hour);
        for _ in 0..5 {
            assert_eq!(sign(&*signer, "shop", &Saved::default()).await.0, FailureKind::Permanent);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_whose_budget_is_whole_again_is_forgotten() {
        let bucket_count = |signer: &BudgetedSigner| signer.buckets.lock().len();
        let signer = BudgetedSigner {
            inner: Arc::new(Scripted { refuses: false }),
            limit: Limit { per_hour: Box::new(|| 10), option: "--flag" },
            buckets: Mutex::default(),
            started: Instant::now(),
        };
        for number in 0..100 {
            sign(&signer, &format!("namespace-{number}"), &Saved::default()).await;
        }
        assert_eq!(bucket_count(&signer), 100);
        tokio::time::advance(Duration::from_secs(361)).await;
        sign(&signer, "shop", &Saved::default()).await;
        assert_eq!(bucket_count(&signer), 1);
    }
}
