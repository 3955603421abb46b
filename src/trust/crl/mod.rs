//! CRLs: the certificates that a CA has revoked, for the pods that ask for them.
//!
//! A source holds the lists: a URL that the operator names or that a certificate names, a ConfigMap or a file. One task follows a
//! source for the whole node, and none where no volume uses it. Whatever a source holds is hostile until a CA of a volume has signed
//! it: [`followed`] keeps, for each CA, the newest list that its key has signed. [`volume`] joins what the CAs of one volume have.

mod fetch;
mod followed;
mod metrics;
mod node;
mod source;
mod volume;

pub(crate) use metrics::CrlMetrics;
pub(crate) use node::Crls;
pub use source::{CrlSource, CrlUrl, Host};
pub(crate) use volume::VolumeCrls;

use std::time::Duration;

/// What the operator says of CRLs.
#[derive(Clone, Debug)]
pub struct CrlOptions {
    /// `--crl`: for every volume that asks for CRLs.
    pub sources: Vec<CrlSource>,
    /// `--crl-allowed-hosts`: whose URLs in certificates, and in redirects, are followed.
    pub allowed_hosts: Vec<Host>,
    /// `--max-crl-size`: bytes of one text.
    pub max_bytes: usize,
    /// `--crl-refresh-interval`: how long a URL is not asked again.
    pub refresh: Duration,
}

impl Default for CrlOptions {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            allowed_hosts: Vec::new(),
            max_bytes: 8 << 20,
            refresh: Duration::from_hours(1),
        }
    }
}
