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

/// The SPIFFE Workload API.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod workload {
    include!("generated/_.rs");
}

/// Envoy's Secret Discovery Service and its messages, in the modules of their packages.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod xds {
    pub mod envoy {
        pub mod service {
            pub mod secret {
                pub mod v3 {
                    include!("generated/envoy.service.secret.v3.rs");
                }
            }
            pub mod discovery {
                pub mod v3 {
                    include!("generated/envoy.service.discovery.v3.rs");
                }
            }
        }
        pub mod extensions {
            pub mod transport_sockets {
                pub mod tls {
                    pub mod v3 {
                        include!("generated/envoy.extensions.transport_sockets.tls.v3.rs");
                    }
                }
            }
        }
    }
    pub mod google {
        pub mod rpc {
            include!("generated/google.rpc.rs");
        }
    }
}

/// The descriptors of [`workload`] and [`xds`] for gRPC's server reflection: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include!("generated/descriptors.rs");
