//! What applies to a volume: its spec, and what the spec names of trust sources, trust domains and CRLs, which are followed.
//!
//! It stays the same for the life of a volume, except where a class of the operator's gives other attributes at a renewal. Then it is
//! replaced as a whole with the files that are made by it.

use super::context::Context;
use super::federation::Federation;
use super::files::password_is_gone;
use super::request::check_names;
use super::volume::Volume;
use crate::attributes;
use crate::model::{CertificateSpec, Failure, KeystorePassword, TrustSource};
use crate::trust::{FollowedSource, TrustBundle, VolumeCrls, joined};
use parking_lot::Mutex;
use std::sync::Arc;

/// The spec that the files of a volume are made by, with the trust that it names.
pub(super) struct AppliedSpec {
    /// Shared with the request for its publish.
    pub(super) spec: Arc<CertificateSpec>,
    /// The trust sources that it uses besides the signer.
    pub(super) trust_sources: Vec<Arc<FollowedSource>>,
    /// The other trust domains whose trust bundles it gets.
    pub(super) federation: Federation,
    /// The CRLs that it asks for.
    pub(super) crls: VolumeCrls,
    /// The trust bundle of a source other than the signer, as it was last set.
    trust: Mutex<Option<Arc<TrustBundle>>>,
}

impl AppliedSpec {
    pub(super) fn new(
        spec: Arc<CertificateSpec>,
        trust_sources: Vec<Arc<FollowedSource>>,
        federation: Federation,
        crls: VolumeCrls,
    ) -> Self {
        Self { spec, trust_sources, federation, crls, trust: Mutex::default() }
    }

    /// Sets the trust bundle of every later generation. It replaces the one that the signer names.
    pub(super) fn set_trust(&self, trust: Arc<TrustBundle>) {
        *self.trust.lock() = Some(trust);
    }

    /// The trust bundle of a source other than the signer, if there is one.
    fn trust(&self) -> Option<Arc<TrustBundle>> {
        self.trust.lock().clone()
    }

    /// Whether it trusts what its signer names.
    pub(super) fn trusts_signer(&self) -> bool {
        let sources = &self.spec.trust_sources;
        if sources.is_empty() { self.trust.lock().is_none() } else { sources.contains(&TrustSource::Signer) }
    }

    /// What its sources other than the signer name now; none if it has none. An error while one of them has never been read.
    pub(super) fn joined_sources(&self) -> Result<Option<Arc<TrustBundle>>, String> {
        if self.trust_sources.is_empty() { Ok(self.trust()) } else { joined(&self.trust_sources).map(Some) }
    }

    /// As [`Self::joined_sources`], as it was last set.
    pub(super) fn present_sources(&self) -> Result<Option<Arc<TrustBundle>>, ()> {
        match self.trust() {
            None if !self.trust_sources.is_empty() => Err(()),
            trust => Ok(trust),
        }
    }

    /// What is wrong with the first of its sources that does not work.
    pub(super) fn fault(&self) -> Option<String> {
        self.trust_sources.iter().chain(self.federation.sources()).find_map(|source| source.fault())
    }

    /// Sets the trust bundle to that of its sources. Returns whether it is another one than before. While a source has never had
    /// anchors, nothing changes.
    pub(super) fn refresh_sources(&self) -> bool {
        if self.trust_sources.is_empty() {
            return false;
        }
        let Ok(sources) = joined(&self.trust_sources) else { return false };
        let mut trust = self.trust.lock();
        let is_new = trust.as_ref() != Some(&sources);
        if is_new {
            *trust = Some(sources);
        }
        is_new
    }
}

impl Context {
    /// Follows what a spec names.
    pub(super) fn apply(&self, spec: Arc<CertificateSpec>, namespace: &str) -> Arc<AppliedSpec> {
        let trust_sources = self.trust.follow(&spec.trust_sources);
        let federation = Federation::follow(&spec, &self.trust, self.volume_bytes);
        let crls = self.crls.of_volume(spec.files.crl.is_some(), namespace);
        Arc::new(AppliedSpec::new(spec, trust_sources, federation, crls))
    }

    /// What applies to the next certificate of a volume. It differs from what applies now where the operator's class has changed. A
    /// class that refuses the volume now, or is gone, is an error. A volume that is mounted keeps its socket.
    pub(super) fn apply_class(&self, volume: &Volume, is_mounted: bool) -> Result<Arc<AppliedSpec>, Failure> {
        let now = volume.applied();
        let Some(class) = &now.spec.class else { return Ok(now) };
        let (raw, pod) = volume.with_record(|record| (record.attributes.clone(), record.pod.clone()));
        let spec = attributes::parse_again(&raw, &pod, &self.defaults, class, is_mounted)
            .and_then(|spec| spec.map(check_names).transpose())
            .map_err(|faults| Failure::permanent(faults.to_string()))?;
        let Some(spec) = spec else { return Ok(now) };
        // Asked before the signer is: no file could be written with its answer.
        let needs_password = matches!(spec.files.password, Some(KeystorePassword::Secret(_)));
        if is_mounted && needs_password && !self.files.store.has_password(&volume.id) {
            return Err(password_is_gone());
        }
        tracing::info!(volume = %volume.id, class = class.name, "the volume's class has changed, and applies to its next certificate");
        let next = self.apply(Arc::new(spec), &pod.namespace);
        if let (true, true, Some(trust)) =
            (now.trust_sources.is_empty(), next.trust_sources.is_empty(), now.trust())
        {
            next.set_trust(trust);
        }
        Ok(next)
    }
}
