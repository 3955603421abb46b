//! Signers: they turn certificate signing requests into chains.
//!
//! A signer gets a spec, an identity, a signing request, an opaque [`RequestId`] and a read-only view of the removed ids.
//! It knows no volume and no file.

#[cfg(feature = "aws")]
mod acm_pca;
mod budget;
#[cfg(feature = "kubernetes")]
mod cert_manager;
mod counted;
mod local;

use crate::model::named::named_enum;
use crate::model::{CertificateSpec, Failure, PodTokens, SignerKind, Usage, WorkloadIdentity};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use secrecy::SecretString;
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(feature = "aws")]
pub use acm_pca::{
    AcmPca, AcmPcaParts, Bucket, CallKind, Caller, Fleet, OwnCredentials, PcaMetrics, WaitQueue, template_of,
};
#[cfg(all(fuzzing, feature = "kubernetes"))]
pub(crate) use cert_manager::fuzz_certificate_request;
#[cfg(feature = "kubernetes")]
pub use cert_manager::{CertManager, CertManagerOptions, Following, Gate, GateBackoff, PodReader};
pub use counted::CountedSigner;
pub use local::{LocalCa, LocalCaError};

/// Turns certificate signing requests into chains. One instance serves all workloads of the node.
pub trait Signer: Send + Sync + 'static {
    /// The value of the attribute `signer` that selects it.
    fn kind(&self) -> SignerKind;

    /// Whether a later call resumes an interrupted signing from its [`Checkpoint`], with the same key and request.
    fn is_resumable(&self) -> bool;

    /// Whether it signs such a spec only with a service account token of the pod, which the kubelet sends.
    fn needs_token(&self, spec: &CertificateSpec) -> bool;

    /// Describes a checkpoint and its present state, for the pod's author.
    fn describe(&self, checkpoint: &str) -> String;

    /// Signs one request. Dropping the future only ends the wait: a later call with the same [`Checkpoint`] resumes the
    /// signing.
    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>>;
}

/// Notifications to and from a signer, besides [`Signer::sign`]. There are no default methods, so that a decorator cannot
/// forget one.
pub trait SignerNotification: Send + Sync + 'static {
    /// Resolves to a request that completed while no `sign` was waiting for it: a call now finds the certificate. Never
    /// resolves for a signer without such requests. One caller calls it repeatedly. Cancel-safe.
    fn next_completed(&self) -> BoxFuture<'_, RequestId>;

    /// The certificate is in use: the signer may delete or revoke what it has for earlier ones.
    fn in_use(&self, issued: &IssuedCertificate<'_>);

    /// The workload is gone: deletes its remaining requests in the background, best effort.
    fn removed(&self, issued: &IssuedCertificate<'_>);
}

/// Reads the addresses of pods, for `${POD_IP}` in `ip-sans`.
pub trait PodAddresses: Send + Sync + 'static {
    /// The primary address of a pod at present. As long as it has none, the failure is that it is not ready, for which `attempts`
    /// counts the earlier attempts.
    fn primary<'a>(
        &'a self,
        pod: &'a WorkloadIdentity,
        attempts: u32,
    ) -> BoxFuture<'a, Result<IpAddr, Failure>>;
}

/// A signer with the receiver of its notifications.
#[derive(Clone)]
pub struct ConfiguredSigner {
    /// The signer.
    pub signer: Arc<dyn Signer>,
    /// The receiver of notifications.
    pub notification: Arc<dyn SignerNotification>,
}

impl ConfiguredSigner {
    /// One instance in both roles.
    pub fn new<S: Signer + SignerNotification>(signer: Arc<S>) -> Self {
        Self { signer: Arc::clone(&signer) as Arc<dyn Signer>, notification: signer }
    }
}

/// An opaque id of what a certificate is issued for, such as a volume of this node. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Wraps an id, which the caller keeps unique.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A read-only view of the ids of this node.
pub trait LiveRequests: Send + Sync + 'static {
    /// What this node has under an id, for a pod of this namespace and with this signer.
    fn liveness(&self, signer: SignerKind, id: &RequestId, namespace: &str) -> Liveness;
}

/// What a node has under an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing: it never had the id, or removed it long ago, or has it for a pod of another namespace.
    Unknown,
    /// It has it.
    Present,
    /// It was removed recently and has not been added again, or it has another signer now.
    Removed,
}

/// The certificate that a notification is about.
#[derive(Clone, Copy, Debug)]
pub struct IssuedCertificate<'a> {
    /// Its id.
    pub id: &'a RequestId,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Its spec.
    pub spec: &'a CertificateSpec,
    /// Its serial number, lower-case hexadecimal; none if no certificate was issued.
    pub serial: Option<&'a str>,
    /// The serial number of the certificate that it replaces.
    pub superseded: Option<&'a str>,
}

