//! certlet gives every pod its own short-lived X.509 certificate.
//!
//! It is a Kubernetes CSI node driver. A pod declares a volume; on that pod's node certlet makes a key in memory, has it
//! signed, mounts key, certificate and CA on tmpfs, and renews them well before they expire.
//!
//! One way through, no shortcuts back:
//!
//! ```text
//! kubelet -> csi -> attributes -> lifecycle -> issue -> signer
//!                                 lifecycle -> delivery -> store
//!                                 lifecycle's queue -> issue ...      (renewal)
//! ```
//!
//! - [`csi`] is the front door: the gRPC services, and the registration with the kubelet.
//! - [`attributes`] turns what a pod author wrote into one typed value. Pure.
//! - [`lifecycle`] owns a volume's life: publish, renew, unpublish, recover.
//! - [`issue`] makes key and request, and verifies what comes back; [`signer`] is who signs.
//! - [`limiter`] keeps within the quotas of a signer that has some; [`policy`] is who may ask it for what.
//! - [`x509`] is what both sides share of keys and encodings.
//! - [`kube`] is the Kubernetes API, for the cert-manager signer and for Events.
//! - [`delivery`] encodes the files. Pure. [`store`] writes and mounts them, and nothing else does.
//! - [`telemetry`] is what an operator sees; [`node`] puts everything together; [`demo`] plays the kubelet.

pub mod attributes;
pub mod cli;
pub mod clock;
pub mod csi;
pub mod delivery;
pub mod demo;
pub mod hardening;
pub mod issue;
pub mod kube;
pub mod lifecycle;
pub mod limiter;
pub mod node;
pub mod policy;
pub mod readiness;
pub mod signer;
pub mod store;
pub mod telemetry;
pub mod watch;
pub mod x509;

/// The gRPC services of `proto/`, as generated.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod proto {
    /// Container Storage Interface.
    pub mod csi {
        tonic::include_proto!("csi.v1");
    }
    /// The kubelet's plugin registration.
    pub mod registration {
        tonic::include_proto!("pluginregistration");
    }
}
