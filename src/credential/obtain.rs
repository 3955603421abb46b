//! One issuance: spec and workload identity in, verified credential out.
//!
//! The steps: make the key and its signing request, or load those of an interrupted issuance; ask the signer; verify its
//! answer. Key and request stay in the store until the credential is written, so that an interrupted signing can be
//! resumed.

use super::credential::Credential;
use super::keys::KeyMaker;
use super::pending::stored_csr;
use super::schedule::is_ahead;
use crate::model::{
    CertificateSpec, CurrentIssuer, Failure, FailureKind, IssuerRef, KeyEncoding, OperatorIssuer, PodTokens,
    SignerKind, VolumeId, WorkloadIdentity,
};
use crate::platform::{Clock, until};
use crate::signer::{
    ConfiguredSigner, PodAddresses, Purpose, RequestId, SignedChain, Signer, SigningRequest,
};
use crate::store::{CheckpointFile, IssuedRecord, Refusal, Store};
use crate::trust::{Pins, TrustBundle, read_pinned};
use crate::x509::{self, PrivateKey, SignerAnswer, VerifiedChain, pem};
use futures_util::future::{BoxFuture, select_all};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a refusal of a request or a certificate stands.
const MAX_REFUSAL: Duration = Duration::from_mins(10);

/// How long an issuance waits until the ConfigMap with the issuer is read.
const MAX_READ: Duration = Duration::from_secs(5);

/// When the kubelet gives up a publish. A pod that waits for its first certificate comes before renewals that end later.
const KUBELET_TIMEOUT: Duration = Duration::from_mins(2);

/// Runs issuances. One serves the whole node.
pub(crate) struct Obtainer {
    signers: Vec<ConfiguredSigner>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    keys: KeyMaker,
    pins: Pins,
    issuer: OperatorIssuer,
    addresses: Option<Arc<dyn PodAddresses>>,
}

/// The workload that a credential is obtained for.
#[derive(Clone, Copy)]
pub(crate) struct Workload<'a> {
    /// The volume.
    pub(crate) id: &'a VolumeId,
    /// The pod.
    pub(crate) identity: &'a WorkloadIdentity,
    /// The pod's service account tokens.
    pub(crate) tokens: &'a PodTokens,
    /// What the certificate must be like.
    pub(crate) spec: &'a CertificateSpec,
    /// The certificate in use.
    pub(crate) in_use: Option<&'a IssuedRecord>,
    /// How many times in a row the pod was not ready.
    pub(crate) not_ready_count: u32,
    /// Reads the private key in use, for a spec that reuses it.
    pub(crate) key_in_use: &'a (dyn Fn() -> Option<PrivateKey> + Send + Sync),
}

/// How one issuance runs.
#[derive(Clone, Debug)]
pub(crate) struct IssueOptions {
    /// Whether a pod waits for it.
    pub(crate) purpose: Purpose,
    /// Time limit for the signer; none: no limit.
    pub(crate) timeout: Option<Duration>,
    /// Ends the wait.
    pub(crate) cancel: CancellationToken,
}

/// A credential, with the trust bundle that its signer names.
#[derive(Debug)]
pub(crate) struct Obtained {
    /// The credential.
    pub(crate) credential: Credential,
    /// The trust anchors: those that the signer named, else the chain's root, else none.
    pub(crate) trust: TrustBundle,
    /// Whether these are the operator's, and not the signer's.
    pub(crate) is_pinned: bool,
    /// What the pod's author should know although the issuance succeeded.
    pub(crate) warning: Option<String>,
}

/// A key, the request made with it, and the checkpoint of its signing.
struct Prepared {
    key: PrivateKey,
    csr_der: Vec<u8>,
    checkpoint: CheckpointFile,
}

impl Obtainer {
    /// An obtainer with the signers that this node is configured with, and the operator's issuer.
    pub(crate) fn new(
        signers: Vec<ConfiguredSigner>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        pins: Pins,
        issuer: OperatorIssuer,
    ) -> Self {
        Self { signers, store, clock, keys: KeyMaker::new(), pins, issuer, addresses: None }
    }

    /// The same, which reads the addresses of pods. None: specs that want one are refused.
    pub(crate) fn with_addresses(self, addresses: Option<Arc<dyn PodAddresses>>) -> Self {
        Self { addresses, ..self }
    }

    /// The signer of that kind.
    pub(crate) fn signer(&self, kind: SignerKind) -> Result<&ConfiguredSigner, Failure> {
        self.signers.iter().find(|signer| signer.signer.kind() == kind).ok_or_else(|| {
            Failure::permanent(format!(
                "signer: \"{kind}\" is not available here: {}",
                how_to_configure(kind)
            ))
        })
    }

