//! Logs, metrics, and the admin HTTP server.

mod admin;
mod logging;
mod metrics;
mod samples;

pub(crate) use admin::{Claim, Connections, serve_admin};
pub use logging::{LogFormat, LoggingError, init as init_logging};
pub use metrics::Metrics;
#[cfg(feature = "kubernetes")]
pub(crate) use metrics::{ApiCallLabels, encode as encode_metrics, new_registry, registered};
pub(crate) use samples::{VolumeSample, VolumeSamples, VolumeState};
