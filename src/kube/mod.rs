//! The Kubernetes API: clients and their identities, calls, Events on pods, the startup taint, the ConfigMap that names an issuer.
//!
//! Every call goes through [`Cluster::call`], which limits its time and classifies its failure. Only watches use [`Cluster::own`]
//! itself. `observed` counts both, and delays them if the operator sets a rate limit.

mod bounded;
mod call;
mod certificate_request;
mod cluster;
mod events;
mod following;
mod issuer;
mod observed;
mod polling;
mod taint;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use bounded::{ListDigest, TextDigest, message, read_text};
pub(crate) use call::{CallError, Caller};
pub(crate) use certificate_request::{IDENTITY_ANNOTATION, RequestKey, certificate_request};
pub(crate) use cluster::{Cluster, KubeError};
pub(crate) use events::EventRecorder;
pub(crate) use following::{WatchError, follow};
pub(crate) use issuer::follow_issuer;
pub(crate) use observed::ApiObserver;
pub(crate) use taint::remove_startup_taint;
