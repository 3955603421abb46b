//! The Kubernetes API: who we are to it, one way to call it, Events on pods, the startup taint.
//!
//! Every call goes through [`Cluster::call`], which bounds its time and tells apart what an error means; the one watch of
//! a signer uses [`Cluster::client`]. Both are counted, and slowed down where the operator asks for it, in `observed`.

mod call;
mod cluster;
mod events;
mod observed;
mod taint;

pub use call::{CallError, Caller};
pub use cluster::{Cluster, KubeError, KubeOptions};
pub use events::{EventKind, EventRecorder, PodEventNote};
pub use observed::{ApiObserver, RateLimit};
pub use taint::remove_startup_taint;

/// For tests of whatever calls the API.
#[cfg(test)]
pub(crate) mod testing {
    use super::ApiObserver;

    /// Counts nothing.
    pub(crate) struct Uncounted;

    impl ApiObserver for Uncounted {
        fn api_call(&self, _verb: &'static str, _code: u16) {}
        fn watch_restarted(&self) {}
    }
}
