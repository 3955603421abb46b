//! certlet gives every pod its own short-lived X.509 certificate.

pub mod attributes;
pub mod clock;
pub mod delivery;
pub mod issue;
pub mod signer;
pub mod store;
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
