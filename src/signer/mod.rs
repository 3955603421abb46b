//! Who signs: one trait, and a signer for each place that can turn a certificate signing request into a chain.

mod acm_pca;
mod cert_manager;
mod local;

use crate::attributes::{Attributes, PodIdentity, PodTokens, SignerKind, VolumeId};
use futures_util::future::BoxFuture;
use std::time::Duration;
use thiserror::Error;

pub use acm_pca::{AcmPca, AcmPcaParts, PcaMetrics, template_of};
pub use cert_manager::{CertManager, CertManagerOptions, Gate, GateBackoff, IpFamily};
pub use local::{LocalCa, LocalCaError};

/// Turns certificate signing requests into chains. One instance serves all volumes of the node.
pub trait Signer: Send + Sync + 'static {
    /// Which `signer` attribute selects it.
    fn kind(&self) -> SignerKind;

    /// Whether a signing may outlast a publish, so that key, request and [`Progress`] have to wait in the store.
    fn is_slow(&self) -> bool;

    /// Signs one request. Dropping the future abandons the wait, and only the wait: with the same [`Progress`] a later
    /// call takes up what was begun.
    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, SignError>>;

    /// Whether it signs for such a volume only with a token of the pod's, which the kubelet brings.
    fn needs_token(&self, _attributes: &Attributes) -> bool {
        false
    }

    /// What a note left in [`Progress`] stands for, and how that stands now: for the pod's author.
    fn describe(&self, note: &str) -> String {
        note.to_owned()
    }

    /// A volume whose certificate has come while nobody waited for it: a call now would find it. A signer that is not told
    /// of such things never returns. Called again and again by one caller; dropping the future loses no volume.
    fn answered(&self) -> BoxFuture<'_, VolumeId> {
        Box::pin(std::future::pending())
    }

    /// The chain that `progress` led to is in use: what was kept for it, or came before it, may go.
    fn delivered<'a>(&'a self, _volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// The volume is gone: remove what still stands for it elsewhere. Best effort.
    fn removed<'a>(&'a self, _volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// The volume that a signer is told about after the fact.
#[derive(Clone, Copy, Debug)]
pub struct SignedVolume<'a> {
    /// The volume.
    pub id: &'a VolumeId,
    /// The pod it belongs to.
    pub pod: &'a PodIdentity,
    /// What it asked for.
    pub attributes: &'a Attributes,
    /// The serial number, lower-case hexadecimal, of its certificate.
    pub serial: Option<&'a str>,
    /// That of the certificate which this one has taken the place of.
    pub superseded: Option<&'a str>,
}

/// A signer's list of what is still to be done, kept where it outlasts the volumes and the process.
pub trait Ledger: Send + Sync + 'static {
    /// The list; empty where there is none.
    fn load(&self) -> String;

    /// Puts another in its place. Best effort.
    fn save(&self, text: &str);
}

/// One request for a signer.
#[derive(Clone, Copy)]
pub struct SigningRequest<'a> {
    /// The volume it is for.
    pub volume: &'a VolumeId,
    /// The pod it is for.
    pub pod: &'a PodIdentity,
    /// The pod's service account tokens, as fresh as the kubelet's last call.
    pub tokens: &'a PodTokens,
    /// What the volume asked for.
    pub attributes: &'a Attributes,
    /// The PKCS#10 certificate signing request (RFC 2986), DER.
    pub csr_der: &'a [u8],
    /// The note an earlier, cut-off call left, and where to leave one.
    pub progress: &'a dyn Progress,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a signing is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A pod waits for it to start.
    Publish,
    /// A certificate that is in use is to be replaced.
    Renewal,
}

impl Purpose {
    /// The `purpose` label of the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Renewal => "renewal",
        }
    }
}

/// A signer's own short note about a signing that is under way: the name of a CertificateRequest, a certificate's ARN.
/// It is kept in the store beside the pending key until the signing has succeeded or has failed for good. The first note
/// comes before the signer asks anybody for anything: until then the key itself may be lost.
pub trait Progress: Send + Sync {
    /// The note, if an earlier call left one.
    fn load(&self) -> Option<String>;

    /// Leaves a note, an empty one being none; when this returns, it and the pending key survive a kill -9.
    fn save(&self, note: &str) -> Result<(), SignError>;
}

/// What a signer answers; nothing in it is trusted before [`crate::issue`] has verified it.
#[derive(Clone, Debug)]
pub struct SignedChain {
    /// PEM certificates: the leaf and what leads up from it, in whatever order the signer gives them.
    pub chain: Vec<u8>,
    /// PEM certificates of the trust anchors, where the signer names them apart.
    pub ca: Option<Vec<u8>>,
    /// Something the pod's author should know though the signing succeeded: a lifetime that was cut short, say.
    pub remark: Option<String>,
}

/// Why a signer gave no chain.
#[derive(Clone, Debug, Error)]
pub enum SignError {
    /// Asking again will not help until somebody changes something.
    #[error("{reason}")]
    Permanent {
        /// What is wrong and what to do about it.
        reason: String,
    },
    /// The signer asks us to slow down.
    #[error("{reason}")]
    Throttled {
        /// Who throttled.
        reason: String,
        /// How long to wait, where the signer says so.
        retry_after: Option<Duration>,
    },
    /// The pod lacks something that the operator wants it to have before anybody is asked.
    #[error("no certificate is asked for yet: {reason}")]
    NotReady {
        /// What it lacks.
        reason: String,
        /// When to look again.
        retry_after: Duration,
    },
    /// Asking again may help.
    #[error("{reason}")]
    Transient {
        /// What went wrong.
        reason: String,
    },
}

/// For tests of signers, and of those who call them.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Progress, SignError};

    /// Keeps no note.
    pub(crate) struct NoProgress;

    impl Progress for NoProgress {
        fn load(&self) -> Option<String> {
            None
        }

        fn save(&self, _note: &str) -> Result<(), SignError> {
            Ok(())
        }
    }
}