    /// Whether the signer needs a token of the pod for this spec.
    pub(crate) fn needs_token(&self, spec: &CertificateSpec) -> bool {
        self.signer(spec.signer.kind()).is_ok_and(|signer| signer.signer.needs_token(spec))
    }

    /// Whether a signing for this spec can take longer than one call.
    pub(crate) fn is_resumable(&self, spec: &CertificateSpec) -> bool {
        self.signer(spec.signer.kind()).is_ok_and(|signer| signer.signer.is_resumable())
    }

    /// Refuses the signer's answer to the present request, as the verification does.
    pub(crate) fn refuse_answer(&self, id: &VolumeId, spec: &CertificateSpec) -> Result<(), Failure> {
        if self.is_resumable(spec)
            && let Some(checkpoint) = self.store.checkpoint(id)?
        {
            checkpoint.refuse(Refusal { at: self.clock.now(), by_signer: None })?;
        }
        Ok(())
    }

    /// Resolves to a request that one of the signers completed while nobody waited for it. Cancel-safe.
    pub(crate) async fn next_completed(&self) -> RequestId {
        // `select_all` panics on an empty list, so there is always one future.
        let never: BoxFuture<'_, RequestId> = Box::pin(std::future::pending());
        let all = self.signers.iter().map(|signer| signer.notification.next_completed()).chain([never]);
        select_all(all).await.0
    }

    /// Obtains a credential. Dropping the future, the timeout and the cancellation only end the wait: the next call
    /// resumes the signing.
    pub(crate) async fn obtain(
        &self,
        workload: Workload<'_>,
        options: &IssueOptions,
    ) -> Result<Obtained, Failure> {
        let signer = &*self.signer(workload.spec.signer.kind())?.signer;
        let timeout = options.timeout.unwrap_or(Duration::MAX);
        let signing = tokio::time::timeout(timeout, self.sign_with_address(workload, signer));
        match options.cancel.run_until_cancelled(signing).await {
            Some(Ok(obtained)) => obtained,
            Some(Err(_)) => Err(self.still_waiting(workload.id, signer, timeout)),
            None => {
                let message = format!("volume {}: the operation was cancelled", workload.id);
                Err(Failure::new(FailureKind::Cancelled, message))
            }
        }
    }

    /// Signs, and fills in the pod's address if the spec wants it.
    async fn sign_with_address(
        &self,
        workload: Workload<'_>,
        signer: &dyn Signer,
    ) -> Result<Obtained, Failure> {
        if workload.spec.wants_pod_ip {
            // Boxed: few volumes want an address, and the futures of the others stay small.
            return Box::pin(self.read_address_and_sign(workload, signer)).await;
        }
        self.sign_with_issuer(workload, signer).await
    }

    /// The address is read before each request: a pod can get another one.
    async fn read_address_and_sign(
        &self,
        workload: Workload<'_>,
        signer: &dyn Signer,
    ) -> Result<Obtained, Failure> {
        let addresses = self.addresses.as_ref().ok_or_else(|| {
            Failure::permanent(
                "ip-sans: ${POD_IP} needs the pod's address, and the driver is connected to no cluster",
            )
        })?;
        let address = addresses.primary(workload.identity, workload.not_ready_count).await?;
        let spec = workload.spec.with_pod_ip(address);
        self.sign_with_issuer(Workload { spec: &spec, ..workload }, signer).await
    }

    /// Signs, and fills in the operator's issuer if the volume names none. If that changes while it is asked, the new one is asked at
    /// once: [`Self::prepare`] resumes no request to another issuer.
    async fn sign_with_issuer(
        &self,
        workload: Workload<'_>,
        signer: &dyn Signer,
    ) -> Result<Obtained, Failure> {
        if !workload.spec.signer.is_operators_issuer() {
            return self.sign(workload, signer).await;
        }
        let mut current = self.issuer.subscribe();
        loop {
            let issuer = self.operators_issuer(&mut current).await?;
            let spec = workload.spec.with_issuer(issuer);
            tokio::select! {
                biased;
                obtained = self.sign(Workload { spec: &spec, ..workload }, signer) => return obtained,
                Ok(()) = current.changed() => {
                    tracing::info!(volume = %workload.id, "the operator's issuer has changed, and the new one is asked");
                }
            }
        }
    }

