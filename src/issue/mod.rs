//! One issuance: attributes and pod identity in, verified [`Bundle`] out.
//!
//! In order: [`Issuer::make_key`], [`Issuer::csr`], [`Issuer::issue`] (which asks the signer and verifies what comes
//! back), [`Bundle::new`]. The key stays with the caller until the last step, so that a signing that is cut off loses
//! nothing.

mod bundle;
mod chain;
mod issuer;
mod request;
mod verify;
mod verify_error;

pub use crate::x509::{KeyError, PrivateKey};
pub use bundle::{Bundle, CertificateFacts};
pub use issuer::{FailureClass, IssueError, IssueRequest, Issuer};
pub use request::RequestError;
pub use verify::{VerifiedChain, verify};
pub use verify_error::{Part, VerifyError};
