//! One issuance: attributes and pod identity in, verified [`Bundle`] out.

mod bundle;
mod key;
pub use bundle::{Bundle, CertificateFacts};
pub use key::PrivateKey;