    /// The operator's issuer at present.
    async fn operators_issuer(
        &self,
        current: &mut watch::Receiver<CurrentIssuer>,
    ) -> Result<IssuerRef, Failure> {
        let read = current.wait_for(|issuer| *issuer != CurrentIssuer::Unread);
        let issuer = tokio::time::timeout(MAX_READ, read).await.map(|read| read.map(|issuer| issuer.clone()));
        let config_map = self.issuer.config_map().map(ToString::to_string).unwrap_or_default();
        Err(Failure::transient(match issuer {
            Ok(Ok(CurrentIssuer::Named(issuer))) => return Ok(issuer),
            Ok(Ok(CurrentIssuer::Missing)) if config_map.is_empty() => {
                "no issuer is configured: the driver runs without --issuer-name and --runtime-issuance-config-map-name".to_owned()
            }
            Ok(Ok(CurrentIssuer::Missing)) => format!(
                "no issuer is configured: the driver runs without --issuer-name, and the ConfigMap {config_map} names none"
            ),
            Ok(_) | Err(_) => {
                format!("the issuer is not known yet: the ConfigMap {config_map} has not been read; see the driver's log")
            }
        }))
    }

    async fn sign(&self, workload: Workload<'_>, signer: &dyn Signer) -> Result<Obtained, Failure> {
        let needed_by = workload.in_use.map_or_else(|| self.clock.now() + KUBELET_TIMEOUT, IssuedRecord::end);
        let Prepared { key, csr_der, checkpoint } = self.prepare(workload, signer, needed_by).await?;
        let Workload { id, identity, tokens, spec, in_use, not_ready_count, .. } = workload;
        let request = SigningRequest {
            id: &RequestId::new(id.clone()),
            identity,
            tokens,
            spec,
            csr_der: &csr_der,
            checkpoint: &checkpoint,
            needed_by,
            replaces_certificate: in_use.is_some(),
            not_ready_count,
        };
        let refuse = |by_signer| {
            if signer.is_resumable() {
                checkpoint.refuse(Refusal { at: self.clock.now(), by_signer })?;
            }
            Ok::<_, Failure>(())
        };
        let answer = match signer.sign(&request).await {
            Err(failure) if failure.is_refusal => {
                refuse(Some(failure.recorded_message()))?;
                return Err(failure);
            }
            answer => answer?,
        };
        let verified = self.verify(&answer, &key, workload)?;
        let VerifiedChain { leaf, intermediates, trust_anchors: anchors, facts, warning } = match verified {
            Ok(chain) => chain,
            Err(failure) => {
                refuse(None)?;
                return Err(failure);
            }
        };
        // The benchmark measures from here to the client.
        tracing::debug!(volume = %id, "the chain is verified");
        let warnings: Vec<String> = answer.warning.into_iter().chain(warning).collect();
        Ok(Obtained {
            credential: Credential { key, leaf, intermediates, facts: Arc::new(facts) },
            trust: TrustBundle { anchors, ..TrustBundle::default() },
            is_pinned: self.pins.file_for(&spec.signer, &identity.namespace).is_some(),
            warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
        })
    }

    /// Verifies an answer, with the anchors that are pinned for its signer. The outer error says that these cannot be read: the
    /// answer stays valid.
    fn verify(
        &self,
        answer: &SignedChain,
        key: &PrivateKey,
        workload: Workload<'_>,
    ) -> Result<Result<VerifiedChain, Failure>, Failure> {
        let Workload { identity, spec, .. } = workload;
        let pin = self.pins.file_for(&spec.signer, &identity.namespace);
        let pinned =
            pin.map(read_pinned).transpose().map_err(|error| Failure::transient(error.to_string()))?;
        let verifiable = SignerAnswer {
            chain: &answer.chain,
            ca: pinned.as_deref().or(answer.ca.as_deref()),
            template_usages: answer.template_usages,
        };
        Ok(x509::verify(&verifiable, key.spki_der(), spec, self.clock.now()).map_err(|error| {
            let kind = if error.may_pass() { FailureKind::Transient } else { FailureKind::Permanent };
            let anchors = pin.map_or_else(String::new, |file| {
                format!("; the trust anchors are those that --pin-ca pins in {}", file.display())
            });
            Failure::new(kind, format!("the answer of the signer was refused: {error}{anchors}"))
        }))
    }

