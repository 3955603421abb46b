//! The types that all modules share: volume, workload identity, certificate spec, certificate facts and failure.
//!
//! It imports no other module, and holds data only: no clock, no file, no network.

mod arn;
mod digest;
mod distinguished_name;
mod doubts;
mod event;
mod facts;
mod failure;
mod files;
mod go_duration;
mod identity;
mod issuer;
pub(crate) mod named;
mod nearest;
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "only AWS Private CA's policy uses all of it"))]
mod pattern;
mod raw;
mod shown;
mod spec;
mod tokens;
mod trust_domain;
mod trust_source;
mod uri;
mod usage;
mod volume_class;

pub use arn::Arn;
pub(crate) use digest::{fingerprint, hex, jitter, sha256};
pub use distinguished_name::{DistinguishedName, NameAttribute, NameValue};
pub(crate) use distinguished_name::{Escape, KEYWORDS, rfc4514};
pub use doubts::Doubts;
pub(crate) use event::{EventKind, PodEvent};
pub use facts::CertificateFacts;
pub use failure::{Failure, FailureKind};
pub use files::{
    Files, KeystorePassword, Layout, LayoutKind, PemFiles, Pkcs12, Pkcs12Profile, SecretNames, Truststore,
};
pub(crate) use go_duration::{go_duration, positive as parse_duration, short_go_duration};
pub use identity::{VolumeId, WorkloadIdentity};
pub(crate) use issuer::CurrentIssuer;
pub use issuer::{OperatorIssuer, RuntimeConfigMap};
pub(crate) use named::named_enum;
pub(crate) use nearest::nearest as nearest_name;
pub(crate) use pattern::{Pattern, PatternKind};
pub use raw::RawAttributes;
pub(crate) use shown::{MAX_MESSAGE_BYTES, clipped, plain, shown, shown_list};
pub use spec::{
    CertificateSpec, Dialect, IssuerRef, KeyAlgorithm, KeyEncoding, KeySpec, PcaCaller, PcaRequest,
    SignerKind, SignerSpec, Subject, SubjectAltNames, SubjectFields,
};
pub use tokens::{PodToken, PodTokens};
pub use trust_domain::TrustDomain;
pub use trust_source::TrustSource;
pub(crate) use trust_source::is_name as is_object_name;
pub(crate) use uri::encoded_separator;
pub use usage::Usage;
pub use volume_class::VolumeClass;