/// One request for a signer.
#[derive(Clone, Copy)]
pub struct SigningRequest<'a> {
    /// Its id.
    pub id: &'a RequestId,
    /// The pod it is for.
    pub identity: &'a WorkloadIdentity,
    /// The pod's service account tokens, from the kubelet's last call.
    pub tokens: &'a PodTokens,
    /// The certificate's spec.
    pub spec: &'a CertificateSpec,
    /// The PKCS#10 certificate signing request (RFC 2986), DER.
    pub csr_der: &'a [u8],
    /// Loads and saves the state of this signing.
    pub checkpoint: &'a dyn Checkpoint,
    /// When the certificate is needed: at the end of the one in use, or of the kubelet's call. Orders requests of one namespace.
    pub needed_by: Timestamp,
    /// Whether a pod already uses a certificate that this one replaces. First certificates leave a part of their namespace's
    /// [`IssuanceBudget`](budget::IssuanceBudget) to such requests.
    pub replaces_certificate: bool,
    /// Number of consecutive [`FailureKind::NotReady`](crate::model::FailureKind::NotReady) failures before it.
    pub not_ready_count: u32,
}

impl<'a> SigningRequest<'a> {
    /// The pod's valid token for an audience; the empty audience is the API server's own. An error begins with `option`, the
    /// flag or attribute that needs the token.
    fn token(&self, audience: &str, option: &str, now: Timestamp) -> Result<&'a SecretString, Failure> {
        let name = if audience.is_empty() { "the API server" } else { audience };
        match self.tokens.audience(audience) {
            Some(token) if token.expires_at > now => Ok(&token.token),
            Some(token) => Err(Failure::transient(format!(
                "{option}: the pod's token for {name} expired at {}; the kubelet's next call brings a new one",
                token.expires_at
            ))),
            // After a restart there are no tokens until the kubelet's next call.
            None => Err(Failure::transient(format!(
                "{option}: the kubelet has sent no token for {name}; the CSIDriver object must have this audience among \
                 its tokenRequests, and requiresRepublish: true"
            ))),
        }
    }
}

named_enum! {
    /// Why a signing is made. The names are the `purpose` labels of the metrics.
    pub enum Purpose {
        /// A pod that is starting waits for it.
        Publish = "publish",
        /// It replaces a certificate in use.
        Renewal = "renewal",
    }
}

/// A signer's own short text about an unfinished signing: the name of a CertificateRequest, or a certificate's ARN. The store
/// keeps it beside the pending key until the signing has succeeded or has failed for good. A signer saves it before its first
/// request to anybody, because the pending key may be lost until then.
pub trait Checkpoint: Send + Sync {
    /// The text, if an earlier call saved one.
    fn load(&self) -> Option<String>;

    /// Saves it; an empty text counts as none. Text and pending key then survive a kill -9.
    fn save(&self, text: &str) -> Result<(), Failure>;
}

/// A signer's answer. It is not trusted until [`crate::x509::verify`] has accepted it.
#[derive(Clone, Debug)]
pub struct SignedChain {
    /// PEM certificates: the leaf and its issuers, in any order.
    pub chain: Vec<u8>,
    /// PEM certificates of the trust anchors, if the signer returns them separately.
    pub ca: Option<Vec<u8>>,
    /// A warning for the pod's author, such as a shortened lifetime.
    pub warning: Option<String>,
    /// Usages that the signer was known to set before it was asked, such as those of its template.
    pub template_usages: &'static [Usage],
}

/// For tests of signers.
#[cfg(test)]
pub(crate) mod testing {
    use super::Checkpoint;
    use crate::model::Failure;
    use parking_lot::Mutex;

    /// Keeps its checkpoint in memory.
    #[derive(Default)]
    pub(crate) struct SavedCheckpoint(pub(crate) Mutex<Option<String>>);

    impl Checkpoint for SavedCheckpoint {
        fn load(&self) -> Option<String> {
            self.0.lock().clone()
        }

        fn save(&self, text: &str) -> Result<(), Failure> {
            *self.0.lock() = Some(text.to_owned()).filter(|text| !text.is_empty());
            Ok(())
        }
    }

    /// Keeps no checkpoint.
    pub(crate) struct NoCheckpoint;

    impl Checkpoint for NoCheckpoint {
        fn load(&self) -> Option<String> {
            None
        }

        fn save(&self, _text: &str) -> Result<(), Failure> {
            Ok(())
        }
    }
}
