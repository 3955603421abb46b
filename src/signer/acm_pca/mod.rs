//! AWS Private CA, called directly: IssueCertificate, then GetCertificate.
//!
//! [`signing`] is one issuance. [`templates`] chooses the template, [`crate::policy`] decides whether the pod may have the
//! certificate, if the operator has a policy, [`authority`] knows what the CA can issue, and [`validity`] shortens the validity to that. A [`checkpoint`] in
//! the store lets an interrupted issuance resume. [`client`] makes the calls, at the rate that [`quota`] permits.

mod answers;
mod authority;
mod checkpoint;
mod client;
mod credentials;
mod errors;
mod issue_delay;
mod metrics;
mod own_credentials;
mod pod_identity;
mod quota;
mod revoke;
mod signing;
mod sts;
mod templates;
mod validity;

pub use metrics::PcaMetrics;
pub use own_credentials::OwnCredentials;
pub use quota::{Bucket, CallKind, Caller, Fleet, WaitQueue};
pub use signing::template_of;

use super::budget::IssuanceBudget;
use super::{IssuedCertificate, RequestId, SignedChain, Signer, SignerNotification, SigningRequest};
use crate::model::{Arn, CertificateSpec, Failure, SignerKind, jitter};
use crate::platform::{Clock, FairSemaphore, all_cores_but_one};
use crate::policy::LivePolicy;
use crate::store::JournalFile;
use authority::Authorities;
use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::types::RevocationReason;
use client::Api;
use credentials::Clients;
use errors::CallError;
use futures_util::future::BoxFuture;
use http::Uri;
use issue_delay::IssueDelay;
use jiff::Timestamp;
use pod_identity::Agent;
use quota::Limiter;
use revoke::{Revocation, Revocations};
use signing::Signing;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Limit on what is kept for each CA, Region, account or role. Pods write them, so their number has no limit of its own. A node
/// whose pods use more than this queries some of them again.
const MAX_CACHED: usize = 256;

/// The dependencies and options of the signer.
pub struct AcmPcaParts {
    /// Which pods may have which certificates; none: IAM alone decides.
    pub policy: Option<Arc<LivePolicy>>,
    /// The fleet that shares the account's quotas.
    pub fleet: Fleet,
    /// The name of the node, or of the sidecar. It spreads the calls of those that start together.
    pub name: String,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: PcaMetrics,
    /// Lists the certificates that are to be revoked; none: no certificate is revoked.
    pub revocations: Option<JournalFile>,
    /// Endpoints of the EKS Pod Identity agent of this node, in the order in which they are tried.
    pub pod_identity: Vec<Uri>,
    /// Whether the process runs in the pod. Then its own credentials are those of the pod, and every request is made with them.
    pub is_in_pod: bool,
}

/// AWS Private CA as a signer.
pub struct AcmPca {
    policy: Option<Arc<LivePolicy>>,
    /// For decisions of the policy.
    decisions: Arc<FairSemaphore>,
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
    metrics: PcaMetrics,
    clients: Clients,
    authorities: Authorities,
    issue_delay: IssueDelay,
    budget: IssuanceBudget,
    revocations: Option<Revocations>,
}

impl AcmPca {
    /// Creates the signer. It does not call AWS yet.
    pub fn new(parts: AcmPcaParts) -> Self {
        let AcmPcaParts { policy, fleet, name, clock, metrics, revocations, pod_identity, is_in_pod } = parts;
        Self {
            policy,
            decisions: FairSemaphore::new(all_cores_but_one()),
            limiter: Arc::new(Limiter::new(fleet, jitter(&name, b""))),
            clock,
            metrics,
            clients: Clients::new(Agent::new(pod_identity), is_in_pod),
            authorities: Authorities::default(),
            issue_delay: IssueDelay::default(),
            budget: IssuanceBudget::new("maxIssuancesPerHour of the policy"),
            revocations: revocations.map(Revocations::open),
        }
    }

    /// Revokes the listed certificates with the driver's own credentials, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let Some(revocations) = &self.revocations else { return };
        tokio::select! {
            // The answer of a finished call is still recorded at shutdown.
            biased;
            () = revocations.run(|revocation| self.revoke(revocation)) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn revoke(&self, revocation: Revocation) -> Result<(), CallError> {
        let Revocation { authority, serial, reason, .. } = revocation;
        let client = self.clients.driver(authority.region()).await;
        let caller = Caller { namespace: Arc::default(), needed_by: Timestamp::MAX };
        self.api(client, authority, caller, &serial).revoke(&serial, &reason).await
    }

    fn list_revocation(
        &self,
        issued: &IssuedCertificate<'_>,
        serial: Option<&str>,
        reason: RevocationReason,
    ) {
        if let (Some(revocations), Some(serial), Some(pca)) =
            (&self.revocations, serial, issued.spec.signer.acm_pca())
        {
            let authority = pca.certificate_authority_arn.clone();
            revocations.add(Revocation::new(issued.namespace, authority, serial, reason));
        }
    }

    fn api(&self, client: Client, authority: Arn, caller: Caller, seed: &str) -> Api {
        Api {
            client,
            limiter: Arc::clone(&self.limiter),
            metrics: self.metrics.clone(),
            authority,
            caller,
            seed: seed.to_owned(),
        }
    }
}

impl Signer for AcmPca {
    fn kind(&self) -> SignerKind {
        SignerKind::AcmPca
    }

    fn is_resumable(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        Box::pin(async move { Signing::start(self, request).await?.run().await })
    }

    fn needs_token(&self, spec: &CertificateSpec) -> bool {
        spec.signer.acm_pca().is_some_and(|pca| self.clients.needs_token(&pca.caller))
    }

    fn describe(&self, checkpoint: &str) -> String {
        checkpoint.to_owned()
    }
}

impl SignerNotification for AcmPca {
    /// Never resolves, because AWS does not notify of certificates.
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(std::future::pending())
    }

    fn in_use(&self, issued: &IssuedCertificate<'_>) {
        // A revocation would gain nothing if the new certificate has the same key.
        if !issued.spec.key.reuse {
            self.list_revocation(issued, issued.superseded, RevocationReason::Superseded);
        }
    }

    fn removed(&self, issued: &IssuedCertificate<'_>) {
        self.list_revocation(issued, issued.serial, RevocationReason::CessationOfOperation);
    }
}

#[cfg(test)]
mod tests;
