//! The kubelet's side of CSI: registers a driver and publishes volumes through its socket as a kubelet does.
//!
//! `certlet demo`, the integration tests and the benchmarks call the driver through it. It uses the sockets and files of the
//! driver only, and shares no code with it.
//!
//! - [`Kubelet`] makes the calls for a [`Pod`]. [`Driver`] is `certlet node` as a child process.
//! - [`namespace`] makes the mounts private to the process, so that no root is needed.
//! - [`leaf`] and [`Swaps`] show what a pod sees in its volume.

mod driver;
mod kubelet;
mod leaf;
pub mod namespace;
mod swaps;

pub use certlet_proto as proto;
pub use driver::{DRIVER_NAME, Driver};
pub use kubelet::{Kubelet, Pod};
pub use leaf::{Leaf, leaf};
pub use swaps::Swaps;
