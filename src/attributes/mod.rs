//! What a pod author may ask for: `volumeAttributes` parsed once, at the door, into one typed [`Attributes`].
//!
//! Two dialects are told apart by their prefix: `csi.cert-manager.io/` with exactly the meaning and defaults of
//! cert-manager's csi-driver, and `csi.certlet.io/` with the same names, ours beside them, and today's defaults.
//! Everything here is pure: no clock, no file, no network.

mod identity;
pub use identity::{PodIdentity, VolumeId};
mod types;
pub use types::{
    Attributes, Dialect, Files, IssuerRef, KeyAlgorithm, KeyEncoding, KeySpec, PcaRequest, Pkcs12, SignerKind, Subject,
    SubjectAltNames, SubjectFields, Usage,
};
mod tokens;
pub use tokens::{PodToken, PodTokens};