    /// The key to certify, with its request: those of an interrupted issuance, else the key in use if the spec reuses it,
    /// else a new key.
    async fn prepare(
        &self,
        workload: Workload<'_>,
        signer: &dyn Signer,
        needed_by: Timestamp,
    ) -> Result<Prepared, Failure> {
        let Workload { id, identity, spec, in_use, key_in_use, .. } = workload;
        let follows = in_use.map(|in_use| in_use.generation);
        let issuer = spec.signer.issuer_text();
        let class = spec.class.as_ref().map(|class| class.digest());
        let fits = |key: &PrivateKey| key.algorithm() == spec.key.algorithm;
        if signer.is_resumable()
            && let Some(checkpoint) = self.store.checkpoint(id)?
            && checkpoint.follows() == follows
            && checkpoint.asks(issuer.as_deref())
            && checkpoint.is_of_class(class.as_deref())
            && self.is_resumed(&checkpoint, in_use)?
            && let Some(key) = PrivateKey::from_pem(&checkpoint.key_pem).ok().filter(fits)
        {
            let csr_der = stored_csr(&checkpoint)?;
            // Otherwise the operator has changed what the spec means, and the answer would be refused.
            if x509::is_csr_for(&csr_der, spec, &key).is_ok_and(|is_same| is_same) {
                return Ok(Prepared { key, csr_der, checkpoint });
            }
            tracing::info!(volume = %id, "the pending request has other names than are asked for now: it is made anew");
        }
        let kept = if spec.key.reuse { key_in_use() } else { None };
        let key = match kept.filter(fits) {
            Some(key) => key,
            None => self.keys.make(spec.key.algorithm, &identity.namespace, needed_by).await?,
        };
        let csr_der = x509::csr(spec, &key).map_err(|error| Failure::permanent(error.to_string()))?;
        let key_pem =
            key.to_pem(KeyEncoding::Pkcs8).map_err(|error| Failure::transient(error.to_string()))?;
        let checkpoint = self.store.new_checkpoint(id, key_pem, pem::certificate_request(&csr_der), follows);
        let checkpoint = checkpoint.of_issuer(issuer).of_class(class);
        if signer.is_resumable() && spec.key.algorithm.is_slow_to_make() {
            // Saved now, so that attempts which end before the signer's first checkpoint do not make a new key each time.
            checkpoint.save("")?;
        }
        Ok(Prepared { key, csr_der, checkpoint })
    }

    /// Whether an interrupted issuance is resumed. Returns an error while a refusal by the signer stands.
    ///
    /// While a refusal by the verification stands, the same certificate is verified again. That needs no signer, and
    /// succeeds if the cause was a wrong clock of this node. Afterwards a new certificate is requested, in case the issuer
    /// was corrected. While a refusal by the signer stands, the signer is not asked again. Afterwards it gets one more
    /// request with the same key, in case its policy was corrected.
    fn is_resumed(
        &self,
        checkpoint: &CheckpointFile,
        in_use: Option<&IssuedRecord>,
    ) -> Result<bool, Failure> {
        let Some(Refusal { at, by_signer }) = checkpoint.refusal() else { return Ok(true) };
        let now = self.clock.now();
        // Shorter if the certificate in use would expire meanwhile.
        let stands = in_use.map_or(MAX_REFUSAL, |in_use| MAX_REFUSAL.min(until(at, in_use.end()) / 2));
        // A time in the future was recorded while the clock was wrong.
        let is_over = is_ahead(at, now) || until(at, now) >= stands;
        match by_signer {
            None => Ok(!is_over),
            Some(_) if is_over => Ok(true),
            Some(reason) => {
                let end = at.saturating_add(stands).unwrap_or(Timestamp::MAX).strftime("%H:%M:%SZ");
                Err(Failure::permanent(format!("{reason}; certlet asks again after {end}")))
            }
        }
    }

    /// What the pending request of a volume waits for; none if nothing is pending.
    pub(crate) fn pending(&self, id: &VolumeId, kind: SignerKind) -> Option<String> {
        let saved = self.store.checkpoint(id).ok().flatten()?.checkpoint()?;
        self.signer(kind).ok().map(|signer| signer.signer.describe(&saved))
    }

    fn still_waiting(&self, id: &VolumeId, signer: &dyn Signer, waited: Duration) -> Failure {
        let pending = self.pending(id, signer.kind());
        let state = pending.map_or_else(String::new, |pending| format!(" ({pending})"));
        let message = format!(
            "the {} signer has not answered within {:.0} s{state}; the request stays in place and the next attempt \
             resumes it",
            signer.kind(),
            waited.as_secs_f64()
        );
        Failure::new(FailureKind::StillWaiting, message)
    }
}

fn how_to_configure(kind: SignerKind) -> &'static str {
    match kind {
        SignerKind::Local => "certlet offers it only with --allow-local-signer, which is for development",
        SignerKind::CertManager => "this installation of certlet has no cert-manager signer configured",
        SignerKind::AcmPca => {
            "this installation of certlet has no AWS Private CA signer configured (--pca-policy)"
        }
    }
}

#[cfg(test)]
mod tests;
