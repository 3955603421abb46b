//! The gRPC protocols that certlet speaks: messages, clients and servers.
//!
//! `make proto` generates the code from the `.proto` files beside it, and a test compares the two. The code is checked in, so
//! that a build of certlet needs neither protoc nor a generator.

/// Container Storage Interface.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod csi {
    include!("generated/csi.v1.rs");
}

/// The kubelet's plugin registration.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod registration {
    include!("generated/pluginregistration.rs");
}
