//! Sinks: they hand a credential and its trust bundle to a pod.
//!
//! [`files`] writes them into the volume. [`socket`] serves them on a socket in the volume, by the SPIFFE Workload API
//! ([`workload_api`]) and by Envoy's SDS ([`sds`]).

mod access;
pub(crate) mod files;
mod sds;
mod socket;
mod trust_domains;
mod workload_api;

pub(crate) use access::Access;
pub(crate) use socket::{ServedSocket, SocketOwner, Sockets, Workload};
