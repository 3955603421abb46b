//! What an operator sees: logs, metrics, and the admin HTTP server.

mod admin;
mod logging;
mod metrics;
mod samples;
mod signers;

pub use admin::{Admin, Health};
pub use logging::{LogFormat, LoggingError, init as init_logging};
pub use metrics::Metrics;
pub use samples::{VolumeSample, VolumeSamples, VolumeSource, VolumeState};
pub use signers::CountedSigner;
