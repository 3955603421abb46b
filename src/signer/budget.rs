//! How many certificates the pods of a namespace get in an hour. Each can cost money, and work of the issuer that all share.

use crate::model::{Failure, FailureKind};
use crate::platform::TokenBucket;
use crate::signer::SigningRequest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const HOUR: f64 = 3600.0;
/// First certificates leave this part of a budget to certificates that replace one in use: a fifth.
const PART_FOR_RENEWALS: u32 = 5;

/// The budgets of all namespaces with one signer. The signer takes from it before each request for a new certificate, once it knows
/// that the pod may have one. To resume a request takes nothing.
pub(crate) struct IssuanceBudget {
    /// Where the operator sets the limit: a flag or a field.
    option: &'static str,
    /// Of the namespaces that have used a part of their budget.
    buckets: Mutex<HashMap<String, TokenBucket>>,
    started: Instant,
}

impl IssuanceBudget {
    /// Whole budgets.
    pub(crate) fn new(option: &'static str) -> Self {
        Self { option, buckets: Mutex::default(), started: Instant::now() }
    }

    /// Takes one certificate, of `per_hour` for the pod's namespace; 0 for no limit. Pods that start all the time must not use up
    /// what the certificates in use need, so a first certificate leaves a fifth of the budget.
    pub(crate) fn take(&self, request: &SigningRequest<'_>, per_hour: u32) -> Result<(), Failure> {
        if per_hour == 0 {
            return Ok(());
        }
        let namespace = request.identity.namespace.as_str();
        let kept = if request.replaces_certificate { 0 } else { per_hour / PART_FOR_RENEWALS };
        let (now, burst) = (self.started.elapsed(), f64::from(per_hour));
        let mut buckets = self.buckets.lock();
        if !buckets.contains_key(namespace) {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let new = || TokenBucket::new(burst / HOUR, burst).at(now);
        let bucket = buckets.entry(namespace.to_owned()).or_insert_with(new);
        bucket.set_limits(burst / HOUR, burst, now);
        bucket.take_above(f64::from(kept), now).map_err(|pause| {
            let (option, seconds) = (self.option, pause.as_secs_f64().ceil());
            let message = format!(
                "the pods of namespace {namespace} on this node have used up their budget of {per_hour} certificates an hour \
                 ({option}); the next one is possible in {seconds} s; accepted: fewer certificates, or longer ones, or a larger \
                 budget"
            );
            let retry_after = Some(pause.max(Duration::from_secs(1)));
            Failure { retry_after, ..Failure::new(FailureKind::OverBudget, message) }
        })
    }

    /// Gives one back: the request was not made, or was refused without a certificate.
    pub(crate) fn put_back(&self, namespace: &str) {
        if let Some(bucket) = self.buckets.lock().get_mut(namespace) {
            bucket.put_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PodTokens, WorkloadIdentity};
    use crate::signer::RequestId;
    use crate::signer::testing::NoCheckpoint;
    use crate::x509::testing::{attributes, pod};

    impl IssuanceBudget {
        fn take_for(
            &self,
            namespace: &str,
            per_hour: u32,
            replaces_certificate: bool,
        ) -> Result<(), Failure> {
            let request = SigningRequest {
                id: &RequestId::new("csi-1"),
                identity: &WorkloadIdentity { namespace: namespace.into(), ..pod() },
                tokens: &PodTokens::default(),
                spec: &attributes(),
                csr_der: b"",
                checkpoint: &NoCheckpoint,
                needed_by: jiff::Timestamp::MAX,
                replaces_certificate,
                not_ready_count: 0,
            };
            self.take(&request, per_hour)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_gets_so_many_certificates_an_hour_and_another_one_its_own() {
        let budget = IssuanceBudget::new("--flag");
        for _ in 0..3 {
            budget.take_for("shop", 3, false).unwrap();
        }
        let beyond = budget.take_for("shop", 3, false).unwrap_err();
        assert_eq!((beyond.kind, beyond.retry_after.unwrap().as_secs()), (FailureKind::OverBudget, 1200));
        budget.take_for("other", 3, false).unwrap();
        tokio::time::advance(Duration::from_secs(1201)).await;
        budget.take_for("shop", 3, false).unwrap();
        assert_eq!(budget.take_for("shop", 3, false).unwrap_err().kind, FailureKind::OverBudget);
        budget.take_for("shop", 0, false).expect("no limit");
        budget.put_back("shop");
        budget.take_for("shop", 3, false).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn first_certificates_leave_a_fifth_of_the_budget_to_renewals() {
        let budget = IssuanceBudget::new("--flag");
        let publishes = (0..100).filter(|_| budget.take_for("shop", 10, false).is_ok()).count();
        assert_eq!(publishes, 8);
        // Three are saved up again after 6 minutes, and a publish leaves two of them.
        let beyond = budget.take_for("shop", 10, false).unwrap_err();
        assert_eq!(beyond.retry_after.unwrap().as_secs(), 360);
        let renewals = (0..100).filter(|_| budget.take_for("shop", 10, true).is_ok()).count();
        assert_eq!(renewals, 2);
        tokio::time::advance(Duration::from_secs(361)).await;
        assert_eq!(budget.take_for("shop", 10, false).unwrap_err().kind, FailureKind::OverBudget);
        budget.take_for("shop", 10, true).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_whose_budget_is_whole_again_is_forgotten() {
        let budget = IssuanceBudget::new("--flag");
        for number in 0..100 {
            budget.take_for(&format!("namespace-{number}"), 10, false).unwrap();
        }
        assert_eq!(budget.buckets.lock().len(), 100);
        tokio::time::advance(Duration::from_secs(361)).await;
        budget.take_for("shop", 10, false).unwrap();
        assert_eq!(budget.buckets.lock().len(), 1);
    }
}
