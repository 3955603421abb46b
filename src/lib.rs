//! certlet gives every pod its own short-lived X.509 certificate.
//!
//! It is a Kubernetes CSI node driver. A pod declares a volume; on that pod's node certlet makes a key in memory, has it
//! signed, mounts key, certificate and CA on tmpfs, and renews them well before they expire. Where no driver runs, a sidecar does the
//! same for its own pod.

#![cfg_attr(
    not(feature = "aws"),
    allow(dead_code, unused_imports, reason = "some helpers serve AWS Private CA alone")
)]

#[cfg(feature = "kubernetes")]
pub mod approver;
pub mod attributes;
pub mod cli;
pub(crate) mod control;
pub mod credential;
pub mod csi;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "kubernetes")]
pub(crate) mod kube;
pub mod model;
#[cfg(test)]
#[path = "../tests/support/namespace.rs"]
mod namespace;
pub mod platform;
#[cfg(feature = "aws")]
pub(crate) mod policy;
pub mod reload;
pub mod run;
pub(crate) mod sidecar;
pub mod signer;
pub mod sink;
pub mod store;
pub mod telemetry;
pub mod trust;
pub mod volume;
pub mod x509;

pub(crate) use certlet_proto as proto;
