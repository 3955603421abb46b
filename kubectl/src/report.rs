//! What `certlet status --report` says.

use jiff::Timestamp;
use serde::Deserialize;

/// One driver, or one sidecar.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// Empty: an earlier driver, which does not say it.
    pub(crate) version: String,
    pub(crate) driver: String,
    pub(crate) notice: Option<String>,
    pub(crate) volumes: Vec<ReportedVolume>,
}

/// One volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ReportedVolume {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) signer: String,
    pub(crate) subject: String,
    pub(crate) sans: Vec<String>,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) renews_at: Option<Timestamp>,
    /// When certificate and chain end.
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) root: Option<String>,
    pub(crate) root_sha256: Option<String>,
    pub(crate) retained: Vec<RetainedRoot>,
    #[serde(rename = "remark")]
    pub(crate) warning: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) retries_at: Option<Timestamp>,
    pub(crate) pod_volume: Option<String>,
    pub(crate) volume: String,
}

impl ReportedVolume {
    /// The names in its certificate.
    pub(crate) fn names(&self) -> String {
        if self.sans.is_empty() { self.subject.clone() } else { self.sans.join(",") }
    }
}

/// A root that is trusted only for a while.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RetainedRoot {
    pub(crate) sha256: String,
    pub(crate) subject: String,
    pub(crate) until: Timestamp,
}

impl Report {
    /// Reads a report, or the list of an earlier driver's `status --json`.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        if text.trim_start().starts_with('[') {
            return Ok(Self { volumes: serde_json::from_str(text)?, ..Self::default() });
        }
        serde_json::from_str(text)
    }
}
