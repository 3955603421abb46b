//! The record: all that a restart needs to know about a volume.

use crate::model::{CertificateFacts, FailureKind, RawAttributes, VolumeClass, VolumeId, WorkloadIdentity};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

/// What the store keeps about one volume. It holds what the pod's author wrote, which can be a keystore password. So it is
/// a 0600 file on the tmpfs, and the `Debug` of [`RawAttributes`] leaves the values out. It never holds a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The volume.
    pub volume_id: VolumeId,
    /// The path where it is mounted.
    pub target: PathBuf,
    /// The pod that it belongs to.
    pub pod: WorkloadIdentity,
    /// `volumeAttributes` as the pod's author wrote them.
    pub attributes: RawAttributes,
    /// CSI's `volume_mount_group`, if the kubelet sent one.
    #[serde(default)]
    pub fs_group: Option<u32>,
    /// The signer's name, for people to read.
    pub signer: String,
    /// What the operator's class made of the attributes when its files were made; none: it is of no class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Arc<VolumeClass>>,
    /// The certificate that was written last.
    #[serde(default)]
    pub issued: Option<IssuedRecord>,
    /// The last failure, if no issuance has succeeded since.
    #[serde(default)]
    pub last_error: Option<LastError>,
}

/// The certificate that was written last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedRecord {
    /// The certificate.
    pub facts: Arc<CertificateFacts>,
    /// When it was issued, by our clock.
    pub issued_at: Timestamp,
    /// When its renewal is due.
    pub renew_at: Timestamp,
    /// The generation it was written as. If [`Store::generation`](super::Store::generation) returns another, the
    /// process ended after it wrote the files and before it wrote this record. Then the facts are those of an older
    /// certificate.
    pub generation: u64,
    /// What the pod's author should know although the issuance succeeded.
    #[serde(default, rename = "remark")]
    pub warning: Option<String>,
    /// Its trust bundle.
    #[serde(default)]
    pub trust: TrustRecord,
}

impl IssuedRecord {
    /// When it can no longer be used: when it, or the first CA certificate of its chain, expires.
    pub fn end(&self) -> Timestamp {
        self.trust.chain_not_after.map_or(self.facts.not_after, |end| end.min(self.facts.not_after))
    }
}

/// A certificate and its trust bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRecord {
    /// The root that the certificate leads to; none: an earlier build has not written it.
    #[serde(default)]
    pub root: Option<LeafRoot>,
    /// The CA that has signed the certificate, as a fingerprint.
    #[serde(default)]
    pub issuing_ca: Option<String>,
    /// When the first CA certificate of the chain expires, the trust anchor included.
    #[serde(default)]
    pub chain_not_after: Option<Timestamp>,
    /// The SHA-256 of each anchor that the signer named.
    #[serde(default)]
    pub signer_anchors: Vec<String>,
    /// The anchors of the trust bundle that nothing names any more.
    #[serde(default)]
    pub retained: Vec<RetainedAnchor>,
}

/// The root that a certificate leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafRoot {
    /// Its subject; without an anchor, the issuer that the chain's last certificate names.
    pub subject: String,
    /// The SHA-256 of the anchor in the volume's trust bundle; none: none of them has signed the chain.
    pub sha256: Option<String>,
}

/// An anchor that nothing names any more, and that is trusted for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedAnchor {
    /// The SHA-256 of its DER, hexadecimal.
    pub sha256: String,
    /// Its subject, for people.
    pub subject: String,
    /// When it is distrusted.
    pub until: Timestamp,
}

/// A failed issuance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// What failed, for people.
    pub message: String,
    /// Number of consecutive failures.
    pub consecutive: u32,
    /// Its kind, which decides when the issuance is tried again.
    #[serde(rename = "class")]
    pub kind: FailureKind,
    /// When it is tried again; none: an earlier build has not written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

impl Record {
    /// The version of the format that this build writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// Reads a record. Unknown fields are ignored, so that a newer build can add some.
    pub fn parse(json: &[u8]) -> Result<Self, RecordError> {
        let Versioned { version } = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
        if version > Self::VERSION {
            return Err(RecordError::FutureVersion { version });
        }
        if version == 0 {
            return Err(RecordError::Unreadable { problem: "its version is 0".into() });
        }
        let Envelope { record, .. } = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
        Ok(record)
    }

    /// The record as it is written.
    pub fn encode(&self) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        // Measured first: a buffer that grows leaves copies of a keystore password behind.
        let mut json = Zeroizing::new(Vec::with_capacity(self.encoded_len()));
        self.encode_to(&mut *json)?;
        Ok(json)
    }

    /// Number of bytes that [`Self::encode`] returns.
    pub(crate) fn encoded_len(&self) -> usize {
        let mut length = Length(0);
        // A record that cannot be encoded is not written.
        let _counted = self.encode_to(&mut length);
        length.0
    }

    fn encode_to(&self, out: impl Write) -> serde_json::Result<()> {
        serde_json::to_writer(out, &Envelope { version: Self::VERSION, record: self })
    }
}

/// Counts the bytes that are written to it.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a volume has no usable record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It is not there. No bind mount is made before the record is written, so nothing depends on this volume.
    #[error("the record is missing: the publish ended before it was written")]
    Missing,
    /// It was moved away before, since it could not be read; the volume may be mounted.
    #[error("the record was moved away to {}, because it could not be used", super::UNREADABLE_RECORD)]
    MovedAway,
    /// It cannot be read.
    #[error("the record cannot be read: {problem}")]
    Unreadable {
        /// What is wrong, without any of its contents.
        problem: String,
    },
    /// A newer build wrote it.
    #[error("the record has version {version}, and this build knows versions up to {}", Record::VERSION)]
    FutureVersion {
        /// The version it has.
        version: u32,
    },
    /// It is in the directory of another volume.
    #[error("the record belongs to another volume, {volume}")]
    Misplaced {
        /// The volume it names.
        volume: VolumeId,
    },
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<R> {
    version: u32,
    record: R,
}

/// Says where the JSON is wrong, without serde's own message: it quotes what it found, which can be a password.
fn unreadable(error: &serde_json::Error) -> RecordError {
    let kind = match error.classify() {
        serde_json::error::Category::Io => "an I/O error",
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Data => "a field is missing or of the wrong type",
        serde_json::error::Category::Eof => "cut off",
    };
    RecordError::Unreadable { problem: format!("{kind} at line {} column {}", error.line(), error.column()) }
}
